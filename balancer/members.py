"""The replicas of a pool: who they are, and which of them may get work now."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Final

from balancer.admission import Room
from balancer.outliers import Fitness, Outliers, usable
from balancer.replica import FRESH_S, UNBOUNDED, Replica

__all__ = ["Members"]

_PAUSE_MOST_S: Final = 2.0
"""A retry waits so long for another replica, rather than go where it failed."""


class Members:
    """Looking at every replica for every request costs a quarter of a millisecond at a thousand of
    them. So who may get work is kept until a replica's state changes (`unready`), or until time
    changes one.
    """

    def __init__(self, outliers: Outliers, panic: float) -> None:
        """`panic`: if fewer than this share of those alive are fit, all that live are used."""
        self.replicas: tuple[Replica, ...] = ()
        self.bounded = False
        """Whether the room of any that may get work is limited; as of the last `ready`."""
        self.panic = False
        """Whether so few are fit that all that live are used; as of the last `ready`."""
        self.keeping: tuple[Replica, ...] = ()
        """Those that drain and keep their runs; as of the last `ready`."""
        self._known: frozenset[Replica] = frozenset()
        self._ramped = True
        self._outliers = outliers
        self._panic = panic
        self._ready: Sequence[Replica] = ()
        self._ready_until = -math.inf

    def take(self, replicas: Sequence[Replica]) -> list[Replica]:
        """These are the members from now on. Returns those that are no longer."""
        before = self.replicas
        self.replicas = tuple(replicas)
        self._known = frozenset(replicas)
        self.unready()
        return [replica for replica in before if replica not in self._known]

    def judge_by(self, outliers: Outliers) -> None:
        """These know which of them are ejected from now on."""
        self._outliers = outliers
        self.unready()

    def __contains__(self, replica: Replica) -> bool:
        return replica in self._known

    def unready(self) -> None:
        """Something has changed."""
        self._ready_until = -math.inf

    def ready(self, now: float) -> Sequence[Replica]:
        """Those that may get work, room or not, in the order of the members."""
        if now >= self._ready_until:
            members = [one for one in self.replicas if not one.draining]
            self.keeping = tuple(one for one in self.replicas if one.keeps_runs)
            self._ready, self.panic = usable(
                members, lambda one: self._fitness(one, now), panic=self._panic
            )
            # If all are new or came back, nobody is there to spare them.
            self._ramped = any(one.ramp.cap is None for one in self._ready)
            self._ready_until = self._next_change(now)
            self.bounded = any(self.room(one) != UNBOUNDED for one in self._ready)
        return self._ready

    def room(self, replica: Replica) -> int:
        """The most requests that one of the `ready` may have in flight, those of other pools
        included."""
        return replica.room if self._ramped else replica.full_room

    def changes_at(self, now: float) -> float:
        """When somebody may come back, or get more room, with nobody doing anything."""
        self.ready(now)
        return self._ready_until

    def stale_at(self, now: float) -> float:
        """When somebody's reading may cease to count: one that is known, or one yet to come."""
        known = (one.stale_at for one in self.replicas)
        return min((at for at in known if at > now), default=now + FRESH_S)

    def _next_change(self, now: float) -> float:
        changes_at = min((one.changes_at(now) for one in self.replicas), default=math.inf)
        return min(changes_at, self._outliers.next_return(now))

    def others(self, now: float, tried: Collection[Replica]) -> Sequence[Replica]:
        """Those that may get work and were not `tried`; but none that pauses for long while one
        that was tried may serve."""
        ready, soon = self.ready(now), now + _PAUSE_MOST_S
        if not any(one in tried and one.pause.until <= soon for one in ready):
            return [one for one in ready if one not in tried]
        return [one for one in ready if one not in tried and one.pause.until <= soon]

    def kept(self, now: float, name: str) -> Replica | None:
        """That replica, if it drains, keeps its runs, and has room for a call of one."""
        for one in self.keeping:
            if one.name == name and self._fitness(one, now) is Fitness.FIT and one.has_room:
                return one
        return None

    def find_room(self, now: float) -> Room:
        """The slots of those that may get work."""
        used, free = 0, 0.0
        for replica in self.ready(now):
            used += replica.in_flight
            room = self.room(replica)
            if room == UNBOUNDED:
                free = math.inf
            else:
                free += max(0, room - replica.in_flight)
        return Room(used, free)

    def choose(
        self, now: float, tried: Collection[Replica], fits: Callable[[Replica], bool] | None
    ) -> Sequence[Replica]:
        """Those with room for one more: not `tried` while there are others, and only if `fits`."""
        candidates = self.ready(now)
        if tried:
            candidates = self.others(now, tried) or candidates
        if self.bounded:
            if self._ramped:
                candidates = [one for one in candidates if one.load.requests < one.room]
            else:
                candidates = [one for one in candidates if one.load.requests < one.full_room]
        if fits is not None:
            candidates = [one for one in candidates if fits(one)]
        return candidates

    def _fitness(self, replica: Replica, now: float) -> Fitness:
        fitness = replica.refresh(now)
        if fitness is Fitness.FIT and self._outliers.ejected(replica.name, now):
            return Fitness.DOUBTFUL
        return fitness
