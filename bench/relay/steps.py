"""The clock of the fake replica's engine: one step yields one token of every running stream."""

from __future__ import annotations

import time
from collections.abc import Callable

from bench.relay.poll_loop import PollLoop


class StepClock:
    """Calls every running stream once a step, one after the other, as an engine that batches does.

    Steps lie on a grid `pace_s` wide that starts with the clock, so that they do not drift and the
    clocks of several processes do not agree. At 0 a step follows the last as soon as the loop has
    handled what came in meanwhile. The clock rests while no stream runs.
    """

    def __init__(self, loop: PollLoop, pace_s: float) -> None:
        self._loop = loop
        self._pace_s = pace_s
        self._running: list[Callable[[], bool]] = []
        self._began_s = time.perf_counter()
        self._number = 0
        """Of the last step that was set."""
        self._set = False

    def join(self, advance: Callable[[], bool]) -> None:
        """Call `advance` at every step from the next on, until it returns False."""
        self._running.append(advance)
        if not self._set:
            self._set_next()

    def _set_next(self) -> None:
        self._set = True
        self._loop.call_at(self._next_s(), self._step)

    def _next_s(self) -> float:
        now = time.perf_counter()
        if not self._pace_s:
            return now
        # Steps that were missed are left out: an engine that is late does not send two at once.
        passed = int((now - self._began_s) / self._pace_s)
        self._number = max(passed, self._number) + 1
        return self._began_s + self._number * self._pace_s

    def _step(self) -> None:
        due, self._running = self._running, []
        going_on = [advance for advance in due if advance()]
        # A stream that joined during this step waits for the next.
        self._running = going_on + self._running
        self._set = False
        if self._running:
            self._set_next()
