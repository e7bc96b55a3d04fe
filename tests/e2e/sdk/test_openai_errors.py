"""Errors as the OpenAI SDK maps them: the classes that applications catch."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import trio

from server.config import LimitsConfig, TimeoutConfig
from tests.e2e.sdk.replica import ScriptedReplica, event, hanging, streamed, whole
from tests.e2e.sdk.serving import Relay, relaying

# The SDK leaves generators of its own to the garbage collector, which Trio remarks upon.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")

CHAT = "/v1/chat/completions"
HELLO: Any = [{"role": "user", "content": "Hello!"}]
COMPLETION = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "scripted",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Bonjour"},
            "finish_reason": "stop",
        }
    ],
}


def _client(relay: Relay, retries: int = 0) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=relay.base_url, api_key="unused", max_retries=retries)


def _delta(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return event({**COMPLETION, "object": "chat.completion.chunk", "choices": [choice]})


async def _take(stream: Any, texts: list[str]) -> None:
    async for chunk in stream:
        texts.append(chunk.choices[0].delta.content)


@pytest.fixture
def nobody() -> Iterator[str]:
    """The URL of a port that refuses connections."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


async def test_unknown_model() -> None:
    """NotFoundError, with the code that applications look at, and the names that there are."""
    async with relaying(ScriptedReplica({})) as relay, _client(relay) as client:
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(model="gpt-5", messages=HELLO)
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("gpt-5")
    error = caught.value
    assert (error.status_code, error.code, error.param) == (404, "model_not_found", "model")
    assert error.type == "invalid_request_error"
    assert "'gpt-5'" in error.message
    assert "scripted" in error.message
    assert error.request_id is not None
    assert error.request_id.startswith("req_")


async def test_no_model() -> None:
    """BadRequestError that names the field."""
    async with relaying(ScriptedReplica({})) as relay, _client(relay) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model="", messages=HELLO)
    assert (caught.value.code, caught.value.param) == ("missing_required_parameter", "model")


async def test_a_field_of_the_wrong_type() -> None:
    """BadRequestError that names the field that routing could not read."""
    async with relaying(ScriptedReplica({})) as relay, _client(relay) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(
                model="scripted", messages=HELLO, extra_body={"stream": "yes"}
            )
    assert (caught.value.code, caught.value.param) == ("invalid_type", "stream")


async def test_an_oversized_body() -> None:
    """APIStatusError 413: the body was not read to its end, and the answer arrived nevertheless."""
    limits = LimitsConfig(body_bytes=10_000)
    async with relaying(ScriptedReplica({}), limits=limits) as relay, _client(relay) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await client.chat.completions.create(
                model="scripted", messages=[{"role": "user", "content": "x" * 20_000}]
            )
    assert caught.value.status_code == 413
    assert "limits.body_bytes" in caught.value.message


async def test_a_replica_refuses_the_request() -> None:
    """The replica's own 400 comes through, code and all, after one attempt."""
    error = {"message": "too long", "type": "x", "param": "messages", "code": "ctx"}
    handler = whole({"error": error}, status=400)
    replicas = [ScriptedReplica({CHAT: handler}) for _ in range(2)]
    async with relaying(*replicas) as relay, _client(relay) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model="scripted", messages=HELLO)
    assert (caught.value.code, caught.value.param) == ("ctx", "messages")
    assert caught.value.response.headers["x-triolet-attempts"] == "1"
    assert sum(len(replica.asked) for replica in replicas) == 1


@pytest.mark.slow
async def test_nobody_there(nobody: str) -> None:
    """502: no replica can be reached."""
    async with relaying(nobody) as relay, _client(relay) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model="scripted", messages=HELLO)
    error = caught.value
    assert (error.status_code, error.code) == (502, "replica_unreachable")
    assert error.type == "server_error"
    assert error.response.headers["x-triolet-attempts"] == "3"


async def test_another_replica_takes_over(nobody: str) -> None:
    """With one replica of two gone, no call fails, whichever is asked first."""
    replica = ScriptedReplica({CHAT: whole(COMPLETION)})
    async with relaying(nobody, replica) as relay, _client(relay) as client:
        for _ in range(4):
            answer = await client.chat.completions.create(model="scripted", messages=HELLO)
            assert answer.choices[0].message.content == "Bonjour"
    assert len(replica.asked) == 4


