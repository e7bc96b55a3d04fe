"""What the Locust script is made of, without Locust."""

from __future__ import annotations

import json

import pytest

from bench.locust.answer import Answer, AnswerFailed
from bench.locust.settings import Settings, read_settings
from bench.locust.talk import Talk


def event(**delta: object) -> bytes:
    """One chunk of a chat stream."""
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode()


def answer(*lines: bytes) -> Answer:
    """Lines that came a second apart, from second 1 on."""
    made = Answer()
    for second, line in enumerate(lines, 1):
        made.line(line, float(second))
    return made


DONE = b"data: [DONE]"
USAGE = b'data: {"choices": [], "usage": {"completion_tokens": 9}}'


def test_first_text_is_neither_role_nor_empty() -> None:
    """Time to first token counts from the first chunk with text, as GenAI-Perf has it."""
    made = answer(
        b": comment",
        event(role="assistant", content=""),
        event(content=""),
        event(content="One"),
        b"",
        event(content=" two"),
        USAGE,
        DONE,
    )
    made.finish()
    assert (made.first_text_s, made.last_text_s) == (4, 6)
    assert (made.text, made.chunks) == ("One two", 2)


@pytest.mark.parametrize(
    "delta",
    [{"reasoning_content": "hm"}, {"reasoning": "hm"}, {"tool_calls": [{"index": 0}]}],
)
def test_reasoning_and_tool_calls_are_text(delta: dict[str, object]) -> None:
    """They take the engine's time as an answer does, but are not part of what is said."""
    made = answer(event(**delta), event(content="so"), DONE)
    made.finish()
    assert (made.first_text_s, made.text) == (1, "so")


def test_tokens_are_the_servers_count() -> None:
    """Usage wins over chunks, of which one may hold several tokens."""
    with_usage = answer(event(content="a"), event(content="b"), USAGE, DONE)
    assert with_usage.tokens == 9
    assert with_usage.itl_s == pytest.approx(1 / 8)
    without = answer(event(content="a"), event(content="b"), event(content="c"), DONE)
    assert (without.tokens, without.itl_s) == (3, 1)


def test_one_token_has_no_time_between_tokens() -> None:
    """There is nothing to divide by."""
    assert answer(event(content="a"), DONE).itl_s is None
    assert answer(DONE).itl_s is None


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ([event(content="a")], "before"),
        ([], "before"),
        ([event(role="assistant"), DONE], "no text"),
        ([b'data: {"error": {"message": "boom"}}', DONE], "boom"),
        ([b"data: {half", DONE], "not JSON"),
        ([b"data: [1]", DONE], "expected an object"),
    ],
)
def test_answer_that_is_not_whole_fails(lines: list[bytes], complaint: str) -> None:
    """Cut off, empty, an error under status 200, or no chat at all: none is a success."""
    with pytest.raises(AnswerFailed, match=complaint):
        answer(*lines).finish()


def test_settings_come_from_the_environment() -> None:
    """What is named is taken, the rest is default, and other variables are none of ours."""
    found = read_settings({"LOCUST_CHAT_TURNS": "3", "LOCUST_CHAT_THINK_S": "0.5", "X": "1"})
    assert found == Settings(turns=3, think_s=0.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [("TURNS", "three"), ("TURNS", "0"), ("THINK_S", "-1"), ("TURN", "3"), ("REQUESTS", "1.5")],
)
def test_wrong_setting_is_named(name: str, value: str) -> None:
    """A typing error does not run an hour of the wrong load."""
    with pytest.raises(ValueError, match=f"LOCUST_CHAT_{name}"):
        read_settings({f"LOCUST_CHAT_{name}": value})


def test_session_grows_and_shares_its_prefix() -> None:
    """A turn repeats all that was said; every fourth session has the same system prompt."""
    settings = Settings(prefixes=4, prefix_tokens=30, input_tokens=10)
    talk = Talk(settings, 1)
    first = talk.ask()["messages"]
    talk.hear("the answer")
    second = talk.ask()["messages"]
    assert [message["role"] for message in first] == ["system", "user"]
    assert second[: len(first)] == first
    assert second[2] == {"role": "assistant", "content": "the answer"}
    assert [len(message["content"].split()) for message in first] == [30, 10]
    others = [Talk(settings, number).ask()["messages"] for number in (2, 5)]
    assert others[0][0] != first[0]
    assert others[1][0] == first[0]
    assert others[1][1] != first[1]


def test_session_without_prefix_is_repeatable() -> None:
    """The same number says the same words in every run, and asks for a stream of fixed length."""
    settings = Settings(output_tokens=7)
    body = Talk(settings, 3).ask()
    assert body == Talk(settings, 3).ask()
    assert [message["role"] for message in body["messages"]] == ["user"]
    assert (body["max_tokens"], body["ignore_eos"], body["stream"]) == (7, True, True)


@pytest.mark.parametrize(
    "chunk", ['{"choices": 7}', '{"choices": ["x"]}', '{"choices": [{"delta": "x"}]}']
)
def test_what_is_no_chunk_fails_the_answer(chunk: str) -> None:
    """Any other error would leave the request out of Locust's failures."""
    with pytest.raises(AnswerFailed):
        answer(b"data: " + chunk.encode())
