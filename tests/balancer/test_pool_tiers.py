"""Tiers through a pool: what its tasks see of the line."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from balancer.admission import BATCH, INTERACTIVE, Standing, Tier
from balancer.errors import ConnectFailed, PoolBusy, ReplicaRefused
from balancer.lease import Lease, ReclaimReason
from balancer.policies import UNKNOWN, Ask, LeastRequest
from balancer.policies.loaded import R
from balancer.pool import Pool
from balancer.replica import Replica
from balancer.wire.connect import Dialer
from tests.balancer.scripted import in_virtual_time

Clock = trio.testing.MockClock


class Prompt:
    """A request of which the length of its prompt is known."""

    output_tokens = None
    session = None
    run = None
    streams = True

    def __init__(self, tokens: int) -> None:
        self.prompt_tokens = tokens
        self.matches: Mapping[str, int] = {}

    def blocks(self, tokens: int) -> Sequence[int]:
        return ()


def pool_(limit: int | None = 1, tiers: Sequence[Tier] = (INTERACTIVE, BATCH)) -> Pool:
    replica = Replica("http://a", Dialer(), max_in_flight=limit, chance=lambda: 0.5)
    return Pool("m", [replica], LeastRequest(), tiers=tiers)


def standing(tier: str = "batch", deadline_s: float | None = None) -> Standing:
    now = trio.current_time()
    return Standing(tier, now, None if deadline_s is None else now + deadline_s)


@asynccontextmanager
async def waiting(pool: Pool, *tiers: str, tokens: int = 1) -> AsyncIterator[list[Lease]]:
    """A waiter of each of these tiers, in this order; the leases of those that were served."""
    served: list[Lease] = []

    async def wait(tier: str) -> None:
        served.append(await pool.lease((), Prompt(tokens), standing(tier)))

    async with trio.open_nursery() as nursery:
        for tier in tiers:
            nursery.start_soon(wait, tier)
            await trio.testing.wait_all_tasks_blocked()
        yield served
        nursery.cancel_scope.cancel()


def tiers_of(leases: list[Lease]) -> list[str]:
    return [lease.standing.tier for lease in leases]


def in_flight(pool: Pool) -> dict[str, int]:
    return {tier.tier: tier.in_flight for tier in pool.statistics().tiers}


async def test_the_higher_tier_is_served_first(autojump_clock: Clock) -> None:
    """A room that appears goes to it, though the other came before."""
    pool = pool_()
    held = await pool.lease()
    async with waiting(pool, "batch", "interactive") as served:
        for count in (1, 2):
            held.release()
            await trio.testing.wait_all_tasks_blocked()
            assert len(served) == count
            held = served[-1]
        assert tiers_of(served) == ["interactive", "batch"]
        held.release()
    assert in_flight(pool) == {"interactive": 0, "batch": 0}


async def test_a_first_event_makes_room_too(autojump_clock: Clock) -> None:
    """What a tier may send is bounded by what is yet to be read: reading it lets the next go."""
    pool = pool_(None)
    first = await pool.lease((), Prompt(5000), standing())
    async with waiting(pool, "batch", tokens=5000) as served:
        assert served == []
        first.answered()
        await trio.testing.wait_all_tasks_blocked()
        assert len(served) == 1
        served[0].release()
    first.release()


async def test_the_deadline_ends_the_wait(autojump_clock: Clock) -> None:
    """To the instant, and before `queue_s` does."""
    pool = pool_()
    with await pool.lease():
        with pytest.raises(PoolBusy, match="within 2 s, its deadline") as caught:
            await pool.lease((), Prompt(1), standing("interactive", 2.0))
        assert trio.current_time() == pytest.approx(2.0)
        assert caught.value.reason == "late"
    assert pool.statistics().waiting == 0


async def test_a_hopeless_wait_is_not_begun(autojump_clock: Clock) -> None:
    """Once the line's pace is known: refused at once, with the time to come back."""
    pool = pool_()
    held = await pool.lease()
    async with waiting(pool, *["interactive"] * 15) as served:
        for count in range(10):
            await trio.sleep(1)
            held.release()
            await trio.testing.wait_all_tasks_blocked()
            held = served[count]
        before = trio.current_time()
        with pytest.raises(PoolBusy) as caught:
            await pool.lease((), Prompt(1), Standing("interactive", before, before + 0.5))
        assert (trio.current_time(), caught.value.reason) == (before, "hopeless")
        assert caught.value.retry_after_s == pytest.approx(1.0)
        held.release()


