"""Thoughts in tags, taken out of texts that come in pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.workflow.reasoning import ReasoningSplitter, split_reasoning, without_reasoning


def split(pieces: list[str]) -> tuple[str, str]:
    """What streams as text, and as thoughts."""
    splitter = ReasoningSplitter()
    found = [one for piece in pieces for one in splitter.feed(piece)] + list(splitter.finish())
    return (
        "".join(piece.text for piece in found if piece.kind == "text"),
        "".join(piece.text for piece in found if piece.kind == "reasoning"),
    )


@pytest.mark.parametrize(
    ("text", "clean", "thoughts"),
    [
        ("Hi", "Hi", ""),
        ("<think>Hm</think>Hi", "Hi", "Hm"),
        ("<think>\nHm\n</think>\n\nHi", "Hi", "\nHm\n"),
        ('<THINK mood="good">Hm</Think>Hi', "Hi", "Hm"),
        ("a <think>b</think> c <think>d</think>", "a  c ", "bd"),
        ("<think>never closed", "", "never closed"),
        ("a < b, <thinking>, </think>", "a < b, <thinking>, </think>", ""),
        ("<think >x</think>y", "y", "x"),
        ("<think" + " x" * 300 + ">y", "<think" + " x" * 300 + ">y", ""),
        ("<think>a<think>b</think>c", "c", "a<think>b"),
        ("ends with <th", "ends with <th", ""),
        ("<think>ends with </th", "", "ends with </th"),
        ("  \n Hi ", "Hi ", ""),
        ("", "", ""),
    ],
)
def test_texts(text: str, clean: str, thoughts: str) -> None:
    """Whole, and character by character."""
    assert split([text]) == (clean, thoughts)
    assert split(list(text)) == (clean, thoughts)


PIECE = st.sampled_from(
    ["<", "think", ">", "</", "<think>", "</think>", " ", "a", "\n", "<THINK x"]
)


@given(st.lists(PIECE, max_size=30), st.data())
def test_any_split_is_the_same(parts: list[str], data: st.DataObject) -> None:
    """Where the text is cut makes no difference."""
    text = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=10)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert split(pieces) == split([text])


def test_text_is_not_held_back() -> None:
    """Only what may still become a tag waits for what follows."""
    splitter = ReasoningSplitter()
    assert [piece.text for piece in splitter.feed("Hello <")] == ["Hello "]
    assert [piece.text for piece in splitter.feed("b")] == ["<b"]


def test_whole_texts() -> None:
    """Empty lines are joined, the ends stripped, thoughts put under one another."""
    text = "<think> a </think>\n\n\n\nHi\n  \n\nyou <think>b\n</think>\n"
    assert split_reasoning(text) == ("Hi\n\nyou", "a\nb")
    assert without_reasoning("<think>{}</think>{1}") == "{1}"
    assert without_reasoning(" as it is ") == " as it is "


def test_hostile_text_takes_no_time() -> None:
    """A megabyte of tags that never close, or of blank lines, is split at once."""
    for text in (
        "<think></think>" * 70_000,
        "<think>" * 150_000,
        "<think " * 150_000,
        "\n " * 500_000,
        "</think><" * 100_000,
    ):
        split_reasoning(text)
