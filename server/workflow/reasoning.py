"""Thoughts that a model writes into its text, between `<think>` and `</think>`. Pure.

`tagged` leaves them there; `separated` takes them out, while the text streams too: a tag may come
in any pieces, and what could still become one is held back until it is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

__all__ = ["Piece", "ReasoningSplitter", "split_reasoning", "without_reasoning"]

_ATTRIBUTES_MOST: Final = 512
_OPEN: Final = re.compile(r"<think(?:\s[^<>]{0,512})?>", re.IGNORECASE)
_CLOSE: Final = re.compile(r"</think>", re.IGNORECASE)
_MAY_OPEN: Final = re.compile(
    r"<(?:t(?:h(?:i(?:n(?:k(?:\s[^<>]{0,512})?)?)?)?)?)?\Z", re.IGNORECASE
)
_MAY_CLOSE: Final = re.compile(r"<(?:/(?:t(?:h(?:i(?:n(?:k)?)?)?)?)?)?\Z", re.IGNORECASE)
_HELD_MOST: Final = len("<think ") + _ATTRIBUTES_MOST
_BLANK_LINES: Final = re.compile(r"\n\s*\n")


class Piece(NamedTuple):
    kind: Literal["text", "reasoning"]
    text: str


class ReasoningSplitter:
    """Splits a text that comes in pieces. White space before the first text is left out."""

    def __init__(self) -> None:
        self._thinks = False
        self._held = ""
        self._begun = False

    def feed(self, piece: str, *, last: bool = False) -> Iterator[Piece]:
        """What is known by now: all, if it is the last piece. Iterate it to its end."""
        text = self._held + piece if self._held else piece
        self._held = ""
        at = 0
        while (tag := (_CLOSE if self._thinks else _OPEN).search(text, at)) is not None:
            yield from self._give(text[at : tag.start()])
            self._thinks = not self._thinks
            at = tag.end()
        end = len(text) if last else self._undecided_from(text, at)
        self._held = text[end:]
        yield from self._give(text[at:end])

    def finish(self) -> Iterator[Piece]:
        """What was held back: the text has ended, so it is no tag."""
        held, self._held = self._held, ""
        yield from self._give(held)

    def _undecided_from(self, text: str, begin: int) -> int:
        at = text.rfind("<", max(begin, len(text) - _HELD_MOST))
        if at < 0:
            return len(text)
        may = _MAY_CLOSE if self._thinks else _MAY_OPEN
        return at if may.match(text, at) else len(text)

    def _give(self, text: str) -> Iterator[Piece]:
        if self._thinks:
            if text:
                yield Piece("reasoning", text)
            return
        if not self._begun:
            text = text.lstrip()
            self._begun = bool(text)
        if text:
            yield Piece("text", text)


def split_reasoning(text: str) -> tuple[str, str]:
    """A whole text without its thoughts, and the thoughts, one under the other."""
    splitter = ReasoningSplitter()
    clean: list[str] = []
    thoughts: list[str] = []
    for kind, piece in splitter.feed(text, last=True):
        (clean if kind == "text" else thoughts).append(piece)
    joined = _BLANK_LINES.sub("\n\n", "".join(clean)).strip()
    return joined, "\n".join(filter(None, map(str.strip, thoughts)))


def without_reasoning(text: str) -> str:
    """What a model answered, for reading JSON out of it."""
    return split_reasoning(text)[0] if "<think" in text.lower() else text
