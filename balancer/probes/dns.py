"""The addresses behind names that stand for many replicas, looked up again and again."""

from __future__ import annotations

import logging
import random
import socket
from collections.abc import Awaitable, Callable, Collection

import trio

from balancer.probes.steady import keep_going

__all__ = ["NameWatch", "look_up"]

log = logging.getLogger("triolet.dns")

Lookup = Callable[[str], Awaitable[tuple[str, ...]]]


async def look_up(host: str) -> tuple[str, ...]:
    """Every address of a name, in order. Raises OSError if there is none.

    Of one family, IPv4 if it has any: a server with both would be two replicas.
    """
    found = await trio.socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    families = {family for family, *_ in found}
    wanted = socket.AF_INET if socket.AF_INET in families else socket.AF_INET6
    return tuple(sorted({str(address[0]) for family, *_, address in found if family == wanted}))


class NameWatch:
    """Tells `changed(host, addresses)` whenever the addresses of a watched name are others.

    A name that cannot be looked up keeps the addresses it had: a failing DNS server must not take
    every replica away. `run` in a nursery; `watch` when the names change.
    """

    def __init__(
        self,
        changed: Callable[[str, tuple[str, ...]], None],
        *,
        interval_s: float = 10.0,
        limit_s: float = 5.0,
        look_up: Lookup = look_up,
    ) -> None:
        self._changed = changed
        self._interval_s = interval_s
        self._limit_s = limit_s
        self._look_up = look_up
        self._known: dict[str, tuple[str, ...]] = {}
        self._failing: set[str] = set()
        self._hosts: frozenset[str] = frozenset()
        self._new_hosts = trio.Event()

    def watch(self, hosts: Collection[str]) -> None:
        """These from now on, and no others; new ones are looked up at once."""
        known, self._hosts = self._hosts, frozenset(hosts)
        for gone in self._known.keys() - self._hosts:
            del self._known[gone]
        self._failing &= self._hosts
        if self._hosts - known:
            self._new_hosts.set()

    async def look_at_all(self) -> None:
        """Look up every name once, all at the same time, for at most `limit_s`."""
        async with trio.open_nursery() as nursery:
            for host in self._hosts:
                nursery.start_soon(self._look_at, host)

    async def run(self) -> None:
        """Look them up every now and then, until cancelled."""
        await keep_going("looking up names", self._run)

    async def _run(self) -> None:
        while True:
            self._new_hosts = trio.Event()
            await self.look_at_all()
            # Jitter: many processes must not ask in step.
            with trio.move_on_after(self._interval_s * random.uniform(0.8, 1.2)):
                await self._new_hosts.wait()

    async def _look_at(self, host: str) -> None:
        try:
            with trio.fail_after(self._limit_s):
                addresses = await self._look_up(host)
        except (OSError, UnicodeError, trio.TooSlowError) as exc:
            if host not in self._failing:
                self._failing.add(host)
                log.warning("cannot look up %s, its replicas stay as they are: %s", host, exc)
            return
        self._failing.discard(host)
        if host in self._hosts and addresses != self._known.get(host):
            self._known[host] = addresses
            log.info("%s has %d addresses", host, len(addresses))
            self._changed(host, addresses)
