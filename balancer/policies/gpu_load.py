"""The replica whose GPU has the least to do, as NVML says it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Final

import trio

from balancer.policies.ask import UNKNOWN, Ask
from balancer.policies.loaded import Loaded, R
from balancer.policies.policy import Bookless
from balancer.policies.ties import least, least_in_flight
from balancer.readings import GpuReading

__all__ = ["GpuLoad"]

_STALE_S: Final = 10.0
_MEMORY_S: Final = 5.0
_FULL: Final = 0.98
_LEAST_STEP: Final = 0.05
_GRAIN: Final = 20


class _Seen:
    """What is known of one replica's GPUs."""

    __slots__ = ("at", "in_flight", "utilisation")

    def __init__(self, reading: GpuReading, utilisation: float, in_flight: int) -> None:
        self.at = reading.at
        self.utilisation = utilisation
        self.in_flight = in_flight
        """When the reading was first seen."""

    def read(self, reading: GpuReading, utilisation: float, in_flight: int) -> None:
        kept = math.exp(min(0.0, self.at - reading.at) / _MEMORY_S)
        self.utilisation = kept * self.utilisation + (1.0 - kept) * utilisation
        self.at, self.in_flight = reading.at, in_flight


class GpuLoad(Bookless):
    """The least utilisation, averaged over 5 s; among those alike the fewest requests in flight,
    and then by chance (`seed` makes it repeatable).

    - Requests sent since a reading are not in it yet. Each counts for what those before it came
      to, 5 % at least: or all would go to the one that looks idle until the next reading.
    - GPUs whose clocks are held down, or with more than 98 % of their memory in use, are left out
      while there are others.
    - A reading is never compared with a missing one, or one older than 10 s: unless there is one
      of every replica, requests in flight decide alone.

    Utilisation is the share of time in which any kernel ran: it is near 100 % for one stream as for
    a hundred. So this tells busy GPUs from idle ones, and sees jobs that are not ours; how busy it
    does not see. For replicas that share their GPUs with other work.
    """

    def __init__(
        self, seed: int | None = None, *, clock: Callable[[], float] = trio.current_time
    ) -> None:
        self._random = random.Random(seed)
        self._clock = clock
        self._seen: dict[str, _Seen] = {}

    def pick(self, candidates: Sequence[R], ask: Ask = UNKNOWN) -> R:
        now = self._clock()
        sound = [one for one in candidates if _sound(one.gpu)] or candidates
        loads: list[tuple[float, int]] = []
        for candidate in sound:
            utilisation = self._utilisation(candidate, now)
            if utilisation is None:
                return least_in_flight(sound, self._random)
            loads.append((round(utilisation * _GRAIN), candidate.in_flight))
        return least(sound, loads, self._random)

    def forget(self, replica: str) -> None:
        """Its readings began anew."""
        self._seen.pop(replica, None)

    def _utilisation(self, candidate: Loaded, now: float) -> float | None:
        reading = candidate.gpu
        if reading is None or reading.utilisation is None or now - reading.at > _STALE_S:
            return None
        seen = self._seen.get(candidate.name)
        if seen is None:
            seen = _Seen(reading, reading.utilisation, candidate.in_flight)
            self._seen[candidate.name] = seen
        elif reading.at != seen.at:
            seen.read(reading, reading.utilisation, candidate.in_flight)
        step = max(_LEAST_STEP, seen.utilisation / (seen.in_flight + 1))
        return max(0.0, seen.utilisation + step * (candidate.in_flight - seen.in_flight))


def _sound(reading: GpuReading | None) -> bool:
    if reading is None:
        return True
    full = reading.memory_share is not None and reading.memory_share > _FULL
    return not (full or reading.throttled or reading.fault)
