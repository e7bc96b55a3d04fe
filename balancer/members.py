"""The replicas of a pool: who they are, and which of them may get work now."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

from balancer.admission import Room
from balancer.outliers import Fitness, Outliers, usable
from balancer.replica import UNBOUNDED, Replica

__all__ = ["Members"]


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
        self._outliers = outliers
        self._panic = panic
        self._ready: Sequence[Replica] = ()
        self._ready_until = -math.inf

    def take(self, replicas: Sequence[Replica]) -> list[Replica]:
        """These are the members from now on. Returns those that are no longer."""
        gone = [replica for replica in self.replicas if replica not in replicas]
        self.replicas = tuple(replicas)
        self.unready()
        return gone

    def unready(self) -> None:
        """Something has changed."""
        self._ready_until = -math.inf

    def ready(self, now: float) -> Sequence[Replica]:
        """Those that may get work, room or not, in the order of the members."""
        if now >= self._ready_until:
            members = [one for one in self.replicas if not one.draining]
            self._ready, self.panic = usable(
                members, lambda one: self._fitness(one, now), panic=self._panic
            )
            if self._ready and all(one.ramp.cap is not None for one in self._ready):
                for one in self._ready:  # all are new or came back: nobody is there to spare them
                    one.refresh(now, ramped=False)
            self._ready_until = self.changes_at(now)
            self.bounded = any(one.room != UNBOUNDED for one in self._ready)
        return self._ready

    def changes_at(self, now: float) -> float:
        """When somebody may come back, or get more room, with nobody doing anything."""
        returns_at = self._outliers.returns_at
        return min(
            (
                min(one.changes_at(now), at if (at := returns_at(one.name)) > now else math.inf)
                for one in self.replicas
            ),
            default=math.inf,
        )

    def find_room(self, now: float) -> Room:
        """The slots of those that may get work."""
        used, free = 0, 0.0
        for replica in self.ready(now):
            used += replica.in_flight
            if replica.room == UNBOUNDED:
                free = math.inf
            else:
                free += max(0, replica.room - replica.in_flight)
        return Room(used, free)

    def choose(
        self, now: float, tried: Collection[Replica], fits: Callable[[Replica], bool] | None
    ) -> Sequence[Replica]:
        """Those with room for one more: not `tried` while there are others, and only if `fits`."""
        candidates = self.ready(now)
        if tried:
            candidates = [one for one in candidates if one not in tried] or candidates
        if self.bounded:
            candidates = [one for one in candidates if one.load.requests < one.room]
        if fits is not None:
            candidates = [one for one in candidates if fits(one)]
        return candidates

    def _fitness(self, replica: Replica, now: float) -> Fitness:
        fitness = replica.refresh(now)
        if fitness is Fitness.FIT and self._outliers.ejected(replica.name, now):
            return Fitness.DOUBTFUL
        return fitness
