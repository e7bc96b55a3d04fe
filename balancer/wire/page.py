"""What a rendered prompt is written on: as much of it as is wanted, and how much more there is."""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["RENDERED_BYTES", "UNREADABLE", "Page", "compact", "given"]

RENDERED_BYTES: Final = 524_288
"""How much of a prompt is rendered, 131,072 nominal tokens. What comes after is counted."""

_PIECES: Final = 8_192
"""Messages and parts that are rendered, each in about a microsecond."""

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for what is no JSON, no UTF-8, of another form, or nested too deep."""


class Page:
    """A prompt as far as it is rendered."""

    __slots__ = ("_pieces", "_room", "is_cut", "more_bytes")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._room = RENDERED_BYTES
        self.is_cut = False
        self.more_bytes = 0
        """Of other prompts in the same request."""

    def cuts(self) -> bool:
        """Whether it is full. What would have come next is then left out."""
        self.is_cut = self._room <= 0 or len(self._pieces) > _PIECES
        return self.is_cut

    def add(self, piece: bytes) -> None:
        """What comes next in the prompt."""
        self._pieces.append(piece)
        self._room -= len(piece)

    def add_json(self, raw: msgspec.Raw) -> None:
        """The same for JSON, without its white space. Templates keep the order of keys."""
        if raw:
            piece = compact(raw)
            if piece not in _EMPTY:
                self.add(piece)

    def text(self) -> bytes:
        """All of it; longer than `RENDERED_BYTES` if a single piece was."""
        return b"".join(self._pieces)


_EMPTY: Final = (b"null", b"[]")
"""The same as nothing."""


def compact(raw: msgspec.Raw) -> bytes:
    """Valid JSON without white space between its tokens, each of them to the byte."""
    return msgspec.json.format(bytes(raw), indent=-1)


def given(raw: msgspec.Raw) -> bool:
    """Whether a field is there and not null."""
    return len(raw) > 0 and not (len(raw) == 4 and bytes(raw) == b"null")
