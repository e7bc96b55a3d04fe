"""The stock OpenAI SDK, sync and async, in front of the demo replica and of scripted ones."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from openai import AsyncOpenAI, OpenAI

from tests.e2e.sdk.replica import ScriptedReplica, event, hanging, streamed, whole
from tests.e2e.sdk.serving import Relay, demo_replica, relaying, until

# The SDK leaves generators of its own to the garbage collector, which Trio remarks upon.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")

HELLO: Any = [{"role": "user", "content": "Hello!"}]


@pytest.fixture
async def demo() -> AsyncIterator[Relay]:
    async with (
        demo_replica(name="one") as first,
        demo_replica(name="two") as second,
        relaying(first, second, model="demo") as relay,
    ):
        yield relay


def _client(relay: Relay, **options: Any) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=relay.base_url, api_key="unused", **options)


# --- async


async def test_chat(demo: Relay) -> None:
    """A chat completion comes back parsed, with its usage."""
    async with _client(demo) as client:
        answer = await client.chat.completions.create(model="demo", messages=HELLO)
    assert "simulat" in str(answer.choices[0].message.content)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 5


async def test_chat_streams(demo: Relay) -> None:
    """A streamed answer says the same as one that is not, and ends with its usage."""
    async with _client(demo) as client:
        whole_answer = await client.chat.completions.create(
            model="demo", messages=HELLO, max_tokens=20, seed=1
        )
        stream = await client.chat.completions.create(
            model="demo",
            messages=HELLO,
            max_tokens=20,
            seed=1,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    whole_text = str(whole_answer.choices[0].message.content)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert len(chunks) > 10
    # Each replica says its own name.
    assert text.replace("two", "one") == whole_text.replace("two", "one")
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.completion_tokens == 20


async def test_completions(demo: Relay) -> None:
    """The older endpoint, streamed and not."""
    async with _client(demo) as client:
        answer = await client.completions.create(model="demo", prompt="Once", max_tokens=8)
        stream = await client.completions.create(
            model="demo", prompt="Once", max_tokens=8, stream=True
        )
        chunks = [chunk async for chunk in stream]
    assert answer.choices[0].finish_reason == "length"
    assert "".join(chunk.choices[0].text for chunk in chunks)


async def test_embeddings(demo: Relay) -> None:
    """Embeddings, in the base64 that the SDK asks for by itself."""
    async with _client(demo) as client:
        answer = await client.embeddings.create(model="demo", input=["one", "two"], dimensions=16)
    assert [len(item.embedding) for item in answer.data] == [16, 16]
    assert answer.data[0].embedding != answer.data[1].embedding


async def test_models(demo: Relay) -> None:
    """The list of models, and one of them."""
    async with _client(demo) as client:
        listed = [model async for model in client.models.list()]
        one = await client.models.retrieve("demo")
    assert [model.id for model in listed] == ["demo"]
    assert one.owned_by == "triolet"
    assert one.model_extra is not None
    assert (one.model_extra["replicas"], one.model_extra["replicas_up"]) == (2, 2)


async def test_model_names_with_slashes() -> None:
    """The SDK escapes the slash of a model's name; it is found nevertheless."""
    replica = ScriptedReplica({})
    async with relaying(replica, model="Qwen/Qwen3-8B") as relay, _client(relay) as client:
        assert (await client.models.retrieve("Qwen/Qwen3-8B")).id == "Qwen/Qwen3-8B"


_RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "scripted",
    "status": "completed",
    "output": [
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Bonjour", "annotations": []}],
        }
    ],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 1},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 5,
    },
}


async def test_responses() -> None:
    """The Responses API, whose usage has other names, which the log line knows."""
    replica = ScriptedReplica({"/v1/responses": whole(_RESPONSE)})
    async with relaying(replica) as relay, _client(relay) as client:
        answer = await client.responses.create(model="scripted", input="Hello!")
        assert answer.output_text == "Bonjour"
        await until(relay.exchanges)
        [line] = relay.exchanges()
    assert (line["prompt_tokens"], line["completion_tokens"]) == (3, 2)
    assert line["cached_tokens"] == 1


def _named(data: dict[str, Any]) -> bytes:
    return event(data, data["type"])


async def test_responses_stream() -> None:
    """Events with names arrive in order, up to the one that completes."""
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    steps = [
        _named(
            {
                "type": "response.created",
                "sequence_number": 0,
                "response": {**_RESPONSE, "status": "in_progress", "output": []},
            }
        ),
        *(
            _named(
                {
                    "type": "response.output_text.delta",
                    "sequence_number": number,
                    "delta": delta,
                    "logprobs": [],
                    **place,
                }
            )
            for number, delta in enumerate(("Bon", "jour"), 1)
        ),
        _named({"type": "response.completed", "sequence_number": 3, "response": _RESPONSE}),
    ]
    replica = ScriptedReplica({"/v1/responses": streamed(*steps)})
    async with relaying(replica) as relay, _client(relay) as client:
        stream = await client.responses.create(model="scripted", input="Hello!", stream=True)
        events = [item async for item in stream]
    assert [item.type for item in events] == [
        "response.created",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.completed",
    ]


