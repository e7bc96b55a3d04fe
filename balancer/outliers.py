"""Which replicas of a pool fail more than the others, and which are used when few are left. Pure.

A breaker sees one replica alone and opens when half of what it does fails. That another loses one
request in five is a fault too, but only the comparison shows whose: if most fail as often, the
cause is elsewhere (the requests, the model, the network), and ejecting anybody would just take
capacity away. So a replica is measured by the middle one of the others, which up to half of them
being bad does not move; and where the others had too few requests to tell, nobody is ejected.

Only failures eject; slowness does not. A slow replica still does work, and to take it out makes
the others slower, so how much it should get is a question of degree, which policies answer by the
speed they learn of each replica. In a fleet of unequal GPUs the slow ones are slow by design, and a
time to first token says more of the prompt than of the replica. What is slow beyond any use is a
failure anyway: `timeouts.first_byte_s` and `timeouts.idle_s` say from when.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set
from enum import IntEnum
from statistics import median_low
from typing import Final, NamedTuple, TypeVar

from balancer.breaker import Backoff
from balancer.window import Window

__all__ = ["Fitness", "OutlierSettings", "Outliers", "usable"]


class OutlierSettings(NamedTuple):
    """When a replica is ejected from its pool, and for how long."""

    failure_share: float = 0.1
    """It fails more than this share of its requests (0 to 1), beyond doubt ..."""
    times_others: float = 3.0
    """... and more than so many times the share of the middle one of the others ..."""
    volume: int = 20
    """... and it and those others had at least so many requests each ..."""
    window_s: float = 60.0
    """... in the last so many seconds."""
    eject_s: float = 10.0
    """How long it is out the first time; twice as long each time after that ..."""
    eject_max_s: float = 300.0
    """... up to this. Both within a fifth, by chance."""
    most: float = 0.5
    """At most this share of a pool's replicas is out at once (0 to 1); never the only one."""


_DOUBT_Z: Final = 2.576
"""Of the bounds below: one replica in 200 is misjudged if all are equal."""


class Outliers:
    """Ejects the replicas, known by name, that fail more often than the rest of their pool."""

    __slots__ = ("_of", "_random", "_settings")

    def __init__(self, settings: OutlierSettings, random: Callable[[], float]) -> None:
        self._settings = settings
        self._random = random
        self._of: dict[str, _Record] = {}

    def answered(self, replica: str, now: float) -> None:
        """A request's first event is here."""
        record = self._record(replica)
        if now >= record.backoff.until:
            record.counts.add(now, False)

    def failed(self, replica: str, now: float, members: int) -> bool:
        """A request failed by the replica's fault. Returns whether that has ejected it.

        `members` is how many replicas the pool has.
        """
        record = self._record(replica)
        if now < record.backoff.until:
            return False  # begun before it was ejected
        record.counts.add(now, True)
        if not self._stands_out(record, now) or not self._may_eject(now, members):
            return False
        record.backoff.rest(now)
        record.counts.clear()
        return True

    def ejected(self, replica: str, now: float) -> bool:
        """Whether it is out."""
        record = self._of.get(replica)
        return record is not None and now < record.backoff.until

    def next_return(self, now: float) -> float:
        """When the next of those that are out is back; infinite if none is."""
        ends = (record.backoff.until for record in self._of.values())
        return min((end for end in ends if end > now), default=math.inf)

    @property
    def known(self) -> Set[str]:
        """Those of which anything was seen."""
        return self._of.keys()

    def forget(self, replica: str) -> None:
        """It left the pool."""
        self._of.pop(replica, None)

    def _record(self, replica: str) -> _Record:
        record = self._of.get(replica)
        if record is None:
            settings = self._settings
            record = self._of[replica] = _Record(
                Window(settings.window_s),
                Backoff(settings.eject_s, settings.eject_max_s, settings.window_s, self._random),
            )
        return record

    def _stands_out(self, record: _Record, now: float) -> bool:
        settings = self._settings
        failures, requests = record.counts.share(now)
        if requests < settings.volume:
            return False
        at_least = _at_least(failures, requests)
        if at_least <= settings.failure_share:
            return False
        others = self._shares_of_others(record, now)
        return bool(others) and at_least > settings.times_others * median_low(others)

    def _shares_of_others(self, record: _Record, now: float) -> list[float]:
        counted = (other.counts.share(now) for other in self._of.values() if other is not record)
        return [
            failures / requests
            for failures, requests in counted
            if requests >= self._settings.volume
        ]

    def _may_eject(self, now: float, members: int) -> bool:
        out = sum(now < record.backoff.until for record in self._of.values())
        return out + 1 <= min(self._settings.most * members, members - 1)


class _Record(NamedTuple):
    counts: Window
    backoff: Backoff


def _at_least(failures: int, requests: int) -> float:
    """The lower end of Wilson's interval for a share: what it is, almost surely, at least.

    E. B. Wilson, Probable Inference, J. Am. Stat. Assoc. 22 (1927).
    """
    share, z2 = failures / requests, _DOUBT_Z * _DOUBT_Z
    centre = share + z2 / (2 * requests)
    spread = _DOUBT_Z * math.sqrt(share * (1 - share) / requests + z2 / (4 * requests**2))
    return (centre - spread) / (1 + z2 / requests)


class Fitness(IntEnum):
    """How well a replica may be used, as far as is known."""

    DEAD = 0
    """A probe found it down, or nobody listens at its address."""
    DOUBTFUL = 1
    """It failed lately: its breaker does not admit a request, or it is ejected."""
    FIT = 2


T = TypeVar("T")


def usable(
    members: Sequence[T], fitness: Callable[[T], Fitness], *, panic: float
) -> tuple[Sequence[T], bool]:
    """Who may be sent requests, in the order of `members`, and whether that is out of panic.

    The fit, unless they are fewer than the share `panic` of all that are not dead, or none: then
    all that are not dead, as Envoy does. When that many fail at once the judgement is more likely
    wrong than all of them are, and the few that are left would not stand the load. If all are dead,
    all: trying beats refusing.
    """
    known = [fitness(member) for member in members]
    fit = known.count(Fitness.FIT)
    if fit == len(known):  # nearly always: a thousand replicas are looked at for each request
        return members, False
    dead = known.count(Fitness.DEAD)
    if fit and fit >= panic * (len(known) - dead):
        return [
            member for member, how in zip(members, known, strict=True) if how is Fitness.FIT
        ], False
    alive = [member for member, how in zip(members, known, strict=True) if how is not Fitness.DEAD]
    return alive or members, True
