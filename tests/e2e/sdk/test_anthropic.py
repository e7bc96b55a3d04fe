"""Anthropic's SDK in front of a replica that answers in Anthropic's shape."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest
import trio

from tests.e2e.sdk.replica import ScriptedReplica, event, streamed, whole
from tests.e2e.sdk.serving import Relay, relaying

# The SDK leaves generators of its own to the garbage collector, which Trio remarks upon.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")

MESSAGES = "/v1/messages"
HELLO: Any = [{"role": "user", "content": "Hello!"}]
ANSWER: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "scripted",
    "content": [{"type": "text", "text": "Bonjour"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 4, "output_tokens": 2, "cache_read_input_tokens": 1},
}


def _named(kind: str, **fields: Any) -> bytes:
    return event({"type": kind, **fields}, kind)


BEGIN = (
    _named("message_start", message={**ANSWER, "content": [], "stop_reason": None}),
    _named("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    _named("ping"),
    _named("content_block_delta", index=0, delta={"type": "text_delta", "text": "Bon"}),
    _named("content_block_delta", index=0, delta={"type": "text_delta", "text": "jour"}),
)
END = (
    _named("content_block_stop", index=0),
    _named("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 2}),
    _named("message_stop"),
)


def _client(relay: Relay) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=relay.url, api_key="secret", max_retries=0)


def _ask(client: anthropic.AsyncAnthropic, model: str = "scripted") -> Any:
    return client.messages.create(model=model, max_tokens=10, messages=HELLO)


def _stream(client: anthropic.AsyncAnthropic) -> Any:
    return client.messages.stream(model="scripted", max_tokens=10, messages=HELLO)


async def _take(client: anthropic.AsyncAnthropic, texts: list[str]) -> None:
    async with _stream(client) as stream:
        async for text in stream.text_stream:
            texts.append(text)


async def test_message() -> None:
    """A message comes back parsed; the SDK's own headers reach the replica."""
    replica = ScriptedReplica({MESSAGES: whole(ANSWER)})
    async with relaying(replica) as relay, _client(relay) as client:
        answer = await _ask(client)
    assert answer.content[0].text == "Bonjour"
    assert answer.usage.output_tokens == 2
    [asked] = replica.asked
    # Versions of the SDK differ in where they put the key.
    assert "secret" in asked.headers.get("x-api-key", asked.headers.get("authorization", ""))
    assert asked.headers["anthropic-version"]


async def test_message_streams() -> None:
    """Named events in their order, pings included, put together by the SDK."""
    replica = ScriptedReplica({MESSAGES: streamed(*BEGIN, *END)})
    async with relaying(replica) as relay, _client(relay) as client, _stream(client) as stream:
        texts = [text async for text in stream.text_stream]
        final = await stream.get_final_message()
    assert texts == ["Bon", "jour"]
    assert final.stop_reason == "end_turn"


async def test_count_tokens() -> None:
    """The small endpoint beside it."""
    replica = ScriptedReplica({"/v1/messages/count_tokens": whole({"input_tokens": 7})})
    async with relaying(replica) as relay, _client(relay) as client:
        counted = await client.messages.count_tokens(model="scripted", messages=HELLO)
    assert counted.input_tokens == 7


async def test_unknown_model() -> None:
    """Errors come in Anthropic's shape on this path."""
    async with relaying(ScriptedReplica({})) as relay, _client(relay) as client:
        with pytest.raises(anthropic.NotFoundError) as caught:
            await _ask(client, "claude")
    body = caught.value.body
    assert isinstance(body, dict)
    assert body["type"] == "error"
    assert body["error"]["type"] == "not_found_error"
    assert "scripted" in body["error"]["message"]


async def test_a_stream_is_cut() -> None:
    """In a stream that began, an `error` event, which the SDK raises."""
    replica = ScriptedReplica({MESSAGES: streamed(*BEGIN, cut=True)})
    texts: list[str] = []
    async with relaying(replica) as relay, _client(relay) as client:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await _take(client, texts)
    assert texts == ["Bon", "jour"]
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["error"]["type"] == "api_error"


def _talk(url: str) -> str:
    with anthropic.Anthropic(base_url=url, api_key="secret") as client:
        answer = client.messages.create(model="scripted", max_tokens=10, messages=HELLO)
    return str(getattr(answer.content[0], "text", ""))


async def test_sync_client() -> None:
    """The synchronous client as well."""
    replica = ScriptedReplica({MESSAGES: whole(ANSWER)})
    async with relaying(replica) as relay:
        assert await trio.to_thread.run_sync(_talk, relay.url) == "Bonjour"
