"""Workers of one kind: forked ahead of need, used once, killed at their deadline."""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec
import trio

from server.sandbox.children import Child, ChildLost, Profile, Zygote

__all__ = ["Overtime", "WorkFailed", "WorkerPool"]

_TRIES = 3
_READY_S = 30.0
_TYPE = 100


class WorkFailed(Exception):
    """What the worker said, or that it ended without saying anything. `type` is the worker's
    name for it, if it has one."""

    def __init__(self, message: str, type: str = "") -> None:
        super().__init__(message)
        self.type = type


class Overtime(WorkFailed):
    """It took too long, and was killed."""


class WorkerPool:
    """`await pool.work({"job": ...}, body)`. Nothing is started before the first call.

    `workers` calls run at the same time, others wait in line. `idle` workers are kept forked.
    """

    def __init__(
        self, profile: Profile, *, workers: int, idle: int, strict: bool, time_s: float
    ) -> None:
        self.profile = profile
        self._time_s = time_s
        self._strict = strict
        self._slots = trio.CapacityLimiter(workers)
        self._most_idle = idle
        self._idle: deque[Child] = deque()
        self._zygote: Zygote | None = None
        self._starting = trio.Lock()
        self._busy: set[Child] = set()
        self._closed = False

    @property
    def locks(self) -> tuple[str, ...] | None:
        """The locks that the kernel has; None before the first call."""
        return self._zygote.facts.locks if self._zygote else None

    @property
    def busy(self) -> int:
        """Calls in flight."""
        return len(self._busy)

    @property
    def pids(self) -> list[int]:
        """Of the processes that are known to live: the zygote and ready workers."""
        children = [child.pid for child in (*self._idle, *self._busy) if child.pid is not None]
        return children if self._zygote is None else [self._zygote.pid, *children]

    async def work(self, head: dict[str, Any], body: bytes, most_bytes: int) -> bytes:
        """The body of the answer. Raises `WorkFailed`, `Overtime`."""
        packed = msgspec.json.encode({**head, "output_bytes": most_bytes})
        async with self._slots:
            child = await self._take()
            self._busy.add(child)
            try:
                return await self._use(child, packed, body, most_bytes)
            finally:
                self._busy.discard(child)
                child.end()

    async def _use(self, child: Child, head: bytes, body: bytes, most_bytes: int) -> bytes:
        with trio.move_on_after(self._time_s):
            try:
                reply, result = await child.work(head, body, most_bytes)
            except ChildLost as error:
                raise WorkFailed(f"the process that ran it was lost: {error}") from error
            if not reply.ok:
                raise WorkFailed(reply.error, reply.type[:_TYPE])
            return result
        raise Overtime(f"it ran for more than {self._time_s:g} s and was stopped")

    async def _take(self) -> Child:
        """A worker that is ready. Asks for the next one, so that it is forked meanwhile."""
        for _ in range(_TRIES):
            zygote = await self._living_zygote()
            child = self._idle.popleft() if self._idle else None
            try:
                child = child or zygote.fork()
                self._refill(zygote)
                await _ready(child)
            except ChildLost:
                if child is not None:
                    child.end()
                continue
            except trio.Cancelled:
                if child is not None:
                    self._idle.appendleft(child)
                raise
            return child
        raise WorkFailed("no process could be started and locked down for it")

    def _refill(self, zygote: Zygote) -> None:
        while len(self._idle) < self._most_idle:
            self._idle.append(zygote.fork())

    async def _living_zygote(self) -> Zygote:
        async with self._starting:
            if self._closed:
                raise WorkFailed("the sandbox is closed")
            if self._zygote is None or not self._zygote.alive:
                await self._forget()
                try:
                    started = await Zygote.start(self.profile)
                except ChildLost as error:
                    raise WorkFailed(str(error)) from error
                self._zygote = started
            if self._strict and len(self._zygote.facts.locks) < 2:
                raise WorkFailed(
                    "this kernel lacks seccomp or Landlock, and [code] strict = true refuses to"
                    " run anything without them"
                )
            return self._zygote

    async def _forget(self) -> None:
        while self._idle:
            self._idle.popleft().end()
        zygote, self._zygote = self._zygote, None
        if zygote is not None:
            await zygote.end()

    async def close(self) -> None:
        """Kill everything. Calls in flight are over."""
        self._closed = True
        for child in list(self._busy):
            child.end()
        await self._forget()


async def _ready(child: Child) -> None:
    """Wait for it, but not for ever. Raises `ChildLost`."""
    with trio.move_on_after(_READY_S):
        return await child.ready()
    raise ChildLost(f"it was not ready after {_READY_S:g} s")
