"""How large a value is, so that no node fills the memory. Pure."""

from __future__ import annotations

from typing import Final

from server.workflow.values import Value

__all__ = ["TooLarge", "size_of"]

_MOST_DEPTH: Final = 100
"""Of objects and lists in one another; what reads them must not run out of stack."""

_OTHER: Final = 8
"""What a number, a name or a file counts for."""


class TooLarge(ValueError):
    """It is larger or deeper than allowed."""


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
            for item in value.values() if isinstance(value, dict) else value:
                if isinstance(item, str):
                    size += len(item)
                elif isinstance(item, dict | list):
                    below.append(item)
        if not below:
            return size
        level = below
    raise TooLarge(f"it gave out objects or lists nested more than {_MOST_DEPTH} deep")
