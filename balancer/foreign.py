"""Load on a replica that is not ours: requests of other clients, work of other jobs on its GPU.

Both are what remains when our own is taken away, and only when it stays.
"""

from __future__ import annotations

import math
from typing import Final

from balancer.readings import Gauges

__all__ = ["ForeignGpu", "ForeignLoad"]

_POLLS: Final = 3.0
"""After so many intervals without news nothing is known."""
_TAU_S: Final = 5.0
"""Over about how long utilisation and our own part in it are averaged."""
_SHARE_MAX: Final = 0.8
"""The most that is ever taken for foreign: a replica is never written off by this alone."""
_BLIND_ABOVE: Final = 0.95
"""Where we are busy for more than this share of time, utilisation tells nothing of others."""


class ForeignLoad:
    """Requests in an engine that did not come through us.

    A single difference means little: an engine's gauges lag behind our books by a step or a poll.
    What two polls in a row both show is there.
    """

    __slots__ = ("_at", "_last", "_steady")

    def __init__(self) -> None:
        self._at = -math.inf
        self._last: float | None = None
        self._steady = 0.0

    def read(self, gauges: Gauges, own: int) -> None:
        """A new snapshot, and the most that we had in flight while it was taken."""
        if gauges.running is None:
            self.clear()
            return
        # An engine that hides its queue shows fewer than there are: then this is a lower bound.
        foreign = max(0.0, gauges.running + (gauges.waiting or 0.0) - own)
        self._steady = 0.0 if self._last is None else min(self._last, foreign)
        self._last = foreign
        self._at = gauges.at

    def clear(self) -> None:
        """Nothing is known: the engine was restarted, or no longer says."""
        self._last = None
        self._steady = 0.0

    def requests(self, now: float, poll_s: float) -> float:
        """How many are there, to be added to our own; 0 when the last news is 3 polls old."""
        return self._steady if now - self._at <= _POLLS * poll_s else 0.0


class ForeignGpu:
    """How much of a replica's GPU other jobs have: g = clamp(utilisation - busy share, 0, 0.8).

    NVML's utilisation is the share of time in which any kernel ran, so while we keep the GPU busy
    it is 1 whether or not others run there too. Both terms fade alike, e^(-t / 5 s): a burst of
    ours rises and falls in both at once, and leaves no difference.
    """

    __slots__ = ("_at", "_busy", "_busy_s", "_utilisation")

    def __init__(self) -> None:
        self._at: float | None = None
        self._busy = 0.0
        self._busy_s = 0.0
        self._utilisation = 0.0

    def read(self, utilisation: float, busy_s: float, now: float) -> None:
        """The GPU's utilisation (0 to 1) over the time since the last call.

        `busy_s` counts, since the beginning, the seconds in which a request of ours was in flight
        (`Load.busy_s`).
        """
        if self._at is None:
            self._at, self._busy_s = now, busy_s
            return
        passed_s = now - self._at
        if passed_s <= 0.0:
            return
        busy = min(1.0, max(0.0, (busy_s - self._busy_s) / passed_s))
        fresh = 1.0 - math.exp(-passed_s / _TAU_S)
        self._utilisation += fresh * (utilisation - self._utilisation)
        self._busy += fresh * (busy - self._busy)
        self._at, self._busy_s = now, busy_s

    def share(self, now: float, poll_s: float) -> float | None:
        """The foreign share, 0 to 0.8; None where it cannot be told.

        That is before the second reading, 3 polls after the last, and while we are busy nearly all
        of the time: then how much slower the replica has become must tell.
        """
        if self._at is None or now - self._at > _POLLS * poll_s or self._busy > _BLIND_ABOVE:
            return None
        return min(_SHARE_MAX, max(0.0, self._utilisation - self._busy))
