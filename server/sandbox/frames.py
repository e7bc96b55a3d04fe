"""Messages between us and a worker: a head in JSON and a body of bytes, each with its length.

Both ends use this module; the worker's end blocks, ours does not. What a worker sends is hostile:
lengths are checked before anything is read.
"""

from __future__ import annotations

import json
import os
import struct
from typing import Any, Final

__all__ = ["HEAD_BYTES", "HELLO", "LENGTHS", "frame", "lengths", "receive", "send"]

HELLO: Final = struct.Struct("<I")
"""A worker's process id, which it sends once it is locked up."""
LENGTHS: Final = struct.Struct("<II")
HEAD_BYTES: Final = 64 * 1024
"""Of a head from a worker; those of ours hold the source, and are bounded before they are sent."""
_PIECE: Final = 1 << 20


def frame(head: bytes, body: bytes = b"") -> bytes:
    """What goes before the body, and the body."""
    return LENGTHS.pack(len(head), len(body)) + head + body


def lengths(data: bytes, most_body: int, most_head: int = HEAD_BYTES) -> tuple[int, int] | None:
    """How long head and body are; None if one of them is longer than it may be."""
    head, body = LENGTHS.unpack(data)
    return (head, body) if head <= most_head and body <= most_body else None


def send(fd: int, head: dict[str, Any], body: bytes = b"") -> None:
    """Write a whole message, blocking. Raises `OSError`."""
    data = memoryview(frame(json.dumps(head).encode(), body))
    while data:
        data = data[os.write(fd, data[:_PIECE]) :]


def receive(fd: int) -> tuple[dict[str, Any], bytes]:
    """Read a whole message, blocking. Raises `EOFError`. For the worker: we are trusted."""
    head, body = LENGTHS.unpack(_exactly(fd, LENGTHS.size))
    return json.loads(_exactly(fd, head)), _exactly(fd, body)


def _exactly(fd: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.read(fd, min(size, _PIECE))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
