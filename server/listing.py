"""Files that list replicas, read again whenever they change."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection

import trio

from balancer.probes.steady import keep_going
from server.config import ConfigError, ReplicaConfig

__all__ = ["ListingWatch", "Read"]

log = logging.getLogger("triolet.replicas")

Read = Callable[[str], tuple[ReplicaConfig, ...]]
"""Reads the file at a path."""

_Stamp = tuple[int, ...]


class ListingWatch:
    """Tells `changed(path, replicas)` whenever a watched file holds others.

    A file that is missing or wrong changes nothing: its replicas stay as they were, and the log
    says why, once. Looked at every `interval_s`, in a thread.
    """

    def __init__(
        self,
        changed: Callable[[str, tuple[ReplicaConfig, ...]], None],
        read: Read,
        *,
        interval_s: float = 1.0,
    ) -> None:
        """`read` raises `ConfigError` for a file that is wrong."""
        self._changed = changed
        self._read = read
        self._interval_s = interval_s
        self._seen: dict[str, _Stamp | None] = {}
        """By path; None before the first look."""
        self._limiter = trio.CapacityLimiter(1)

    def watch(self, paths: Collection[str]) -> None:
        """These from now on, and no others."""
        self._seen = {path: self._seen.get(path) for path in paths}

    async def look(self) -> None:
        """Read those that changed since the last look."""
        for path in tuple(self._seen):
            # A file may hang, on a dead network: that must not keep the process from ending.
            stamp = await trio.to_thread.run_sync(
                _stamp, path, limiter=self._limiter, abandon_on_cancel=True
            )
            if path in self._seen and stamp != self._seen[path]:
                await self._take(path)
                if path in self._seen:
                    self._seen[path] = stamp

    async def run(self) -> None:
        """Look until cancelled."""
        await keep_going("watching files that list replicas", self._run)

    async def _run(self) -> None:
        while True:
            await self.look()
            await trio.sleep(self._interval_s)

    async def _take(self, path: str) -> None:
        try:
            replicas = await trio.to_thread.run_sync(
                self._read, path, limiter=self._limiter, abandon_on_cancel=True
            )
        except ConfigError as exc:
            log.error("the replicas of %s stay as they are:\n%s", path, exc)  # noqa: TRY400
            return
        if path in self._seen:
            log.info("%s lists %d replicas", path, len(replicas))
            self._changed(path, replicas)


def _stamp(path: str) -> _Stamp:
    """What is different once the file was written or replaced; empty if it cannot be seen."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_size, status.st_ino
