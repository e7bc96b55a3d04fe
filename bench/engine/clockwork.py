"""Engines under Trio: what is due in them happens when it is, on the real or a virtual clock."""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush

import trio

from bench.engine.engine import Engine

__all__ = ["Clockwork", "JumpClock"]


class Clockwork:
    """Drives any number of engines. `run` it in a nursery; call `engine_changed` after each
    `submit`, `abort` or fault, so that it looks anew when that engine is due.
    """

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Engine]] = []
        self._due_s: dict[Engine, float] = {}
        self._pushed = 0
        self._nap = trio.CancelScope()

    def engine_changed(self, engine: Engine) -> None:
        """Something was done to `engine`: it may be due at another time now."""
        due_s = engine.next_s()
        if due_s == self._due_s.get(engine):
            return
        self._due_s[engine] = due_s
        if due_s == math.inf:
            return
        self._pushed += 1
        heappush(self._due, (due_s, self._pushed, engine))
        if due_s < self._nap.deadline:
            self._nap.deadline = due_s

    async def run(self) -> None:
        """Until cancelled. What callbacks of an engine raise comes out here."""
        clock = trio.lowlevel.current_clock()
        if isinstance(clock, JumpClock):
            # No task needs to wake for what happens inside the engines: most of a simulation.
            await clock.lead(self.next_s, self._advance_due)
        while True:
            with trio.CancelScope(deadline=self.next_s()) as self._nap:
                await trio.sleep_forever()
            self._advance_due(trio.current_time())

    def next_s(self) -> float:
        """When something happens next in any of them; inf if nothing will."""
        while self._due and self._due[0][0] != self._due_s.get(self._due[0][2]):
            heappop(self._due)  # that engine is due at another time by now
        return self._due[0][0] if self._due else math.inf

    def _advance_due(self, now_s: float) -> None:
        while self.next_s() <= now_s:
            _, _, engine = heappop(self._due)
            del self._due_s[engine]
            engine.advance(now_s)
            self.engine_changed(engine)


class JumpClock(trio.abc.Clock):
    """A virtual clock that jumps to the next deadline at once, whenever nothing is left to run.

    For simulations that wait for nothing but time: with sockets or threads in the same run it would
    jump past their answers (use `trio.testing.MockClock` there).
    """

    def __init__(self) -> None:
        self._now_s = 0.0
        self._next_s: Callable[[], float] = lambda: math.inf
        self._advance: Callable[[float], None] = lambda now_s: None
        self._raised: Exception | None = None
        self._stop = trio.Event()

    def start_clock(self) -> None:
        """Nothing: it begins at 0."""

    def current_time(self) -> float:
        return self._now_s

    async def lead(self, next_s: Callable[[], float], advance: Callable[[float], None]) -> None:
        """Until cancelled, stop at `next_s()` too, if that comes before any deadline, and call
        `advance` with that time. Raises what `advance` raises.
        """
        self._next_s, self._advance = next_s, advance
        try:
            await self._stop.wait()
        finally:
            self._next_s = lambda: math.inf
        assert self._raised is not None
        raise self._raised

    def deadline_to_sleep_time(self, deadline: float) -> float:
        # Trio asks this when no task can run: exactly when time may pass.
        due_s = self._next_s()
        soonest_s = min(deadline, due_s)
        if soonest_s == math.inf:
            return math.inf
        self._now_s = max(self._now_s, soonest_s)
        if due_s <= deadline:
            try:
                self._advance(self._now_s)
            except Exception as error:  # out of Trio's own loop it would be an internal error
                self._raised = error
                self._next_s = lambda: math.inf
                self._stop.set()
        return 0.0
