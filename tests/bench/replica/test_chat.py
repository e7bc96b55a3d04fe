"""Chat: pace, shapes, usage, limits and stop strings."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.replica import ReplicaSettings, create_app
from bench.replica.tokens import split
from tests.bench.replica.driver import Answer, call, chat, post

HONEST = "This is Triolet's demo replica demo-0: a simulation, not a language model."


async def test_pace_is_exact(autojump_clock: trio.testing.MockClock) -> None:
    """The head comes at once, role and first token at the TTFT, then a token each interval."""
    app = create_app(ReplicaSettings(ttft_s=0.2, tokens_per_s=50))
    answer = await chat(app, stream=True, max_tokens=500)
    times = [at for at, _ in answer.choices()]
    assert answer.head_s == 0
    assert times == pytest.approx([0.2, *(0.2 + token / 50 for token in range(500))], abs=1e-9)
    assert answer.chunks[-1][0] == times[-1]


async def test_whole_answer_takes_as_long(autojump_clock: trio.testing.MockClock) -> None:
    """Without streaming the answer comes when its last token is due."""
    answer = await chat(create_app(ReplicaSettings(ttft_s=0.2, tokens_per_s=50)), max_tokens=51)
    assert answer.chunks[0][0] == pytest.approx(1.2)
    assert answer.headers["content-length"] == str(len(answer.body))


async def test_tokens_per_chunk(autojump_clock: trio.testing.MockClock) -> None:
    """The first token travels alone, the others in groups, at the time of the group's last."""
    app = create_app(ReplicaSettings(ttft_s=1, tokens_per_s=10, tokens_per_chunk=4))
    answer = await chat(app, stream=True, max_tokens=11)
    times = [at for at, _ in answer.choices()]
    assert times == pytest.approx([1.0, 1.0, 1.4, 1.8, 2.0])
    assert answer.text() == (await chat(app, max_tokens=11)).text()


async def test_stream_has_vllm_shape(autojump_clock: trio.testing.MockClock) -> None:
    """Role, text, last text with the reason, end mark: in that order and with those fields."""
    answer = await chat(create_app(), stream=True, max_tokens=3)
    events = [event for _, event in answer.events()]
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [event["choices"][0]["finish_reason"] for event in events] == [
        None,
        None,
        None,
        "length",
    ]
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert len({(event["id"], event["created"], event["model"]) for event in events}) == 1
    assert events[0]["id"].startswith("chatcmpl-")
    assert events[1]["choices"][0] == {
        "index": 0,
        "delta": {"content": "This"},
        "logprobs": None,
        "finish_reason": None,
        "token_ids": None,
    }
    assert "usage" not in events[-1]
    assert events[-1]["system_fingerprint"] == "triolet-demo-simulation"


async def test_usage_event(autojump_clock: trio.testing.MockClock) -> None:
    """Asked for, the usage comes last, without choices, and adds up with the whole answer's."""
    app = create_app()
    asked = {"include_usage": True}
    events = (await chat(app, stream=True, max_tokens=9, stream_options=asked)).events()
    assert [bool(event["choices"]) for _, event in events] == [True] * 10 + [False]
    usage = events[-1][1]["usage"]
    assert usage["completion_tokens"] == 9
    assert usage["total_tokens"] == usage["prompt_tokens"] + 9
    whole = (await chat(app, max_tokens=9)).json()["usage"]
    assert whole == {**usage, "prompt_tokens_details": None}


async def test_answer_ends_by_itself_and_is_honest(autojump_clock: trio.testing.MockClock) -> None:
    """Without a limit the text says what it is, repeats the user, tells the way on, and stops."""
    said = "What   is a triolet?"
    document = (await chat(create_app(), said)).json()
    choice = document["choices"][0]
    text = choice["message"]["content"]
    assert text.startswith(HONEST)
    assert "What is a triolet?" in text
    assert "[[pool]]" in text
    assert choice["finish_reason"] == "stop"
    assert document["usage"]["completion_tokens"] == len(split(text)) > 80
    assert document["object"] == "chat.completion"
    assert document["system_fingerprint"] == "triolet-demo-simulation"


