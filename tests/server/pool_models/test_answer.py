"""Answers put together from events, however they come."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.wire.sse import EventTap
from server.pool_models.answer import MOST_CHARACTERS, Answer
from server.workflow.services import ModelFailed, ToolCall
from tests.server.pool_models.calls import DONE, delta, event, stop, usage


def call_delta(index: int | None, id: str | None = None, **function: Any) -> bytes:
    return delta(tool_calls=[{"index": index, "id": id, "function": function}])


STREAM = b"".join(
    (
        b": keep-alive\n\n",
        delta(role="assistant", content=""),
        delta(reasoning_content="Let me see. "),
        delta(reasoning="Or so."),
        delta(content="Grüße "),
        delta(content="\U0001f600 世界"),
        call_delta(0, "call_a", name="find", arguments=""),
        call_delta(0, arguments='{"q": "on'),
        call_delta(1, "call_b", name="sum", arguments='{"x"'),
        call_delta(0, arguments='e"}'),
        call_delta(1, arguments=": 2}"),
        stop("tool_calls"),
        usage(),
        DONE,
    )
)


def read(stream: bytes, cuts: list[int]) -> tuple[list[tuple[str, str]], Answer]:
    """As it comes from a replica in these pieces: whole events only reach the answer."""
    heard: list[tuple[str, str]] = []
    answer = Answer(lambda text: heard.append(("t", text)), lambda text: heard.append(("r", text)))
    tap = EventTap()
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        answer.feed(tap.feed(stream[start:end]))
    answer.feed(tap.pending)
    return heard, answer


@given(
    st.lists(st.integers(0, len(STREAM)), max_size=12).map(sorted),
    st.sampled_from([b"\n", b"\r\n"]),
)
def test_any_split_is_the_same(cuts: list[int], line_end: bytes) -> None:
    """Where the bytes are cut, and how lines end, makes no difference."""
    heard, answer = read(STREAM.replace(b"\n", line_end), cuts)
    assert heard == [
        ("r", "Let me see. "),
        ("r", "Or so."),
        ("t", "Grüße "),
        ("t", "\U0001f600 世界"),
    ]
    assert (answer.text, answer.reasoning) == ("Grüße \U0001f600 世界", "Let me see. Or so.")
    assert answer.tool_calls == (
        ToolCall("call_a", "find", '{"q": "one"}'),
        ToolCall("call_b", "sum", '{"x": 2}'),
    )
    assert answer.finish_reason == "tool_calls"
    assert answer.ended


@given(st.lists(st.tuples(st.integers(0, 2), st.text(max_size=5)), max_size=20))
def test_calls_in_pieces(pieces: list[tuple[int, str]]) -> None:
    """However the arguments of several calls are mixed, each gets its own, in order."""
    answer = Answer()
    for index in range(3):
        answer.feed(call_delta(index, f"id{index}", name=f"f{index}"))
    for index, piece in pieces:
        answer.feed(call_delta(index, arguments=piece))
    for index, call in enumerate(answer.tool_calls):
        mine = "".join(piece for place, piece in pieces if place == index)
        assert call == ToolCall(f"id{index}", f"f{index}", mine)


@pytest.mark.parametrize("index", [None, 0])
def test_calls_that_are_not_numbered(index: int | None) -> None:
    """Some engines number none, some all 0: then the ids tell them apart."""
    answer = Answer()
    for id, name in (("a", "f"), ("b", "g")):
        answer.feed(call_delta(index, id, name=name, arguments='{"x":'))
        answer.feed(call_delta(index, arguments="1}"))
    assert answer.tool_calls == (ToolCall("a", "f", '{"x":1}'), ToolCall("b", "g", '{"x":1}'))


def test_calls_with_neither_number_nor_id() -> None:
    """Each has a name of its own; what has none goes on with the last one."""
    answer = Answer()
    calls = [{"function": {"name": name, "arguments": '{"x":'}} for name in ("f", "f", "g")]
    answer.feed(delta(tool_calls=calls))
    answer.feed(delta(tool_calls=[{"function": {"arguments": "1}"}}]))
    assert [call.name for call in answer.tool_calls] == ["f", "f", "g"]
    assert [call.arguments for call in answer.tool_calls] == ['{"x":', '{"x":', '{"x":1}']


def test_a_call_without_an_id_or_with_an_object() -> None:
    """It gets an id, and its arguments are JSON."""
    answer = Answer()
    answer.read(
        msgspec.json.encode(
            {
                "choices": [
                    {
                        "message": {
                            "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]
                        }
                    }
                ]
            }
        )
    )
    assert answer.tool_calls == (ToolCall("call_0", "f", '{"a":1}'),)


def test_content_in_parts() -> None:
    """Text, thoughts and pictures, as some engines send them."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]},
        {"type": "text", "text": "Hi"},
        picture,
        {"type": "image_url", "image_url": {"url": "http://elsewhere/x.png"}},
        "?",
    ]
    answer = Answer()
    answer.feed(delta(content=parts))
    answer.feed(delta(images=[picture]))
    assert (answer.text, answer.reasoning) == ("Hi", "Hm")
    assert answer.images == ("data:image/png;base64,AA==",) * 2


def test_other_choices_are_left() -> None:
    """One answer is asked for; a second one is not mixed into it."""
    answer = Answer()
    answer.feed(event({"choices": [{"index": 1, "delta": {"content": "no"}}]}))
    assert answer.text == ""


@pytest.mark.parametrize("half", [b"\\ud83d", b"\xf0\x9f"])
def test_half_a_character(half: bytes) -> None:
    """It does not cost the whole answer."""
    answer = Answer()
    answer.feed(b'data: {"choices": [{"delta": {"content": "a%b"}}]}\n\n' % half)
    answer.feed(delta(content="b"))
    assert answer.text[0] + answer.text[-1] == "ab"
    assert len(answer.text) == 3


@pytest.mark.parametrize(
    "data",
    [
        b"data: <html>\n\n",
        b'data: {"choices": 7}\n\n',
        b"data: " + b'{"choices":' * 2000 + b"\n\n",
        b'data: {"object": "error", "message": "no"}\n\n',
    ],
)
def test_what_is_no_answer(data: bytes) -> None:
    """It is an error of the model, never one of ours."""
    with pytest.raises(ModelFailed):
        Answer().feed(data)


def test_an_answer_without_end() -> None:
    """It is bounded, text and arguments together."""
    answer = Answer()
    big = "x" * (MOST_CHARACTERS // 2)
    answer.feed(delta(content=big))
    with pytest.raises(ModelFailed, match="max_tokens"):
        answer.feed(call_delta(0, arguments=big + "y"))


def test_tools_without_end() -> None:
    """Their number is bounded too."""
    answer = Answer()
    for number in range(128):
        answer.feed(call_delta(number, f"id{number}"))
    with pytest.raises(ModelFailed, match="more than 128 tools"):
        answer.feed(call_delta(128, "one more"))
