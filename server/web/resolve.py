"""Names to addresses, in bounded time and with bounded threads."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import trio

__all__ = ["Resolve", "system_resolver"]

Resolve: TypeAlias = Callable[[str, int], Awaitable[list[str]]]
"""A host and a port to its addresses, best first. Raises OSError."""

MOST_ADDRESSES: Final = 16


def system_resolver(threads: int = 16) -> Resolve:
    """The system's resolver, in threads of its own: names that hang leave the others' alone."""
    limiter = trio.CapacityLimiter(threads)

    async def resolve(host: str, port: int) -> list[str]:
        found = await trio.to_thread.run_sync(
            lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM),
            limiter=limiter,
            abandon_on_cancel=True,
        )
        addresses = [str(entry[4][0]) for entry in found]
        return list(dict.fromkeys(addresses))[:MOST_ADDRESSES]

    return resolve
