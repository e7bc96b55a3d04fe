"""Embeddings without a model: unit vectors drawn from a hash of the text."""

from __future__ import annotations

import base64
import math
import struct
from array import array
from hashlib import shake_128


def vector(text: str | list[int], dimensions: int) -> list[float]:
    """A unit vector for `text` (or for token ids); its numbers are exact 32-bit floats.

    Every replica gives the same one: a search over several replicas stays consistent. Texts that
    mean the same are not near each other, which is all a simulation can honestly offer.
    """
    source = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else repr(text).encode()
    digest = shake_128(source).digest(4 * dimensions)
    # Centred between the integers: no coordinate is 0, so the length never is either.
    raw = [number - 2**31 + 0.5 for number in struct.unpack(f"<{dimensions}I", digest)]
    length = math.hypot(*raw)
    return array("f", [number / length for number in raw]).tolist()


def as_base64(numbers: list[float]) -> str:
    """The form that `encoding_format = "base64"` asks for: little-endian 32-bit floats."""
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode("ascii")
