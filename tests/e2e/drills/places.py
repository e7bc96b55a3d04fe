"""Ports that stay a drill's own, so that a replica can come back to where it was."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["kept_port", "listener_on"]


@contextmanager
def kept_port() -> Iterator[int]:
    """A free port of 127.0.0.1 that nobody else is given: bound, but nobody listens there.

    Whoever connects is refused, until somebody listens; with SO_REUSEADDR that can be done again
    and again, by this process or another.
    """
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(("127.0.0.1", 0))
        yield keeper.getsockname()[1]


def listener_on(port: int) -> socket.socket:
    """A socket that listens there."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(256)
    listener.setblocking(False)
    return listener