async def test_text_fills_max_tokens(autojump_clock: trio.testing.MockClock) -> None:
    """With a limit the simulation goes on to it, the same for the same seed, and says it is one."""
    answers = [(await chat(create_app(), max_tokens=1500, seed=s)).json() for s in (1, 1, 2)]
    texts = [answer["choices"][0]["message"]["content"] for answer in answers]
    assert {answer["choices"][0]["finish_reason"] for answer in answers} == {"length"}
    assert [len(split(text)) for text in texts] == [1500] * 3
    assert texts[0] == texts[1] != texts[2]
    assert "simulat" in texts[0][-400:]


async def test_context_bounds_an_unlimited_answer(autojump_clock: trio.testing.MockClock) -> None:
    """An answer without a limit ends where the context does."""
    usage = (await chat(create_app(ReplicaSettings(max_model_len=64)))).json()["usage"]
    assert usage["total_tokens"] == 64


async def test_max_completion_tokens_wins(autojump_clock: trio.testing.MockClock) -> None:
    """The newer name of the limit is the one that counts."""
    answer = await chat(create_app(), max_completion_tokens=4, max_tokens=400)
    assert answer.json()["usage"]["completion_tokens"] == 4


async def test_stop_string(autojump_clock: trio.testing.MockClock) -> None:
    """The text ends before the stop string, which is named; its tokens are counted."""
    answer = await chat(create_app(), stop=["never", "a simulation,"])
    choice = answer.json()["choices"][0]
    assert answer.text() == "This is Triolet's demo replica demo-0: "
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "a simulation,")
    made = "This is Triolet's demo replica demo-0: a simulation,"
    assert answer.json()["usage"]["completion_tokens"] == len(split(made))


async def test_content_parts_tools_and_unknown_fields(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Content as parts, tools and fields nobody knows are all taken."""
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    content = [{"type": "text", "text": "Look at"}, image, {"type": "text", "text": "this"}]
    answer = await post(
        create_app(),
        "/v1/chat/completions",
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": content},
            {"role": "assistant", "content": None, "tool_calls": []},
        ],
        tools=[{"type": "function", "function": {"name": "f"}}],
        tool_choice="auto",
        no_such_field={"a": 1},
    )
    assert answer.status == 200
    assert "“Look at this”" in answer.text()


async def test_request_id_is_the_callers(autojump_clock: trio.testing.MockClock) -> None:
    """The answer's id carries the request id that came with the request."""
    body = json.dumps({"messages": [{"role": "user", "content": "x"}], "max_tokens": 1})
    headers = ((b"content-type", b"application/json"), (b"x-request-id", b'r-"7'))
    answer = await call(
        create_app(), "POST", "/v1/chat/completions", body.encode(), headers=headers
    )
    assert answer.json()["id"] == 'chatcmpl-r-"7'


async def test_body_may_come_in_pieces(autojump_clock: trio.testing.MockClock) -> None:
    """A body is read until it is complete."""
    body = json.dumps({"messages": [{"role": "user", "content": "é"}], "max_tokens": 1}).encode()
    pieces = [body[at : at + 5] for at in range(0, len(body), 5)]
    assert (await call(create_app(), "POST", "/v1/chat/completions", pieces)).status == 200


stop_words = st.sampled_from(["a", "replica", " a sim", "n, n", "ulation, not", "\n\n", "zzz", "."])


@settings(max_examples=60, deadline=None)
@given(
    max_tokens=st.one_of(st.none(), st.integers(1, 300)),
    stop=st.one_of(st.none(), stop_words, st.lists(stop_words, max_size=3)),
    group=st.integers(1, 5),
)
def test_stream_equals_whole(
    max_tokens: int | None, stop: str | list[str] | None, group: int
) -> None:
    """For the same request, the stream's text, ending and usage are the whole answer's."""
    fields: dict[str, Any] = {"max_tokens": max_tokens, "stop": stop}

    async def both() -> tuple[Answer, Answer]:
        app = create_app(ReplicaSettings(seed=3, tokens_per_chunk=group))
        streamed: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
        return await chat(app, **fields), await chat(app, **fields, **streamed)

    whole, stream = trio.run(both, clock=trio.testing.MockClock(autojump_threshold=0))
    document = whole.json()
    last = stream.choices()[-1][1]
    assert stream.text() == whole.text()
    assert last["finish_reason"] == document["choices"][0]["finish_reason"]
    assert last["stop_reason"] == document["choices"][0]["stop_reason"]
    usage = stream.events()[-1][1]["usage"]
    assert document["usage"] == {**usage, "prompt_tokens_details": None}
