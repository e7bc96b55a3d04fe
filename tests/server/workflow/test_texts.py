"""Halves of surrogate pairs are found and replaced; all else stays as it is."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.workflow.texts import cleaned, is_whole, whole, writable

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=8)
VALUES = st.recursive(
    st.none() | st.integers() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("text", "found"),
    [("", ""), ("plain", "plain"), ("h\u00e9\U0001f600", "h\u00e9\U0001f600"),
     ("a\ud83db", "a?b"), ("\ude00", "?"), ("x" * 70_000 + "\ud83d", "x" * 70_000 + "?")],
)  # fmt: skip
def test_texts(text: str, found: str) -> None:
    """Wherever the half stands."""
    assert whole(text) == found
    assert is_whole(text) == (text == found)


@given(VALUES)
def test_values_can_be_written(value: object) -> None:
    """All of it; what could be written already is not copied."""
    found = writable(value)
    msgspec.json.encode(found)
    try:
        msgspec.json.encode(value)
    except UnicodeEncodeError:
        assert found == cleaned(value)
    else:
        assert found is value


def test_a_character_can_be_dropped() -> None:
    """From names too."""
    assert cleaned({"a\x00": ["b\x00", 1]}, "\x00") == {"a": ["b", 1]}
