"""Engines under Trio: one task lets everything happen when it is due, on the real or a virtual clock."""

from __future__ import annotations

import math
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
        """Until cancelled."""
        while True:
            with trio.CancelScope(deadline=self._next_s()) as self._nap:
                await trio.sleep_forever()
            self._advance_due(trio.current_time())

    def _next_s(self) -> float:
        while self._due and self._due[0][0] != self._due_s.get(self._due[0][2]):
            heappop(self._due)  # that engine is due at another time by now
        return self._due[0][0] if self._due else math.inf

    def _advance_due(self, now_s: float) -> None:
        while self._next_s() <= now_s:
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

    def start_clock(self) -> None:
        """Nothing: it begins at 0."""

    def current_time(self) -> float:
        return self._now_s

    def deadline_to_sleep_time(self, deadline: float) -> float:
        # Trio asks this when no task can run: exactly when time may pass.
        if deadline == math.inf:
            return math.inf
        self._now_s = max(self._now_s, deadline)
        return 0.0
