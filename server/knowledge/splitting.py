"""A document to segments that are short enough for a prompt. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from server.workflow.tokens import estimate_tokens

__all__ = ["split"]

DEFAULT_TOKENS: Final = 500
"""As Dify's automatic mode had it for long; newer versions take 1,024."""

_SEPARATORS: Final = ("\n\n", "\n", "。", ". ", "！", "？", "; ", "；", " ")  # noqa: RUF001
_BLANKS: Final = re.compile(r"[ \t\u3000]{2,}")
_LINES: Final = re.compile(r"\n{3,}")


def split(text: str, *, separator: str = "\n\n", most_tokens: int = DEFAULT_TOKENS) -> list[str]:
    """Cut at `separator` first, then at ever smaller ends of sense, and put together again what
    fits into `most_tokens` (estimated). None is empty."""
    plain = _LINES.sub("\n\n", _BLANKS.sub(" ", text.replace("\r\n", "\n").replace("\x00", "")))
    separators = (separator, *(one for one in _SEPARATORS if one != separator))
    pieces = _pieces(plain, separators, max(most_tokens, 1))
    return [piece.strip() for piece in pieces if piece.strip()]


def _pieces(text: str, separators: tuple[str, ...], most: int) -> Iterator[str]:
    if estimate_tokens(text) <= most:
        yield text
    elif not separators:
        yield from _chopped(text, most)
    else:
        yield from _joined(text, separators, most)


def _joined(text: str, separators: tuple[str, ...], most: int) -> Iterator[str]:
    """Parts between separators, as many together as fit. Full stops stay with their sentence."""
    separator, *others = separators
    mark = separator.strip() if separator in _SEPARATORS else ""
    blank = separator.removeprefix(mark) if mark else separator
    held, tokens = "", 0
    *parts, last = text.split(separator)
    for part in [*(one + mark for one in parts), last]:
        size = estimate_tokens(part) + 1
        if held and tokens + size > most:
            yield held
            held, tokens = "", 0
        if size > most:
            yield from _pieces(part, tuple(others), most)
        else:
            held = f"{held}{blank}{part}" if held else part
            tokens += size
    if held:
        yield held


def _chopped(text: str, most: int) -> Iterator[str]:
    """No end of sense is near: cut anywhere. A token is at least a character."""
    for start in range(0, len(text), most):
        yield text[start : start + most]
