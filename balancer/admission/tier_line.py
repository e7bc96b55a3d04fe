"""The line of one tier: who waits, each lane in order."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Hashable, Sequence
from operator import attrgetter
from typing import Final, Generic, TypeAlias, TypeVar

import msgspec

from balancer.admission.pace import Pace
from balancer.admission.tier import Standing, Tier

__all__ = ["T", "Ticket", "TierLine", "TierStatistics"]


Order: TypeAlias = tuple[float, float, float]
"""The nearest end, the arrival, and a number that no other has."""


class Ticket:
    """One who waits; the pool's own record of a waiter derives from it.

    `wants` says what its replica must be like: if one cannot be placed, none behind it that wants
    the same can. For an ordinary request it is the empty set of replicas tried before.
    """

    __slots__ = ("entered", "order", "standing", "until", "waits", "wants")

    def __init__(self, standing: Standing, wants: Hashable = frozenset()) -> None:
        self.standing = standing
        self.wants = wants
        self.entered = self.until = math.nan
        """`until`: when it gives up, set by `Line.enter`."""
        self.order: Order = (math.nan, math.nan, math.nan)
        self.waits = False


T = TypeVar("T", bound=Ticket)

_order_of = attrgetter("order")

_FORESIGHT_S: Final = 60.0


class TierStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of one tier of a pool. Counts are since its start."""

    tier: str
    in_flight: int
    waiting: int
    first_waits_s: float
    """How long the first in line has waited; 0 if nobody waits."""
    places_per_s: float | None
    """How fast its line moved when there was one last; None if too little was seen."""
    served: int
    """Those who waited and got a replica."""
    waited_s: float
    """What they waited, all together."""
    left: int
    """Those who waited and gave up by themselves."""
    full: int
    """Refused because `queue` was full."""
    hopeless: int
    """Refused at once because their wait would have been too long."""
    late: int
    """Refused because `queue_s` or their deadline passed."""
    put_back: int
    """Those who lost their replica to a higher tier."""


def _age_of(ticket: Ticket) -> tuple[float, float]:
    return ticket.order[1:]


class Lane(Generic[T]):
    """Those who want the same, in two orders: by their ends, and by their arrivals.

    Sorted lists, not heaps: a place in one is found and a leaver is gone at once, and moving
    10,000 pointers takes 2 µs.
    """

    __slots__ = ("by_age", "by_end")

    def __init__(self) -> None:
        self.by_end: list[T] = []
        self.by_age: list[T] = []

    def add(self, ticket: T) -> None:
        insort(self.by_end, ticket, key=_order_of)
        insort(self.by_age, ticket, key=_age_of)

    def remove(self, ticket: T) -> None:
        del self.by_end[bisect_left(self.by_end, ticket.order, key=_order_of)]
        del self.by_age[bisect_left(self.by_age, _age_of(ticket), key=_age_of)]


class TierLine(Generic[T]):
    """One tier: its requests in flight, and those who wait, each lane in order."""

    def __init__(self, tier: Tier, place: int, reserved: int) -> None:
        self.tier = tier
        self.place = place
        """Its own in the order of the tiers."""
        self.reserved = reserved
        """Slots it leaves free for those above."""
        self.slots = math.inf if tier.slots is None else tier.slots
        self.in_flight = 0
        self.waiting = 0
        self.passed = 0
        """Places that tiers above took since it had one itself, or since it began to wait."""
        self.lanes: dict[Hashable, Lane[T]] = {}
        self.pace = Pace()
        self.served = self.left = self.full = self.hopeless = self.late = self.put_back = 0
        self.waited_s = 0.0

    def add(self, ticket: T, now: float) -> None:
        if not self.waiting:
            self.pace.begins(now)
            self.passed = 0
        lane = self.lanes.get(ticket.wants)
        if lane is None:
            lane = self.lanes[ticket.wants] = Lane()
        lane.add(ticket)
        ticket.waits = True
        self.waiting += 1

    def remove(self, ticket: T, now: float) -> None:
        lane = self.lanes[ticket.wants]
        lane.remove(ticket)
        if not lane.by_end:
            del self.lanes[ticket.wants]
        ticket.waits = False
        self.waiting -= 1
        if not self.waiting:
            self.pace.ends(now)

    def wait_s(self, order: Order, now: float) -> float:
        """How long one of this order would wait for its place, as fast as the line moves now. 0 if
        too little was seen, or nobody waits: then waiting is the only way to see more."""
        pace = self.pace.places_per_s(now)
        return 0.0 if pace is None or not self.waiting else (self._ahead_of(order) + 1) / pace

    def lets_in_after_s(self, patience_s: float, now: float) -> float | None:
        """When one that can wait so long will fit into the queue and be placed in time.

        Above 0, as somebody was just refused: at least the time to the next place. What a stall
        says of the hours to come is not worth telling: no more than a minute, or `queue_s`.
        """
        pace = self.pace.places_per_s(now)
        if pace is None:
            return None
        ahead = self._ahead_of((now + patience_s, now, math.inf))
        too_many = max(1, self.waiting - self.tier.queue + 1)
        after_s = max(too_many / pace, (ahead + 1) / pace - patience_s)
        return min(after_s, max(self.tier.queue_s, _FORESIGHT_S))

    def _ahead_of(self, order: Order) -> int:
        return sum(bisect_left(lane.by_end, order, key=_order_of) for lane in self.lanes.values())

    def heads(self, now: float) -> Sequence[T]:
        """The first of each lane, in order. Whose time has passed is taken out of the line."""
        for lane in tuple(self.lanes.values()):
            while lane.by_end and lane.by_end[0].until <= now:
                self.remove(lane.by_end[0], now)
        heads = [lane.by_end[0] for lane in self.lanes.values()]
        if len(heads) > 1:
            heads.sort(key=_order_of)
        return heads

    def seniors(self, now: float) -> Sequence[T]:
        """The oldest of each lane, by age, of those that have waited their `handicap_s`. Whose
        time has passed is taken out of the line."""
        for lane in tuple(self.lanes.values()):
            while lane.by_age and lane.by_age[0].until <= now:
                self.remove(lane.by_age[0], now)
        oldest = [lane.by_age[0] for lane in self.lanes.values()]
        handicap_s = self.tier.handicap_s
        return sorted(
            (one for one in oldest if one.standing.arrived + handicap_s <= now), key=_age_of
        )

    def statistics(self, now: float) -> TierStatistics:
        first = min((lane.by_end[0].entered for lane in self.lanes.values()), default=now)
        return TierStatistics(
            tier=self.tier.name,
            in_flight=self.in_flight,
            waiting=self.waiting,
            first_waits_s=now - first,
            places_per_s=self.pace.places_per_s(now),
            served=self.served,
            waited_s=self.waited_s,
            left=self.left,
            full=self.full,
            hopeless=self.hopeless,
            late=self.late,
            put_back=self.put_back,
        )
