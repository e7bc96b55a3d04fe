"""How long the event loop is busy between two looks at its sockets: everybody else's delay.

The number that explains a hanging admin page. A pass of the loop runs every task that is ready;
while it lasts nothing else starts, so its length is the lag that all others feel.
"""

from __future__ import annotations

import time
from typing import Final

import trio

from server.observe.histogram import Histogram

__all__ = ["LoopLag"]

_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class LoopLag(trio.abc.Instrument):
    """A Trio instrument that measures each pass. `busy` is the histogram of their lengths, in s."""

    def __init__(self) -> None:
        self.busy = Histogram(_BOUNDS_S)
        self._began = time.perf_counter()

    def after_io_wait(self, timeout: float) -> None:
        self._began = time.perf_counter()

    def before_io_wait(self, timeout: float) -> None:
        busy_s = time.perf_counter() - self._began
        if busy_s <= 0.001:
            # Thousands of these a second: the first bucket, without looking for it.
            self.busy.counts[0] += 1
            self.busy.total += busy_s
        else:
            self.busy.observe(busy_s)
