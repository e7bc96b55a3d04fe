"""How many requests go on at once: in all, and to one host."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

__all__ = ["Places"]


class Places:
    """A slow host fills its own places and leaves the others' free. Fair: first come, first in."""

    def __init__(self, in_all: int, per_host: int) -> None:
        self._all = trio.CapacityLimiter(in_all)
        self._per_host = per_host
        self._hosts: dict[str, trio.CapacityLimiter] = {}

    @asynccontextmanager
    async def place(self, host: str) -> AsyncIterator[None]:
        """Wait for a place; cancellable."""
        holder = object()
        own = self._hosts.setdefault(host, trio.CapacityLimiter(self._per_host))
        try:
            await own.acquire_on_behalf_of(holder)
            try:
                await self._all.acquire_on_behalf_of(holder)
                try:
                    yield
                finally:
                    self._all.release_on_behalf_of(holder)
            finally:
                own.release_on_behalf_of(holder)
        finally:
            self._forget(host, own)

    def _forget(self, host: str, own: trio.CapacityLimiter) -> None:
        """Hosts come from URLs: those that nobody waits for are not remembered."""
        now = own.statistics()
        if not now.borrowed_tokens and not now.tasks_waiting and self._hosts.get(host) is own:
            del self._hosts[host]
