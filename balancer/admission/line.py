"""The line in front of a pool.

Pure and synchronous. The pool asks `may_take` for a newcomer, lets it `enter` if it must wait,
and calls `hand_out` whenever there may be room. Times are those of `trio.current_time`.

Order. A higher tier comes first. A request that has waited its `handicap_s` is a senior: of eight
places that tiers above it take while its own tier gets none, the eighth is a senior's, as if it
were of the top tier. So nobody starves, and a backlog of old batch requests, however long, costs
those above one place in eight; were age alone to count, it would cost them all. Within a tier the
nearest end comes first: the deadline, or where there is none the end of `queue_s`; then the
longest wait. Among seniors it is the longest wait alone: else those with deadlines, coming all the
time, would starve the others.

Invariants, for every tier: `in_flight` <= `slots`; `waiting` <= `queue`, plus those that had a
replica before; a lower tier takes no reserved slot, but for seniors; after a `hand_out` that was
not cut short nobody waits whom `place` would still take.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from operator import attrgetter, itemgetter
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from balancer.admission.tier import Standing, Tier
from balancer.admission.tier_line import T, Ticket, TierLine, TierStatistics
from balancer.errors import BusyReason, PoolBusy

__all__ = ["Held", "Line", "Room"]

_PASSED_MOST: Final = 7
"""Places that go past a senior before it is due."""

_PUT_BACKS_MOST: Final = 2
"""So often one request may lose its place to another."""

_UNMEASURED_RETRY_S: Final = 5.0

_MANY_LANES: Final = 8
"""From here on it is worth asking for the room of all replicas before trying each lane."""


class Room(NamedTuple):
    """The slots of a pool's replicas, those of other pools' requests included."""

    used: int
    free: float
    """Infinite if any replica is without a limit."""


class Held(Protocol):
    """A request that has a replica, as the choice of whom to put back sees it."""

    @property
    def standing(self) -> Standing: ...

    @property
    def leased_at(self) -> float: ...


H = TypeVar("H", bound=Held)

Place = Callable[[T, Tier], H | None]


class Line(Generic[T, H]):
    """The line in front of one pool. `room` tells what its replicas have; asked only if needed.

    A tier of a name it does not know counts as its lowest. Raises ValueError for no tiers, or two
    of one name or rank.
    """

    def __init__(self, model: str, tiers: Sequence[Tier], room: Callable[[], Room]) -> None:
        names, ranks = {tier.name for tier in tiers}, {tier.rank for tier in tiers}
        if not tiers or len(names) < len(tiers) or len(ranks) < len(tiers):
            raise ValueError(
                f"the tiers of model {model!r} are {list(tiers)!r}: expected one or more, and no "
                "name or rank twice"
            )
        self._model = model
        self._room = room
        self._lines: list[TierLine[T]] = []
        reserved = 0
        for place, tier in enumerate(sorted(tiers, key=attrgetter("rank"))):
            self._lines.append(TierLine(tier, place, reserved))
            reserved = max(reserved, tier.reserve)
        self._of = {line.tier.name: line for line in self._lines}
        self._held: dict[H, None] = {}  # the youngest last
        self._yields_s = max(tier.yields_s for tier in tiers)
        self._sequence = 0
        self.waiting = 0
        """Requests that wait, of all tiers."""

    def tier(self, name: str) -> Tier:
        """The tier that counts for a request of this name."""
        return self._line(name).tier

    # In flight

    def may_take(self, tier: str) -> bool:
        """Whether a newcomer may take a free slot. The pool has handed out before if any wait."""
        return self._is_open(self._line(tier))

    def took(self, held: H) -> None:
        """A newcomer took a slot without waiting."""
        line = self._line(held.standing.tier)
        self._hold(line, held)
        if self.waiting:
            self._pass_by(line)

    def answered(self, held: H) -> None:
        """It has sent something: nobody can have its place any more."""
        self._held.pop(held, None)

    def released(self, held: H) -> None:
        """It is over: its slot is free. To be told once."""
        self._held.pop(held, None)
        self._line(held.standing.tier).in_flight -= 1

    # Waiting

    def enter(self, ticket: T, now: float, *, sure: bool = False) -> None:
        """Wait for a place, until `ticket.until`.

        Raises `PoolBusy` if the queue is full or the wait would be too long, except for one that
        had a replica before, and if a place is `sure`: one is about to be freed for it.
        """
        standing = ticket.standing
        line = self._line(standing.tier)
        queue_s = line.tier.queue_s
        deadline = math.inf if standing.deadline is None else standing.deadline
        self._sequence += 1
        ticket.order = (min(deadline, standing.arrived + queue_s), standing.arrived, self._sequence)
        ticket.entered = now
        ticket.until = min(deadline, now + queue_s)
        if not (sure or standing.placed or standing.put_backs):
            self._refuse_or_pass(line, ticket, now)
        line.add(ticket, now)
        self.waiting += 1

    def leave(self, ticket: T, now: float) -> None:
        """Stop waiting, if it still does: its caller was cancelled."""
        if ticket.waits:
            self._line(ticket.standing.tier).left += 1
            self._remove(ticket, now)

    def late(self, ticket: T, now: float) -> PoolBusy:
        """The refusal of one whose time has passed; it does not wait any more."""
        if ticket.waits:
            self._remove(ticket, now)
        line = self._line(ticket.standing.tier)
        line.late += 1
        why = f"no replica of model {self._model!r} had room within {now - ticket.entered:.3g} s"
        if ticket.standing.deadline is not None and now >= ticket.standing.deadline:
            why += ", its deadline"
        return self._busy(line, why, "late", ticket, now)

    def hand_out(self, now: float, place: Place[T, H], most: int = sys.maxsize) -> bool:
        """Place those who wait, in order, as long as there is room. Returns whether that is done:
        after `most` of them there may be room for more.

        `place` leases a replica that the tier it is given may use; None if none has room. It must
        not call back into this line.
        """
        while self.waiting and most:
            served = self._serve_senior(now, place)
            if not served and not any(self._serve(line, now, place) for line in self._lines):
                return True
            most -= 1
        return not self.waiting

    def victim(self, ticket: T, now: float, makes_room: Callable[[H], bool]) -> H | None:
        """The youngest request that is to be put back so that `ticket` can have its place.

        `makes_room` says whether its replica then has room for `ticket`. The caller releases its
        lease. None if there is none, or `ticket` may not take its place, or is late already.
        """
        deadline = ticket.standing.deadline
        if deadline is not None and now >= deadline:
            return None
        line = self._line(ticket.standing.tier)
        if line.tier.preempts and self._is_open(line, freed=1):
            for held in reversed(self._held):
                if now - held.leased_at > self._yields_s:
                    break
                if self._yields(held, line, now) and makes_room(held):
                    return self._put_back(held)
        return None

    def _yields(self, held: H, to: TierLine[T], now: float) -> bool:
        standing = held.standing
        line = self._line(standing.tier)
        return (
            line.place > to.place
            and now - held.leased_at <= line.tier.yields_s
            and now < standing.arrived + line.tier.handicap_s
            and standing.put_backs < _PUT_BACKS_MOST
        )

    def _put_back(self, held: H) -> H:
        del self._held[held]
        held.standing.put_backs += 1
        self._line(held.standing.tier).put_back += 1
        return held

    def statistics(self, now: float) -> tuple[TierStatistics, ...]:
        """Of each tier, in their order."""
        return tuple(line.statistics(now) for line in self._lines)

    def _line(self, tier: str) -> TierLine[T]:
        return self._of.get(tier) or self._lines[-1]

    def _is_open(self, line: TierLine[T], freed: int = 0) -> bool:
        """Whether slots and reserve leave room for one more, once `freed` slots are given back."""
        if line.in_flight >= line.slots:
            return False
        if not line.reserved:
            return True
        room = self._room()
        # In a pool without anything to do there is nothing to reserve for: a reserve as large as
        # the pool (others may be down) must not lock the lower tiers out.
        return room.used <= freed or room.free + freed > line.reserved

    def _serve(self, line: TierLine[T], now: float, place: Place[T, H]) -> bool:
        """Place the first of this tier that can be; whether any could."""
        if not line.waiting or not self._is_open(line):
            return False
        return self._place_first(line, self._in_time(line, line.heads, now), line.tier, now, place)

    def _serve_senior(self, now: float, place: Place[T, H]) -> bool:
        """Place the senior that is due, if one is and can be."""
        due: list[tuple[float, int, Sequence[T]]] = []
        for line in self._lines:
            if line.passed >= _PASSED_MOST and line.waiting and line.in_flight < line.slots:
                seniors = self._in_time(line, line.seniors, now)
                if seniors:
                    since = seniors[0].standing.arrived + line.tier.handicap_s
                    due.append((since, line.place, seniors))
        due.sort(key=itemgetter(0, 1))
        top, lines = self._lines[0].tier, self._lines
        return any(self._place_first(lines[at], seniors, top, now, place) for _, at, seniors in due)

    def _place_first(
        self, line: TierLine[T], heads: Sequence[T], limits: Tier, now: float, place: Place[T, H]
    ) -> bool:
        if len(heads) > _MANY_LANES and self._room().free <= 0:
            return False
        for ticket in heads:
            held = place(ticket, limits)
            if held is not None:
                self._serve_one(line, ticket, held, now)
                return True
        return False

    def _in_time(
        self, line: TierLine[T], first: Callable[[float], Sequence[T]], now: float
    ) -> Sequence[T]:
        before = line.waiting
        heads = first(now)  # whose time has passed is out of the line then
        self.waiting -= before - line.waiting
        return heads

    def _serve_one(self, line: TierLine[T], ticket: T, held: H, now: float) -> None:
        line.served += 1
        line.waited_s += now - ticket.entered
        line.pace.served(now)
        self._remove(ticket, now)
        self._hold(line, held)
        self._pass_by(line)

    def _hold(self, line: TierLine[T], held: H) -> None:
        held.standing.placed = True
        line.in_flight += 1
        if line.tier.yields_s:
            self._held[held] = None

    def _remove(self, ticket: T, now: float) -> None:
        self._line(ticket.standing.tier).remove(ticket, now)
        self.waiting -= 1

    def _pass_by(self, line: TierLine[T]) -> None:
        """A place went to this tier, past those below."""
        line.passed = 0
        for below in self._lines[line.place + 1 :]:
            below.passed += 1

    def _refuse_or_pass(self, line: TierLine[T], ticket: T, now: float) -> None:
        if line.waiting >= line.tier.queue:
            line.full += 1
            why = (
                f"all replicas of model {self._model!r} are full and {line.waiting} requests wait "
                f"in tier {line.tier.name!r}"
            )
            raise self._busy(line, why, "full", ticket, now)
        patience_s = ticket.until - now
        wait_s = line.wait_s(ticket.order, now)
        if patience_s <= 0 or wait_s > patience_s:
            line.hopeless += 1
            why = (
                f"a replica of model {self._model!r} would have room in about {wait_s:.3g} s, and "
                f"the request can wait {max(0.0, patience_s):.3g} s"
            )
            raise self._busy(line, why, "hopeless", ticket, now)

    def _busy(
        self, line: TierLine[T], why: str, reason: BusyReason, ticket: T, now: float
    ) -> PoolBusy:
        retry_after_s = line.lets_in_after_s(_patience_s(line, ticket), now)
        if retry_after_s is None:
            retry_after_s = max(1, math.ceil(min(line.tier.queue_s, _UNMEASURED_RETRY_S)))
        return PoolBusy(why, retry_after_s, reason=reason, tier=line.tier.name)


def _patience_s(line: TierLine[T], ticket: Ticket) -> float:
    """How long it would wait if it came anew."""
    standing = ticket.standing
    if standing.deadline is None:
        return line.tier.queue_s
    return max(0.0, min(line.tier.queue_s, standing.deadline - standing.arrived))
