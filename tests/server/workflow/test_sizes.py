"""Values are weighed in one walk that stops at its bounds."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from server.workflow.sizes import MOST_DEPTH, TooLarge, size_of, weigh

MOST = 1000


def test_what_is_counted() -> None:
    """Characters of texts; eight for a number and for each item; and all texts and names."""
    value: dict[str, Any] = {"a": "four", "n": 1, "o": {"k": "xy", "l": [1, "z", {}]}, "e": []}
    chars, texts = weigh(value, MOST, MOST)
    assert chars == 4 + 8 + 8 * (2 + 3) + 2 + 1
    assert sorted(texts) == ["four", "k", "l", "xy", "z"]
    assert size_of(value, MOST) == chars


@pytest.mark.parametrize("items", [["a"] * 100, [1] * 100, ["a", 1] * 50, [[], {}] * 50])
def test_many_items_are_counted_one_by_one(items: list[Any]) -> None:
    """Whether they are alike or not."""
    assert weigh({"x": items}, 10_000, 100)[0] == 800 + items.count("a")
    with pytest.raises(TooLarge, match="more than 99 items"):
        weigh({"x": items}, 10_000, 99)


def test_items_of_all_levels_count() -> None:
    """In lists of lists and in objects."""
    value = {"x": [{"a": 1, "b": 2} for _ in range(10)]}
    weigh(value, MOST, 30)
    with pytest.raises(TooLarge, match="more than 29 items"):
        weigh(value, MOST, 29)


def test_it_looks_at_no_more_than_its_bounds() -> None:
    """A list that holds itself ten times over is never gone over as a whole."""
    wide: list[Any] = [1] * 10
    for _ in range(20):
        wide = [wide] * 10
    with pytest.raises(TooLarge, match="items"):
        weigh({"x": wide}, sys.maxsize, MOST)
    with pytest.raises(TooLarge, match="characters"):
        size_of({"x": wide}, MOST)


def test_depth_is_bounded() -> None:
    """Without a stack that grows with it."""
    deep: list[Any] = []
    for _ in range(MOST_DEPTH - 1):
        deep = [deep]
    weigh({"x": deep}, MOST, MOST)
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(TooLarge, match="deep"):
        weigh({"x": deep}, sys.maxsize, sys.maxsize)