# --- headers


async def test_headers_of_an_answer(demo: Relay) -> None:
    """The headers that tell where a call went and where its time went."""
    async with _client(demo) as client:
        raw = await client.chat.completions.with_raw_response.create(
            model="demo", messages=HELLO, extra_headers={"x-request-id": "mine-1"}
        )
    assert raw.headers["x-request-id"] == "mine-1"
    assert raw.headers["x-triolet-attempts"] == "1"
    names = [replica.name for replica in demo.triolet.catalog.replicas]
    assert raw.headers["x-triolet-replica"] in names
    spans = re.findall(r"(\w+);dur=(-?[\d.]+)", raw.headers["server-timing"])
    assert [name for name, _ in spans] == ["queue", "upstream", "overhead"]
    assert all(0 <= float(duration) < 5000 for _, duration in spans)
    answer = raw.parse()
    assert answer.choices[0].message.content


async def test_headers_of_a_stream(demo: Relay) -> None:
    """A stream has them before its first event; an id is made where the client sent none."""
    async with _client(demo) as client:
        raw = await client.chat.completions.with_raw_response.create(
            model="demo", messages=HELLO, stream=True
        )
        assert re.fullmatch(r"req_[0-9a-f]{24}", raw.headers["x-request-id"])
        assert raw.headers["content-type"].startswith("text/event-stream")
        assert "upstream;dur=" in raw.headers["server-timing"]
        async for _ in raw.parse():
            pass


# --- leaving


async def test_leaving_a_stream_frees_the_replica() -> None:
    """A stream that the application closes in the middle ends the replica's work."""
    never, first = trio.Event(), event({"choices": [{"index": 0, "delta": {"content": "a"}}]})
    replica = ScriptedReplica({"/v1/chat/completions": streamed(first, never)})
    async with relaying(replica) as relay, _client(relay) as client:
        stream = await client.chat.completions.create(model="scripted", messages=HELLO, stream=True)
        async for _ in stream:
            assert relay.triolet.relay.in_flight == 1
            break
        await stream.close()
        await relay.until_idle()


@pytest.mark.slow
async def test_a_cancelled_call_frees_the_replica() -> None:
    """A call that the application cancels before any answer ends the replica's work too."""
    left = trio.Event()
    replica = ScriptedReplica({"/v1/chat/completions": hanging(left)})
    async with relaying(replica) as relay, _client(relay) as client:
        with trio.move_on_after(0.3) as scope:
            await client.chat.completions.create(model="scripted", messages=HELLO)
        assert scope.cancelled_caught
        with trio.fail_after(2):
            await left.wait()
        await relay.until_idle()
        assert len(replica.asked) == 1


# --- sync


def _talk(base_url: str) -> dict[str, Any]:
    """What a program without an event loop does; runs in a thread."""
    with OpenAI(base_url=base_url, api_key="unused") as client:
        answer = client.chat.completions.create(model="demo", messages=HELLO, max_tokens=12)
        with client.chat.completions.create(
            model="demo", messages=HELLO, max_tokens=12, stream=True
        ) as stream:
            chunks = list(stream)
        models = [model.id for model in client.models.list()]
        embedded = client.embeddings.create(model="demo", input="one")
    return {
        "tokens": answer.usage and answer.usage.completion_tokens,
        "finish": chunks[-1].choices[0].finish_reason,
        "models": models,
        "dimensions": len(embedded.data[0].embedding),
    }


async def test_sync_client(demo: Relay) -> None:
    """The synchronous client: whole, streamed, models, embeddings, all on kept connections."""
    found = await trio.to_thread.run_sync(_talk, demo.base_url)
    assert found == {"tokens": 12, "finish": "length", "models": ["demo"], "dimensions": 384}


@pytest.mark.slow
async def test_many_streams_at_once(demo: Relay) -> None:
    """Forty streams side by side, each with its own whole text."""
    texts: list[str] = []

    async with _client(demo) as client:

        async def ask(number: int) -> None:
            stream = await client.chat.completions.create(
                model="demo",
                messages=[{"role": "user", "content": f"<number {number}>"}],
                stream=True,
            )
            texts.append("".join([c.choices[0].delta.content or "" async for c in stream]))

        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(ask, number)
    found = {int(n) for text in texts for n in re.findall(r"<number (\d+)>", text)}
    assert found == set(range(40))
