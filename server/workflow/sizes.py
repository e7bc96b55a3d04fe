"""How large a value is, so that no node fills the memory. Pure."""

from __future__ import annotations

from typing import Final

from server.workflow.values import Value

__all__ = ["MOST_TEXT", "Room", "TooLarge", "size_of"]

_MOST_DEPTH: Final = 100
"""Of objects and lists in one another; what reads them must not run out of stack."""

_SCALARS: Final = frozenset({int, float, bool, type(None)})

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


def size_of(values: dict[str, Value], most: int) -> int:
    """In characters of text; all that is not text counts for eight. Stops at `most`: raises
    `TooLarge`, having looked at no more than that."""
    size = 0
    nested: list[Value] = []
    for value in values.values():
        if isinstance(value, str):
            size += len(value)
        elif isinstance(value, dict | list):
            nested.append(value)
        else:
            size += _OTHER
    if nested:
        size += _inside(nested, most - size)
    if size > most:
        raise TooLarge(f"it gave out more than {most} characters")
    return size


def _inside(level: list[Value], most: int) -> int:
    """Level by level, so that depth costs no stack."""
    size = 0
    for _ in range(_MOST_DEPTH):
        below: list[Value] = []
        for value in level:
            size += _OTHER * len(value)
            if size > most:
                return size
            items = value.values() if isinstance(value, dict) else value
            if _SCALARS.issuperset(map(type, items)):
                continue
            for item in items:
                if isinstance(item, str):
                    size += len(item)
                elif isinstance(item, dict | list):
                    below.append(item)
        if not below:
            return size
        level = below
    raise TooLarge(f"it gave out objects or lists nested more than {_MOST_DEPTH} deep")
