"""Short limits, a heartbeat that says how late the event loop was, and a look at processes."""

from __future__ import annotations

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
    def on_time(self) -> bool:
        """Whether 99 of 100 beats came within 50 ms; of a few beats nothing can be said."""
        many = len(self.late_s) >= 100
        return not many or sorted(self.late_s)[int(0.99 * len(self.late_s))] < 0.05


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
    found = set()
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/children") as file:
            found |= set(map(int, file.read().split()))
    return found
