"""A text to its terms, a document to its segments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.knowledge.splitting import split
from server.knowledge.words import terms
from server.workflow.tokens import estimate_tokens

TERMS = [
    ("The QUICK fox_1", ["the", "quick", "fox_1"]),
    ("调度和检索", ["调度", "度和", "和检", "检索"]),
    ("用 vLLM 调度", ["用", "vllm", "调度"]),
    ("\uff21\uff22\uff23 caf\u00e9", ["abc", "caf\u00e9"]),
    ("日本語のテスト", ["日本", "本語", "語の", "のテ", "テス", "スト"]),
    ("", []),
]


@pytest.mark.parametrize(("text", "found"), TERMS)
def test_terms(text: str, found: list[str]) -> None:
    """Words in lower case, pairs of CJK characters, full-width letters as plain ones."""
    assert terms(text) == found


@given(st.text(max_size=2000), st.integers(1, 60))
def test_segments_hold_all_words_and_fit(text: str, most: int) -> None:
    """Nothing is lost but blanks, and no segment is longer than asked (but for its rounding)."""
    segments = split(text, most_tokens=most)
    assert all(segment.strip() for segment in segments)
    assert all(estimate_tokens(segment) <= most + 3 for segment in segments)
    assert "".join("".join(segments).split()) == "".join(text.replace("\x00", "").split())


def test_paragraphs_are_kept_together() -> None:
    """Short paragraphs share a segment; long ones are cut between sentences."""
    assert split("a\n\nb\n\n\n\nc") == ["a\n\nb\n\nc"]
    long = ". ".join(["one two three four five six"] * 20)
    segments = split("head\n\n" + long, most_tokens=40)
    assert segments[0] == "head"
    assert all(segment.startswith("one") for segment in segments[1:])
