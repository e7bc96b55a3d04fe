"""How large a value is, so that no node fills the memory. Pure."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from typing import Any, Final

from server.workflow.values import Value

__all__ = ["MOST_DEPTH", "MOST_TEXT", "Room", "TooLarge", "size_of", "weigh"]

MOST_DEPTH: Final = 100
"""Of objects and lists in one another; what reads them must not run out of stack."""

_SCALARS: Final = frozenset({int, float, bool, type(None)})
_TEXT: Final = frozenset({str})

_MANY: Final = 64
"""Of so many it is worth a glance whether they are all numbers, or all texts."""

_OTHER: Final = 8
"""What a number, a name or a file counts for."""


MOST_TEXT: Final = 8 * 1024 * 1024
"""Characters of a text with its variables filled in, or of all texts of one prompt or request. A
short text that names a long variable a thousand times would fill the memory."""


class TooLarge(ValueError):
    """It is larger or deeper than allowed."""


class Room:
    """What is left for the texts that make up one thing."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = MOST_TEXT

    def take(self, text: str, times: int = 1) -> str:
        """The text, if there is room for it so many times. Raises `TooLarge`."""
        self._left -= len(text) * times
        if self._left < 0:
            raise TooLarge(f"with its variables filled in it has more than {MOST_TEXT} characters")
        return text


def size_of(values: Mapping[str, Value], most: int, most_items: int = sys.maxsize) -> int:
    """In characters of text; all that is not text counts for eight. Stops at `most`: raises
    `TooLarge`."""
    return weigh(values, most, most_items)[0]


def weigh(values: Mapping[str, Value], most_chars: int, most_items: int) -> tuple[int, list[str]]:
    """The same, and all texts in it, names in objects too; in one walk, which stops at either
    bound: raises `TooLarge`, having looked at no more than that."""
    chars = 0
    texts: list[str] = []
    nested: list[Value] = []
    for value in values.values():
        if isinstance(value, str):
            chars += len(value)
            texts.append(value)
        elif isinstance(value, dict | list):
            nested.append(value)
        else:
            chars += _OTHER
    if nested:
        chars += _inside(nested, texts, most_chars - chars, most_items)
    if chars > most_chars:
        raise TooLarge(f"it gave out more than {most_chars} characters")
    return chars, texts


def _inside(level: list[Value], texts: list[str], most_chars: int, most_items: int) -> int:
    """Level by level, so that depth costs no stack; how many characters there are."""
    chars = items = 0
    names: set[Any] = set()
    for _ in range(MOST_DEPTH):
        below: list[Value] = []
        for value in level:
            if not value:
                continue
            items += len(value)
            if items > most_items:
                raise TooLarge(f"it gave out more than {most_items} items in lists and objects")
            if isinstance(value, dict):
                names.update(value)
                chars += _among(value.values(), texts, below)
            else:
                chars += _among(value, texts, below)
            if chars + _OTHER * items > most_chars:
                return chars + _OTHER * items
        if not below:
            texts += map(str, names)
            return chars + _OTHER * items
        level = below
    raise TooLarge(f"it gave out objects or lists nested more than {MOST_DEPTH} deep")


def _among(items: Collection[Value], texts: list[str], below: list[Value]) -> int:
    """The characters of the texts among them; what is to be looked into comes `below`."""
    if len(items) > _MANY:
        kinds = set(map(type, items))
        if _SCALARS.issuperset(kinds):
            return 0
        if kinds == _TEXT:
            texts += items
            return sum(map(len, items))
    chars = 0
    for item in items:
        kind = type(item)
        if kind is str:
            chars += len(item)
            texts.append(item)
        elif kind is dict or kind is list:
            below.append(item)
    return chars
