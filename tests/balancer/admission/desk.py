"""A pool as small as can be, for tests of the line in front of it: no tasks, a clock by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from balancer.admission import TIERS, Line, Room, Standing, Ticket, Tier, TierStatistics


@dataclass(eq=False)
class Place:
    """One replica."""

    limit: int = 1
    in_flight: int = 0
    unread_tokens: int = 0
    kv_share: float | None = None

    def fits(self, tier: Tier) -> bool:
        return self.in_flight < self.limit and tier.fits(
            self.in_flight, self.unread_tokens, self.kv_share
        )


@dataclass(eq=False)
class Request(Ticket):
    """One request, waiting or not: `lease` says."""

    standing: Standing
    tried: frozenset[int] = frozenset()
    tokens: int = 100
    lease: Lease | None = None

    def __post_init__(self) -> None:
        super().__init__(self.standing, self.tried)


@dataclass(eq=False)
class Lease:
    """A request on its replica."""

    request: Request
    replica: Place
    leased_at: float
    answered: bool = False
    standing: Standing = field(init=False)

    def __post_init__(self) -> None:
        self.standing = self.request.standing


class Desk:
    """Replicas of these limits behind a line."""

    def __init__(self, tiers: Sequence[Tier] = TIERS, limits: Sequence[int] = (1,)) -> None:
        self.tiers = {tier.name: tier for tier in tiers}
        self.replicas = [Place(limit) for limit in limits]
        self.line: Line[Request, Lease] = Line("m", tiers, self.room)
        self.now = 0.0
        self.order: list[Request] = []
        """Who got a replica, in the order of it."""

    def room(self) -> Room:
        used = sum(replica.in_flight for replica in self.replicas)
        return Room(used, sum(replica.limit for replica in self.replicas) - used)

    def ask(
        self,
        tier: str = "interactive",
        *,
        deadline_s: float | None = None,
        tried: frozenset[int] = frozenset(),
        tokens: int = 100,
    ) -> Request:
        """A request comes now. Raises PoolBusy if it may not even wait."""
        deadline = None if deadline_s is None else self.now + deadline_s
        return self.ask_again(Request(Standing(tier, self.now, deadline), tried, tokens))

    def ask_again(self, request: Request) -> Request:
        """The same for one that was here before."""
        self.hand_out()
        tier = self.line.tier(request.standing.tier)
        lease = self.serve(request, tier) if self.line.may_take(tier.name) else None
        if lease is not None:
            self.line.took(lease)
        else:
            self.line.enter(request, self.now)
        return request

    def asks(self, count: int, tier: str = "interactive") -> list[Request]:
        return [self.ask(tier) for _ in range(count)]

    def hand_out(self) -> None:
        self.line.hand_out(self.now, self.serve)

    def placeable(self, request: Request, tier: Tier) -> list[Place]:
        return [
            replica
            for number, replica in enumerate(self.replicas)
            if number not in request.tried and replica.fits(tier)
        ]

    def serve(self, request: Request, tier: Tier) -> Lease | None:
        fitting = self.placeable(request, tier)
        if not fitting:
            return None
        replica = min(fitting, key=lambda one: one.in_flight)
        replica.in_flight += 1
        replica.unread_tokens += request.tokens
        request.lease = Lease(request, replica, self.now)
        self.order.append(request)
        return request.lease

    def answer(self, request: Request) -> None:
        lease = request.lease
        assert lease is not None
        self._read(lease)
        self.line.answered(lease)
        self.hand_out()

    def release(self, request: Request) -> None:
        """The request is over, or its lease is taken from it."""
        lease, request.lease = request.lease, None
        assert lease is not None
        self._read(lease)
        lease.replica.in_flight -= 1
        self.line.released(lease)
        self.hand_out()

    def put_one_back(self, request: Request) -> Request | None:
        """As the pool does for one that has to wait; who was put back, if anybody."""

        def makes_room(lease: Lease) -> bool:
            replica = lease.replica
            left = Place(
                replica.limit, replica.in_flight - 1, replica.unread_tokens, replica.kv_share
            )
            number = self.replicas.index(replica)
            return number not in request.tried and left.fits(self.tiers[request.standing.tier])

        lease = self.line.victim(request, self.now, makes_room)
        if lease is None:
            return None
        self.release(lease.request)
        return lease.request

    def leave(self, request: Request) -> None:
        self.line.leave(request, self.now)
        self.hand_out()

    def pass_s(self, seconds: float) -> None:
        self.now += seconds

    def tier(self, name: str = "interactive") -> TierStatistics:
        """What the line says of it."""
        return {one.tier: one for one in self.line.statistics(self.now)}[name]

    def _read(self, lease: Lease) -> None:
        if not lease.answered:
            lease.answered = True
            lease.replica.unread_tokens -= lease.request.tokens
