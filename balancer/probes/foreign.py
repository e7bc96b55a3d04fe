"""Keeps `replica.foreign_requests` and `replica.foreign_share` true while time passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

import trio

from balancer.foreign import ForeignGpu, ForeignLoad
from balancer.probes.steady import keep_going
from balancer.readings import Gauges
from balancer.replica import Replica

__all__ = ["ForeignWatch"]

_EVERY_S: Final = 1.0
_AT_ONCE: Final = 100
"""Replicas looked at before others get their turn: about 0.3 ms."""


class ForeignWatch:
    """One task looks at every replica's readings each second.

    `read` is for `GaugeProbes(on_read=...)`. What is no longer heard of fades to 0, and what cannot
    be told counts as 0: a replica is never avoided for what nobody saw.
    """

    def __init__(self, gauges_poll_s: Callable[[], float], gpu_poll_s: float) -> None:
        """How often gauges and GPUs are read, in seconds."""
        self._gauges_poll_s = gauges_poll_s
        self._gpu_poll_s = gpu_poll_s
        self._seen: dict[Replica, _Seen] = {}

    def read(self, replica: Replica, gauges: Gauges, own: int) -> None:
        """A new snapshot of its engine, while we had at most `own` requests there."""
        seen = self._seen.get(replica)
        if seen is not None:
            seen.load.read(gauges, own)

    async def run(self, replicas: Callable[[], Iterable[Replica]]) -> None:
        """Watch those that there are at the time, until cancelled."""
        await keep_going("watching foreign load", partial(self._run, replicas))

    async def _run(self, replicas: Callable[[], Iterable[Replica]]) -> None:
        while True:
            now = trio.current_time()
            self._seen = {replica: self._seen.get(replica) or _Seen() for replica in replicas()}
            for count, (replica, seen) in enumerate(tuple(self._seen.items()), 1):
                self._look(replica, seen, now)
                if count % _AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()
            await trio.sleep(_EVERY_S)

    def _look(self, replica: Replica, seen: _Seen, now: float) -> None:
        reading = replica.gpu
        if reading is not None and reading.utilisation is not None and reading.at != seen.gpu_at:
            seen.gpu_at = reading.at
            seen.gpu.read(reading.utilisation, replica.load.busy_s(now), now)
        replica.foreign_share = seen.gpu.share(now, max(self._gpu_poll_s, _EVERY_S)) or 0.0
        replica.foreign_requests = seen.load.requests(now, self._gauges_poll_s())


class _Seen:
    """What was seen of one replica."""

    __slots__ = ("gpu", "gpu_at", "load")

    def __init__(self) -> None:
        self.load = ForeignLoad()
        self.gpu = ForeignGpu()
        self.gpu_at: float | None = None
