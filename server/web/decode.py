"""Compressed bodies, unpacked piece by piece: none becomes a large one unseen. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

__all__ = ["ACCEPTED", "BadEncoding", "Decoder", "decoder_of"]

ACCEPTED: Final = "gzip, deflate"
"""What requests say they take, unless they say something else themselves."""

PIECE_BYTES: Final = 262_144
"""At most this much is unpacked at once: well under a millisecond of work."""

_MOST_LAYERS: Final = 2
_GZIP_MARK: Final = b"\x1f\x8b"


class BadEncoding(ValueError):
    """A body that is not what its Content-Encoding says."""


class Decoder:
    """One layer of gzip or deflate."""

    def __init__(self, encoding: str) -> None:
        self._deflate = encoding == "deflate"
        self._unpack = zlib.decompressobj(zlib.MAX_WBITS if self._deflate else zlib.MAX_WBITS | 16)
        self._fresh = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What `data` unpacks to, in bounded pieces. Raises `BadEncoding`."""
        while data:
            piece = self._next(data)
            if piece:
                yield piece
            data = self._unpack.unconsumed_tail
            if self._unpack.eof:
                data = self._next_member()

    def _next_member(self) -> bytes:
        """What follows the end: gzip may have several members, deflate has one."""
        rest = b"" if self._deflate else self._unpack.unused_data
        if rest.startswith(_GZIP_MARK):
            self._unpack = zlib.decompressobj(zlib.MAX_WBITS | 16)
            return rest
        return b""

    def _next(self, data: bytes) -> bytes:
        try:
            piece = self._unpack.decompress(data, PIECE_BYTES)
        except zlib.error as error:
            if not (self._deflate and self._fresh):
                raise BadEncoding(f"the body is not what its encoding says: {error}") from None
            # Some servers leave out the header that deflate has in HTTP.
            self._unpack = zlib.decompressobj(-zlib.MAX_WBITS)
            self._fresh = False
            return self._next(data)
        self._fresh = False
        return piece


class _Layers:
    """Several encodings over one another, the last of the header outermost."""

    def __init__(self, decoders: list[Decoder]) -> None:
        self._decoders = decoders

    def feed(self, data: bytes) -> Iterator[bytes]:
        return self._through(data, len(self._decoders) - 1)

    def _through(self, data: bytes, layer: int) -> Iterator[bytes]:
        if layer < 0:
            yield data
            return
        for piece in self._decoders[layer].feed(data):
            yield from self._through(piece, layer - 1)


def decoder_of(content_encoding: str) -> Decoder | _Layers | None:
    """What unpacks a body with this header; None if it is to be taken as it is."""
    names = [name.strip().lower() for name in content_encoding.split(",")]
    names = ["gzip" if name == "x-gzip" else name for name in names if name not in ("", "identity")]
    if not names or any(name not in ("gzip", "deflate") for name in names):
        return None
    if len(names) > _MOST_LAYERS:
        raise BadEncoding(f"the body is packed {len(names)} times over")
    decoders = [Decoder(name) for name in names]
    return decoders[0] if len(decoders) == 1 else _Layers(decoders)
