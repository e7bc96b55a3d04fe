"""What holds of the line whatever comes, goes, fails or is put back, in whatever order."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from balancer.admission import BATCH, INTERACTIVE, Tier
from balancer.errors import PoolBusy
from tests.balancer.admission.desk import Desk, Lease, Request

_TIERS = ("interactive", "standard", "batch")
_HANDICAPS = {"interactive": 0.0, "standard": 5.0, "batch": 10.0}


@st.composite
def tiers_(draw: st.DrawFn) -> list[Tier]:
    """One to three of them, each with any of the limits."""
    names = draw(st.lists(st.sampled_from(_TIERS), min_size=1, unique=True))
    few = st.none() | st.integers(1, 3)
    return [
        Tier(
            name=name,
            rank=_TIERS.index(name),
            slots=draw(few),
            reserve=draw(st.integers(0, 2)),
            queue=draw(st.integers(0, 5)),
            queue_s=draw(st.sampled_from([3.0, 40.0])),
            handicap_s=_HANDICAPS[name],
            preempts=draw(st.booleans()),
            yields_s=draw(st.sampled_from([0.0, 2.0])),
            max_unread_tokens=draw(st.none() | st.integers(50, 300)),
            max_kv_share=draw(st.none() | st.just(0.5)),
            max_requests=draw(few),
        )
        for name in names
    ]


class WatchedDesk(Desk):
    """Checks each place at the moment it is given."""

    def __init__(self, tiers: list[Tier], limits: list[int]) -> None:
        super().__init__(tiers, limits)
        self.passed = dict.fromkeys(self.tiers, 0)
        self.waiters: list[Request] = []
        self.taken = dict.fromkeys(self.tiers, 0)

    @property
    def waiting(self) -> list[Request]:
        """Those whom a place may still go to."""
        return [one for one in self.waiters if one.waits and one.until > self.now]

    def rank(self, request: Request) -> int:
        return self.tiers[request.standing.tier].rank

    def is_open(self, tier: Tier) -> bool:
        """By the letter of what `slots` and `reserve` mean."""
        reserve = max((t.reserve for t in self.tiers.values() if t.rank < tier.rank), default=0)
        room = self.room()
        kept = not reserve or room.used == 0 or room.free - 1 >= reserve
        return self.taken[tier.name] < (tier.slots or math.inf) and kept

    def serve(self, request: Request, tier: Tier) -> Lease | None:
        own = self.tiers[request.standing.tier]
        assert self.taken[own.name] < (own.slots or math.inf)
        senior = tier is not own
        if not senior:
            assert self.is_open(own)
        ahead = self._ahead(request, None if not senior else tier)
        lease = super().serve(request, tier)
        if lease is not None:
            assert not ahead
            if senior:
                self._check_turn(request)
            self._count(own)
        return lease

    def release(self, request: Request) -> None:
        self.taken[request.standing.tier] -= 1
        super().release(request)

    def _ahead(self, request: Request, as_tier: Tier | None) -> bool:
        """Whether somebody with a better claim could have the place.

        A senior goes before all other tiers, by the limits of `as_tier`.
        """
        for one in self.waiting:
            limits = as_tier or self.tiers[one.standing.tier]
            if one.standing.tier == request.standing.tier:
                better = not request.waits or one.order < request.order
            else:
                better = as_tier is None and self.rank(one) < self.rank(request)
            open_ = as_tier is not None or self.is_open(limits)
            if one is not request and better and open_ and self.placeable(one, limits):
                return True
        return False

    def _check_turn(self, request: Request) -> None:
        name = request.standing.tier
        assert self.passed[name] >= 7
        oldest = min(one.standing.arrived for one in self.waiting if one.standing.tier == name)
        assert oldest + self.tiers[name].handicap_s <= self.now

    def _count(self, tier: Tier) -> None:
        self.taken[tier.name] += 1
        self.passed[tier.name] = 0
        for below in self.tiers.values():
            if below.rank > tier.rank:
                self.passed[below.name] += 1


class LineMachine(RuleBasedStateMachine):
    """Requests that come, wait, are answered, end, give up and are put back."""

    @initialize(tiers=tiers_(), limits=st.lists(st.integers(0, 3), min_size=1, max_size=3))
    def open(self, tiers: list[Tier], limits: list[int]) -> None:
        self.desk = WatchedDesk(tiers, limits)
        self.requests: list[Request] = []
        self.put_backs = 0

    @rule(
        tier=st.integers(0, 2),
        deadline_s=st.none() | st.sampled_from([0.0, 1.0, 20.0]),
        tried=st.frozensets(st.integers(0, 2), max_size=1),
        tokens=st.integers(1, 200),
    )
    def come(self, tier: int, deadline_s: float | None, tried: frozenset[int], tokens: int) -> None:
        desk = self.desk
        name = list(desk.tiers)[tier % len(desk.tiers)]
        desk.hand_out()
        waiting, pace = desk.tier(name).waiting, desk.tier(name).places_per_s
        try:
            request = desk.ask(name, deadline_s=deadline_s, tried=tried, tokens=tokens)
        except PoolBusy as busy:
            self._check_refusal(busy, waiting, pace, deadline_s)
            return
        self.requests.append(request)
        if request.waits:
            assert waiting < desk.tiers[name].queue
            desk.waiters.append(request)
            self._put_one_back(request)

    def _check_refusal(
        self, busy: PoolBusy, waiting: int, pace: float | None, deadline_s: float | None
    ) -> None:
        assert busy.tier is not None
        tier = self.desk.tiers[busy.tier]
        assert busy.retry_after_s > 0
        if busy.reason == "full":
            assert waiting >= tier.queue
        else:
            assert busy.reason == "hopeless"
            patience_s = min(tier.queue_s, math.inf if deadline_s is None else deadline_s)
            assert patience_s == 0 or (pace and (waiting + 1) / pace > patience_s)

    def _put_one_back(self, request: Request) -> None:
        desk = self.desk
        loser = desk.put_one_back(request)
        if loser is None:
            return
        self.put_backs += 1
        assert desk.rank(loser) > desk.rank(request)
        assert 1 <= loser.standing.put_backs <= 2
        desk.ask_again(loser)
        if loser.waits:
            desk.waiters.append(loser)

    @precondition(lambda self: self.desk.order)
    @rule(which=st.integers(0, 50))
    def answer(self, which: int) -> None:
        leased = [one for one in self.requests if one.lease and not one.lease.answered]
        if leased:
            self.desk.answer(leased[which % len(leased)])

    @precondition(lambda self: self.desk.order)
    @rule(which=st.integers(0, 50))
    def end(self, which: int) -> None:
        leased = [one for one in self.requests if one.lease]
        if leased:
            self.desk.release(leased[which % len(leased)])

    @precondition(lambda self: self.desk.waiters)
    @rule(which=st.integers(0, 50))
    def give_up(self, which: int) -> None:
        waiting = [one for one in self.requests if one.waits]
        if waiting:
            self.desk.leave(waiting[which % len(waiting)])

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.desk.pass_s(seconds)
        for one in self.requests:
            if one.waits and one.until <= self.desk.now:
                assert self.desk.line.late(one, self.desk.now).reason == "late"
        self.desk.hand_out()

    @rule(
        which=st.integers(0, 2),
        limit=st.integers(0, 3),
        kv_share=st.none() | st.sampled_from([0.4, 0.5]),
    )
    def replica_changes(self, which: int, limit: int, kv_share: float | None) -> None:
        replica = self.desk.replicas[which % len(self.desk.replicas)]
        replica.limit, replica.kv_share = limit, kv_share
        self.desk.hand_out()

    @invariant()
    def the_books_are_true(self) -> None:
        """What is counted is what there is."""
        for name, tier in self.desk.tiers.items():
            counted = self.desk.tier(name)
            own = [one for one in self.requests if one.standing.tier == name]
            assert counted.in_flight == sum(one.lease is not None for one in own)
            assert counted.waiting == sum(one.waits for one in own)
            assert counted.in_flight <= (tier.slots or math.inf)
            assert counted.waiting <= tier.queue + self.put_backs
        assert self.desk.line.waiting == sum(one.waits for one in self.requests)
        assert all(one.lease is None for one in self.requests if one.waits)

    @invariant()
    def no_place_is_idle(self) -> None:
        """Nobody waits whom slots, reserve, caps and replicas would let go."""
        for one in self.desk.waiting:
            tier = self.desk.tiers[one.standing.tier]
            assert not (self.desk.is_open(tier) and self.desk.placeable(one, tier))

    def teardown(self) -> None:
        if not hasattr(self, "desk"):
            return
        desk = self.desk
        for request in self.requests:
            if request.waits:
                desk.line.leave(request, desk.now)
        for request in self.requests:
            if request.lease is not None:
                desk.release(request)
        for name in desk.tiers:
            assert (desk.tier(name).in_flight, desk.tier(name).waiting) == (0, 0)
        assert (desk.line.waiting, desk.room().used) == (0, 0)
        assert all(replica.unread_tokens == 0 for replica in desk.replicas)


def test_whatever_happens() -> None:
    """The machine above."""
    run_state_machine_as_test(
        LineMachine, settings=settings(max_examples=120, stateful_step_count=40, deadline=None)
    )


@given(
    slots=st.integers(1, 4),
    reserve=st.integers(0, 4),
    ahead=st.integers(0, 5),
    others=st.lists(st.sampled_from([0, 1, 1, 2]), min_size=40, max_size=40),
)
@settings(max_examples=60, deadline=None)
def test_nobody_starves(slots: int, reserve: int, ahead: int, others: list[int]) -> None:
    """However many of a higher tier come, waiting or not: after its handicap a batch request is
    behind at most eight places for itself and each that is ahead of it.
    """
    top = replace(INTERACTIVE, reserve=reserve, queue_s=1e6, queue=10_000)
    batch = replace(BATCH, handicap_s=20.0, queue_s=1e6, max_requests=1)
    desk = Desk((top, batch), limits=[slots])
    desk.asks(slots)
    waiting = desk.asks(ahead + 1, "batch")
    desk.pass_s(20.0)
    seen = len(desk.order)
    for number in range(10_000):
        desk.asks(max(others[number % 40], not desk.line.waiting))
        leased = [one for one in desk.order if one.lease]
        if leased:
            desk.release(leased[0])
        if waiting[-1].lease is not None or waiting[-1] in desk.order:
            break
    assert len(desk.order) - seen <= 8 * (ahead + 1) + slots


@pytest.mark.parametrize("reserve", [0, 1])
def test_a_backlog_does_not_reach_those_above(reserve: int) -> None:
    """Twice what the pool can do comes as batch, for an hour, so that all that wait are seniors;
    interactive, one request in five, waits for a place or two as in the first minute.
    """
    top = replace(INTERACTIVE, reserve=reserve)
    batch = replace(BATCH, queue=1000, queue_s=1e6, max_unread_tokens=None)
    desk = Desk((top, batch), limits=[5])
    asked: list[Request] = []
    for second in range(3600):
        desk.now = float(second)
        for tier in ("batch", "batch", *(("interactive",) if second % 5 == 0 else ())):
            try:
                request = desk.ask(tier)
            except PoolBusy:
                assert tier == "batch"
                continue
            if tier == "interactive":
                asked.append(request)
        leased = [one for one in desk.order[-10:] if one.lease]
        if len(leased) >= 5 - reserve:
            desk.release(leased[0])
    served = set(map(id, desk.order))
    assert all(id(request) in served for request in asked[:-1])
    assert desk.tier().waited_s / len(asked) <= 1.0
    assert desk.tier("batch").in_flight >= 1
