"""Short limits, a heartbeat that says how late the event loop was, and a look at processes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from server.sandbox import SandboxOptions
from server.sandbox.options import CallLimits
from server.workflow.services import CodeFailed

LIMITS = CallLimits(time_s=0.5, memory_bytes=128 << 20, input_bytes=4 << 20, output_bytes=1 << 20)


def options(**fields: object) -> SandboxOptions:
    """Code is allowed, and ends after a second; no Monty unless a test asks for it."""
    given = {"enabled": True, "monty": False, "code": LIMITS, "templates": LIMITS} | fields
    return SandboxOptions(**given)  # type: ignore[arg-type]


class Heartbeat:
    """A task that wishes to run every few milliseconds."""

    def __init__(self) -> None:
        self.late_s: list[float] = []

    async def beat(self) -> None:
        while True:
            due = trio.current_time() + 0.005
            await trio.sleep_until(due)
            self.late_s.append(trio.current_time() - due)

    @property
    def said_enough(self) -> bool:
        """Whether there are enough beats for a 99th percentile."""
        return len(self.late_s) >= 100

    @property
    def p99_s(self) -> float:
        """How late 99 of 100 beats were at most."""
        assert self.said_enough
        return sorted(self.late_s)[len(self.late_s) * 99 // 100 - 1]


async def keeps_time(call: Callable[[], Awaitable[object]], within_s: float = 0.05) -> bool:
    """Whether 99 of 100 times other tasks are no later than that while `call` is made. What a
    call does to them it does every time; what a busy machine does, hardly three times in a row."""
    for _ in range(3):
        if await _lateness_s(call) < within_s:
            return True
    return False


async def _lateness_s(call: Callable[[], Awaitable[object]]) -> float:
    """The 99th percentile of lateness, from as many calls as it takes for that to mean
    something."""
    heartbeat = Heartbeat()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heartbeat.beat)
        while not heartbeat.said_enough:
            await call()
        nursery.cancel_scope.cancel()
    return heartbeat.p99_s


def lives(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


async def gone(pids: list[int], within_s: float = 2.0) -> bool:
    """Whether all of them end in time."""
    return await comes_true(lambda: not any(map(lives, pids)), within_s)


async def comes_true(says: Callable[[], bool], within_s: float = 5.0) -> bool:
    """Whether it does: about processes there is nothing to wait for but time."""
    ends = trio.current_time() + within_s
    while not says() and trio.current_time() < ends:  # noqa: ASYNC110
        await trio.sleep(0.01)
    return says()


async def outcome(call: Awaitable[Any]) -> tuple[Any, str]:
    """The result of a call, or None and what the error says."""
    try:
        return await call, ""
    except CodeFailed as error:
        return None, error.message


def children_of_this_process() -> set[int]:
    """Processes that this one started and has not seen the end of."""
    return children_of(os.getpid())


def children_of(pid: int) -> set[int]:
    """Processes that it started and has not seen the end of."""
    found = set()
    for task in os.listdir(f"/proc/{pid}/task"):
        # A thread may end meanwhile.
        with (
            contextlib.suppress(OSError),
            open(f"/proc/{pid}/task/{task}/children") as file,
        ):
            found |= set(map(int, file.read().split()))
    return found