async def test_a_replica_is_overloaded() -> None:
    """503 and 429 of one replica send the call to another; the client does not notice."""
    busy = ScriptedReplica({CHAT: whole({"error": {"message": "busy"}}, status=503)})
    limited = ScriptedReplica({CHAT: whole({"error": {"message": "slow down"}}, status=429)})
    free = ScriptedReplica({CHAT: whole(COMPLETION)})
    options: dict[str, Any] = {"policy": "round_robin"}
    async with relaying(busy, limited, free, **options) as relay, _client(relay) as client:
        for _ in range(6):
            raw = await client.chat.completions.with_raw_response.create(
                model="scripted", messages=HELLO
            )
            assert raw.headers["x-triolet-replica"] == free.url
    assert len(free.asked) == 6
    assert busy.asked
    assert limited.asked


async def test_full() -> None:
    """503 with Retry-After when every place is taken and nobody may wait."""
    release = trio.Event()
    replica = ScriptedReplica({CHAT: streamed(_delta("a"), release)})
    async with relaying(replica, max_in_flight=1, queue=0) as relay, _client(relay) as client:
        stream = await client.chat.completions.create(model="scripted", messages=HELLO, stream=True)
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model="scripted", messages=HELLO)
        release.set()
        assert len([chunk async for chunk in stream]) == 1
    assert (caught.value.status_code, caught.value.code) == (503, "overloaded")
    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert caught.value.response.headers["x-triolet-attempts"] == "0"


async def test_a_timeout_is_not_repeated_by_the_sdk() -> None:
    """504: `x-should-retry: false` keeps the SDK, set to five retries, from a second call."""
    replica = ScriptedReplica({CHAT: hanging()})
    timeouts = TimeoutConfig(first_byte_s=0.2)
    async with relaying(replica, timeouts=timeouts) as relay, _client(relay, 5) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model="scripted", messages=HELLO)
    assert (caught.value.status_code, caught.value.code) == (504, "replica_timeout")
    assert "first_byte_s" in caught.value.message
    assert len(replica.asked) == 1


async def test_a_stream_is_cut() -> None:
    """What came before is the client's; then APIError, and never a silent end."""
    replica = ScriptedReplica({CHAT: streamed(_delta("a"), _delta("b"), cut=True)})
    async with relaying(replica) as relay, _client(relay) as client:
        stream = await client.chat.completions.create(model="scripted", messages=HELLO, stream=True)
        texts: list[str] = []
        with pytest.raises(openai.APIError) as caught:
            await _take(stream, texts)
    assert texts == ["a", "b"]
    assert caught.value.code == "replica_failed"
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["type"] == "server_error"


async def test_a_stream_fails_at_once() -> None:
    """An error as the first event of a 200 is an error answer, with the status it names."""
    first = event({"error": {"message": "bad template", "type": "BadRequestError", "code": 400}})
    replica = ScriptedReplica({CHAT: streamed(first)})
    async with relaying(replica) as relay, _client(relay) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model="scripted", messages=HELLO, stream=True)
    assert "bad template" in caught.value.message


@pytest.mark.slow
async def test_a_stream_stalls() -> None:
    """After `idle_s` of silence the stream ends with an error."""
    never = trio.Event()
    replica = ScriptedReplica({CHAT: streamed(_delta("a"), never)})
    timeouts = TimeoutConfig(idle_s=0.2)
    async with relaying(replica, timeouts=timeouts) as relay, _client(relay) as client:
        stream = await client.chat.completions.create(model="scripted", messages=HELLO, stream=True)
        with pytest.raises(openai.APIError) as caught:
            await _take(stream, [])
    assert caught.value.code == "replica_timeout"
    assert "idle_s" in caught.value.message


async def test_responses_stream_is_cut() -> None:
    """The Responses API has an event of its own for errors; the SDK hands it over as such."""
    created = event(
        {"type": "response.created", "sequence_number": 0, "response": {"id": "r", "output": []}},
        "response.created",
    )
    text = event(
        {"type": "response.output_text.delta", "sequence_number": 1, "item_id": "i", "delta": "Hi"},
        "response.output_text.delta",
    )
    replica = ScriptedReplica({"/v1/responses": streamed(created, text, cut=True)})
    async with relaying(replica) as relay, _client(relay) as client:
        stream = await client.responses.create(model="scripted", input="Hello!", stream=True)
        *_, last = [item async for item in stream]
    assert last.type == "error"
    assert last.code == "replica_failed"
