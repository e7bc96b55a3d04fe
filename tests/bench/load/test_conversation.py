"""Prompts as messages: roles, joins, real answers, recorded texts."""

from __future__ import annotations

from bench.load.conversation import Conversation, Message
from bench.workload.model import Segment, Session, Turn


def shown(key: int, tokens: int) -> str:
    return f"<{key}:{tokens}>"


def made(*prompts: tuple[Segment, ...], texts: dict[int, str] | None = None) -> Conversation:
    turns = [
        Turn(prompt=prompt, output_tokens=9, answer=900 + index)
        for index, prompt in enumerate(prompts)
    ]
    return Conversation(Session(id=1, turns=turns, texts=texts or {}), shown)


def test_segments_of_one_role_are_one_message() -> None:
    """Neighbours of one role are joined; another role begins a new message."""
    prompt = (
        Segment(1, 10, "system"),
        Segment(2, 20, "user"),
        Segment(3, 30, "user"),
        Segment(4, 40, "system"),
    )
    assert made(prompt).messages(0) == [
        Message("system", "<1:10>"),
        Message("user", "<2:20> <3:30>"),
        Message("system", "<4:40>"),
    ]


def test_history_holds_the_answer_that_came() -> None:
    """What was heard stands where the turn's answer is repeated, whatever its planned length."""
    first = (Segment(1, 10),)
    second = (*first, Segment(900, 9, "assistant"), Segment(2, 5))
    talk = made(first, second)
    talk.heard(0, "what was really said")
    assert talk.messages(1) == [
        Message("user", "<1:10>"),
        Message("assistant", "what was really said"),
        Message("user", "<2:5>"),
    ]
    assert talk.text(1) == "<1:10> what was really said <2:5>"


def test_answer_of_another_session_is_rendered() -> None:
    """An answer that nobody heard here is text like any other."""
    talk = made((Segment(1, 10), Segment(555, 3, "assistant")))
    assert talk.messages(0)[1] == Message("assistant", "<555:3>")


def test_recorded_texts() -> None:
    """A segment with a text of its own is that text, be it empty."""
    talk = made((Segment(1, 10), Segment(2, 1), Segment(3, 4)), texts={1: "Hello.", 2: ""})
    assert talk.messages(0) == [Message("user", "Hello.  <3:4>")]