async def test_batch_makes_room_for_interactive(autojump_clock: Clock) -> None:
    """One that has sent nothing is reclaimed, and its place is taken before anybody else asks."""
    pool = pool_()
    reclaimed: list[ReclaimReason] = []
    victim = await pool.lease((), Prompt(1), standing())
    victim.on_reclaim = reclaimed.append
    lease = await pool.lease((), Prompt(1), standing("interactive"))
    assert reclaimed == ["put_back"]
    assert in_flight(pool) == {"interactive": 1, "batch": 0}
    victim.release()
    assert victim.standing.put_backs == 1
    async with waiting(pool, "batch") as served:
        again = standing()
        again.arrived, again.put_backs = victim.standing.arrived, 1
        with trio.move_on_after(1):
            await pool.lease((), Prompt(1), again)
        lease.release()
        await trio.testing.wait_all_tasks_blocked()
        served[0].release()
    assert in_flight(pool) == {"interactive": 0, "batch": 0}


async def test_a_place_is_looked_for_before_a_refusal(autojump_clock: Clock) -> None:
    """Where nobody may wait: what a batch request has is enough."""
    pool = pool_(tiers=(replace(INTERACTIVE, queue=0), BATCH))
    victim = await pool.lease((), Prompt(1), standing())
    victim.on_reclaim = lambda _: None
    with await pool.lease((), Prompt(1), standing("interactive")) as lease:
        assert lease.standing.tier == "interactive"
    assert victim.standing.put_backs == 1


@pytest.mark.parametrize("why", ["tried", "draining", "too full", "deaf", "failed"])
async def test_nobody_is_put_back_in_vain(why: str, autojump_clock: Clock) -> None:
    """Only if that makes room for the one who waits."""
    replica = Replica("http://a", Dialer(), max_in_flight=2, chance=lambda: 0.5)
    other = Replica("http://b", Dialer(), max_in_flight=1, chance=lambda: 0.5)
    pool = Pool("m", [replica, other], LeastRequest(), tiers=(INTERACTIVE, BATCH))
    taken = pool.lease_nowait([replica])
    victims = [pool.lease_nowait([other], standing=standing()) for _ in range(2)]
    assert taken is not None
    for victim in victims:
        assert victim is not None
        victim.on_reclaim = lambda _: pytest.fail(why) if why != "deaf" else None
        if why == "deaf":
            victim.on_reclaim = None
        if why == "failed":
            victim.failed(ReplicaRefused("a", 400, [], b""))
    if why == "draining":
        replica.drain()
    if why == "too full":
        replica.max_in_flight = 1
    tried = [replica] if why == "tried" else []
    with trio.move_on_after(1):
        await pool.lease(tried, Prompt(1), standing("interactive"))
    assert [victim.standing.put_backs for victim in victims if victim] == [0, 0]
    for lease in (taken, *victims):
        assert lease is not None
        lease.release()


async def test_an_abandoned_trial_is_given_back(autojump_clock: Clock) -> None:
    """It said nothing of the replica: the next request may try it out."""
    replicas = [Replica(f"http://{name}", Dialer(), chance=lambda: 0.5) for name in "ab"]
    pool = Pool("m", replicas, LeastRequest())
    with await pool.lease() as lease:
        lease.failed(ConnectFailed("a", "refused"))
    await trio.sleep(1)
    for _ in range(3):
        with await pool.lease() as first, await pool.lease() as second:
            assert {first.trial, second.trial} == {True, False}


