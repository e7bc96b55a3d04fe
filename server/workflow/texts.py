"""Texts that can be written: without halves of surrogate pairs, which no encoder takes. Pure.

JSON may hold them ("\\ud83d" alone), so they come out of models, tools, code and clients.
"""

from __future__ import annotations

from typing import Final

from server.workflow.values import Value

__all__ = ["cleaned", "is_whole", "whole", "writable"]

_SLICE: Final = 65_536
"""Characters that are looked at in one go: what stays in the cache is twice as fast."""


def is_whole(text: str) -> bool:
    """Whether it can be encoded. At once for ASCII, else at about a nanosecond for a character."""
    if text.isascii():
        return True
    try:
        for start in range(0, len(text), _SLICE):
            text[start : start + _SLICE].encode("utf-16-le")  # the fastest one that refuses halves
    except UnicodeEncodeError:
        return False
    return True


def whole(text: str) -> str:
    """The text itself, or with a question mark for each half of a pair."""
    return text if is_whole(text) else text.encode(errors="replace").decode()


def _texts_in(value: Value) -> list[str]:
    """All texts and names in it."""
    found: list[str] = []
    level = [value]
    while level:
        below: list[Value] = []
        for each in level:
            kind = type(each)
            if kind is str:
                found.append(each)
            elif kind is dict:
                found += map(str, each)
                below += each.values()
            elif kind is list:
                below += each
        level = below
    return found


def writable(value: Value) -> Value:
    """The value itself if all its texts are whole, else a copy in which they are."""
    return value if is_whole("".join(_texts_in(value))) else cleaned(value)


def cleaned(value: Value, dropped: str = "") -> Value:
    """With all its texts and names whole, and without the character `dropped`; a copy where it must
    be. For values that are not nested deeply."""
    if isinstance(value, str):
        text = value if value.isascii() else value.encode(errors="replace").decode()
        return text.replace(dropped, "") if dropped else text
    if isinstance(value, dict):
        return {cleaned(name, dropped): cleaned(each, dropped) for name, each in value.items()}
    if isinstance(value, list):
        return [cleaned(each, dropped) for each in value]
    return value
