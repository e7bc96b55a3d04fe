"""Segments as words, and counting tokens."""

from __future__ import annotations

import sys
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.replica import tokens as replica_tokens
from bench.workload import text
from bench.workload.model import Segment
from bench.workload.text import (
    WORDS,
    RenderCache,
    count_tokens,
    load_tokenizer,
    render,
    segment_text,
)

KEYS = st.integers(0, 2**63 - 1)


def test_there_are_256_different_short_words() -> None:
    """A byte picks a word, and each is one piece for the demo replica."""
    assert len(set(WORDS)) == len(WORDS) == 256
    assert all(word.isascii() and word.islower() and len(word) <= 8 for word in WORDS)


@given(key=KEYS, tokens=st.integers(1, 300))
def test_a_rendered_segment_has_its_tokens_by_every_count(key: int, tokens: int) -> None:
    """Words, the client's count and the replica's count agree."""
    rendered = render(key, tokens)
    assert len(rendered.split(" ")) == tokens
    assert count_tokens(rendered) == tokens
    assert len(replica_tokens.split(rendered)) == tokens


@given(one=KEYS, other=KEYS)
def test_two_keys_differ_within_eight_words(one: int, other: int) -> None:
    """No 16-token block is shared by accident."""
    assert (render(one, 8) == render(other, 8)) == (one == other)


def test_neighbouring_keys_seldom_share_the_first_word() -> None:
    """Keys counted up, as those of trace blocks are, begin differently from the first word on."""
    firsts = [render(key, 1) for key in range(1000)]
    alike = sum(one == other for one, other in pairwise(firsts))
    assert alike <= 20


@given(key=KEYS, shorter=st.integers(1, 50), more=st.integers(0, 50))
def test_a_shorter_rendering_is_the_beginning_of_a_longer_one(
    key: int, shorter: int, more: int
) -> None:
    """The words depend on the key alone."""
    longer = render(key, shorter + more)
    assert longer.split()[:shorter] == render(key, shorter).split()


def test_the_same_key_gives_the_same_words_in_every_version() -> None:
    """Recorded results stay comparable: the words of a key are fixed."""
    assert render(1, 4) == "process easy middle send"


def test_the_cache_holds_no_more_than_its_characters_and_drops_the_oldest() -> None:
    """Memory is bounded whatever is rendered."""
    cache = RenderCache(characters=200)
    first = cache.render(1, 15)
    kept = cache.render(2, 15)
    assert cache.render(1, 15) is first
    cache.render(3, 15)
    assert cache.held_characters <= 200
    assert cache.render(1, 15) is first
    assert cache.render(2, 15) is not kept


def test_a_text_longer_than_the_cache_is_rendered_but_not_kept() -> None:
    """One huge segment does not throw everything else out."""
    cache = RenderCache(characters=100)
    small = cache.render(1, 5)
    assert len(cache.render(2, 100)) > 100
    assert cache.render(1, 5) is small


@pytest.mark.parametrize(
    ("content", "tokens"),
    [("", 0), ("Hello, world!", 4), ("internationalization", 3), ("a\nb", 2), ("日本語", 1)],
)
def test_counting_takes_words_marks_and_long_words_in_pieces(content: str, tokens: int) -> None:
    """The estimate for text that is not ours."""
    assert count_tokens(content) == tokens
    assert load_tokenizer("builtin").count(content) == tokens


def test_a_segment_has_its_recorded_text_or_words() -> None:
    """Rendering is only for what has no text."""
    assert segment_text(Segment(7, 3), {7: "as recorded"}) == "as recorded"
    assert segment_text(Segment(8, 3), {7: "as recorded"}) == render(8, 3)


def test_a_tokenizer_file_without_the_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The dependency is optional and its absence is named."""
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ValueError, match=r"x\.json: .*pip install tokenizers"):
        load_tokenizer("x.json")


def test_a_tokenizer_file_counts_without_special_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the file's tokenizer says is what counts."""
    monkeypatch.setitem(sys.modules, "tokenizers", _fake_tokenizers())
    assert load_tokenizer("good.json").count("four") == 4
    with pytest.raises(ValueError, match=r"missing\.json: not a readable"):
        load_tokenizer("missing.json")


def _fake_tokenizers() -> ModuleType:
    class Encoding:
        def __init__(self, content: str) -> None:
            self.ids = list(content)

    class Tokenizer:
        @classmethod
        def from_file(cls, path: str) -> Tokenizer:
            if path == "missing.json":
                raise Exception("No such file")  # noqa: TRY002  as the real one does
            return cls()

        def encode(self, content: str, **options: Any) -> Encoding:
            assert options == {"add_special_tokens": False}
            return Encoding(content)

    module = ModuleType("tokenizers")
    module.__dict__["Tokenizer"] = Tokenizer
    return module


def test_the_rule_is_the_replicas_own() -> None:
    """Both ends must count alike, and each has its own copy of the expression."""
    assert text._PIECE.pattern == replica_tokens._PIECE.pattern