async def test_an_abandoned_trial_leaves_true_books(autojump_clock: Clock) -> None:
    """Whoever is told of the room that it leaves finds it gone."""
    pool = pool_()
    replica = pool.replicas[0]
    (await pool.lease()).failed(ConnectFailed("a", "refused"))
    (lease,) = replica.unanswered
    assert isinstance(lease, Lease)
    lease.release()
    await trio.sleep(1)
    trial = await pool.lease()
    assert trial.trial
    seen: list[tuple[int, int]] = []

    class Watches(LeastRequest):
        def pick(self, candidates: Sequence[R], ask: Ask = UNKNOWN) -> R:
            seen.append((replica.in_flight, in_flight(pool)["interactive"]))
            return super().pick(candidates, ask)

    pool.policy = Watches()
    async with waiting(pool, "interactive") as served:
        assert served == []
        trial.release()
        await trio.testing.wait_all_tasks_blocked()
        assert seen == [(0, 0)]
        assert served[0].trial
        served[0].release()


async def test_one_that_has_sent_something_keeps_its_place(autojump_clock: Clock) -> None:
    """Its client has begun to read."""
    pool = pool_()
    held = await pool.lease((), Prompt(1), standing())
    held.on_reclaim = lambda reason: pytest.fail(reason)
    held.answered()
    async with waiting(pool, "interactive") as served:
        assert served == []
        held.release()
        await trio.testing.wait_all_tasks_blocked()
        served[0].release()


class Life:
    """One task of the property below."""

    def __init__(self, drawn: tuple[int, bool, int | None, int, int | None, int]) -> None:
        comes_s, batch, self.patience_s, self.holds_s, self.deadline_s, self.answers_s = drawn
        self.comes_s = comes_s
        self.tier = "batch" if batch else "interactive"


_life = st.tuples(
    st.integers(0, 4),
    st.booleans(),
    st.none() | st.integers(0, 4),
    st.integers(0, 4),
    st.none() | st.integers(1, 5),
    st.integers(0, 4),
).map(Life)


@given(st.lists(_life, max_size=25), st.integers(1, 3), st.none() | st.integers(1, 2))
@settings(max_examples=80, deadline=None)
def test_any_interleaving_keeps_the_books(lives: list[Life], limit: int, slots: int | None) -> None:
    """Tasks of both tiers come, wait, are put back, answer, give up and end at the same instants.

    No limit is passed, nobody stays in line beside room, and at the end nothing is left.
    """

    async def body() -> None:
        batch = replace(BATCH, slots=slots, queue=5, max_requests=2)
        pool = pool_(limit, (replace(INTERACTIVE, reserve=1), batch))

        async def live(life: Life) -> None:
            await trio.sleep(life.comes_s)
            own = standing(life.tier, life.deadline_s)
            patience = life.patience_s
            with trio.move_on_after(float("inf") if patience is None else patience):
                try:
                    while await served(life, own):
                        pass
                except PoolBusy:
                    return

        async def served(life: Life, own: Standing) -> bool:
            """Whether it was put back."""
            with await pool.lease((), Prompt(1), own) as lease:
                check()
                with trio.CancelScope() as attempt:
                    lease.on_reclaim = attempt.cancel
                    await trio.sleep(life.answers_s)
                    lease.answered()
                    await trio.sleep(life.holds_s)
            return attempt.cancelled_caught

        def check() -> None:
            counted = in_flight(pool)
            assert counted["batch"] <= (slots or limit)
            assert sum(counted.values()) == pool.replicas[0].in_flight <= limit

        async with trio.open_nursery() as nursery:
            for life in lives:
                nursery.start_soon(live, life)
        for tier in pool.statistics().tiers:
            assert (tier.in_flight, tier.waiting) == (0, 0)
        assert pool.replicas[0].in_flight == 0

    in_virtual_time(body)
