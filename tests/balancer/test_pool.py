"""Leases, and the line in front of the replicas: in order, bounded, and nothing is ever lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.admission import Tier
from balancer.errors import ConnectFailed, PoolBusy
from balancer.lease import Lease
from balancer.policies import LeastRequest
from balancer.pool import Pool, PoolStatistics
from balancer.readings import GpuReading
from balancer.replica import Replica
from balancer.wire.connect import Dialer
from tests.balancer.made import Request
from tests.balancer.scripted import in_virtual_time


def replica_(name: str, limit: int | None = 1) -> Replica:
    return Replica(f"http://{name}", Dialer(), max_in_flight=limit, chance=lambda: 0.5)


def pool_(*replicas: Replica, queue: int = 100, queue_s: float = 30.0) -> Pool:
    tier = Tier(name="interactive", rank=0, queue=queue, queue_s=queue_s)
    return Pool("m", replicas, LeastRequest(), tiers=[tier])


async def used(pool: Pool, *tried: Replica) -> set[Replica]:
    """The replicas that four requests, one after the other, get."""
    replicas = set()
    for _ in range(4):
        with await pool.lease(tried) as lease:
            replicas.add(lease.replica)
    return replicas


async def refuse(replica: Replica) -> None:
    """A connection to it cannot be made: it rests for half a second."""
    pool = pool_(replica)
    with await pool.lease() as lease:
        lease.failed(ConnectFailed(replica.name, "refused"))
    pool.retire()


def in_flight(*replicas: Replica) -> list[int]:
    return [replica.in_flight for replica in replicas]


@asynccontextmanager
async def waiting(pool: Pool, *tried: Sequence[Replica]) -> AsyncIterator[list[tuple[int, Lease]]]:
    """One waiter for each `tried`, in this order; notes who was served, and cancels the rest."""
    served: list[tuple[int, Lease]] = []

    async def wait(number: int, tried_: Sequence[Replica]) -> None:
        served.append((number, await pool.lease(tried_)))

    async with trio.open_nursery() as nursery:
        for number, tried_ in enumerate(tried):
            nursery.start_soon(wait, number, tried_)
            await trio.testing.wait_all_tasks_blocked()
        yield served
        nursery.cancel_scope.cancel()


async def test_lease_is_counted_until_released() -> None:
    """`in_flight` goes up with the lease and down with its end, however often that is told."""
    a = replica_("a")
    lease = await pool_(a).lease()
    assert (lease.replica, a.in_flight, a.requests) == (a, 1, 1)
    with lease:
        lease.release()
        assert a.in_flight == 0
    assert a.in_flight == 0


async def test_exception_releases() -> None:
    """A lease ends with its block, whatever ends that."""
    a = replica_("a")
    with pytest.raises(ZeroDivisionError), await pool_(a).lease():
        raise ZeroDivisionError
    assert a.in_flight == 0


async def test_first_come_first_served(autojump_clock: trio.testing.MockClock) -> None:
    """Each release serves one, in the order of their coming."""
    a = replica_("a")
    pool = pool_(a)
    held = await pool.lease()
    async with waiting(pool, (), (), ()) as served:
        for count in range(3):
            assert pool.statistics()._replace(tiers=()) == PoolStatistics("m", 1, 1, 1, 3 - count)
            held.release()
            await trio.testing.wait_all_tasks_blocked()
            assert [number for number, _ in served] == list(range(count + 1))
            held = served[-1][1]
    held.release()
    assert pool.statistics()._replace(tiers=()) == PoolStatistics("m", 1, 1, 0, 0)


async def test_a_newcomer_does_not_overtake(autojump_clock: trio.testing.MockClock) -> None:
    """Room that appears belongs to who waits, also when a newcomer asks in the same instant."""
    a = replica_("a")
    pool = pool_(a)
    held = await pool.lease()
    async with waiting(pool, ()) as served:
        held.release()
        assert pool.lease_nowait() is None
        with trio.move_on_after(1) as scope:
            await pool.lease()
        assert scope.cancelled_caught
        assert [number for number, _ in served] == [0]


async def test_a_cancelled_waiter_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    """Who leaves the line holds nothing, and those behind move up."""
    a = replica_("a")
    pool = pool_(a)
    held = await pool.lease()
    with trio.move_on_after(1) as scope:
        await pool.lease()
    assert scope.cancelled_caught
    assert pool.statistics().waiting == 0
    async with waiting(pool, ()) as served:
        held.release()
        await trio.testing.wait_all_tasks_blocked()
        served[0][1].release()
    assert a.in_flight == 0


async def test_cancelled_between_wake_and_run(autojump_clock: trio.testing.MockClock) -> None:
    """The place is charged when the waiter is woken; a cancellation then does not lose it."""
    a = replica_("a")
    pool = pool_(a)
    held = await pool.lease()
    outcomes = []

    async def wait(scope: trio.CancelScope) -> None:
        with scope, await pool.lease() as lease:
            outcomes.append(lease.replica)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(wait, scope)
        await trio.testing.wait_all_tasks_blocked()
        held.release()
        assert a.in_flight == 1
        scope.cancel()
    assert (outcomes, a.in_flight) == ([a], 0)


async def test_room_between_cancel_and_run(autojump_clock: trio.testing.MockClock) -> None:
    """The other way round: room that meets a waiter already cancelled goes to the next."""
    a = replica_("a")
    pool = pool_(a)
    held = await pool.lease()
    scope = trio.CancelScope()

    async def wait() -> None:
        with scope, await pool.lease():
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        async with waiting(pool, ()) as served:
            scope.cancel()
            held.release()
            await trio.testing.wait_all_tasks_blocked()
            assert [number for number, _ in served] == [0]
            served[0][1].release()
    assert pool.statistics()._replace(tiers=()) == PoolStatistics("m", 1, 1, 0, 0)


async def test_queue_full_is_refused_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """The line has an end; who finds it full is told when to come again."""
    a = replica_("a")
    pool = pool_(a, queue=1)
    with await pool.lease():
        async with waiting(pool, ()):
            with pytest.raises(PoolBusy, match="'m' are full and 1 requests wait") as caught:
                await pool.lease()
            assert trio.current_time() == 0
            assert caught.value.retry_after_s == 5
    assert pool.statistics().waiting == 0


async def test_no_queue(autojump_clock: trio.testing.MockClock) -> None:
    """`queue = 0` means: never wait."""
    pool = pool_(replica_("a"), queue=0)
    with await pool.lease(), pytest.raises(PoolBusy):
        await pool.lease()


async def test_queue_s(autojump_clock: trio.testing.MockClock) -> None:
    """Nobody waits longer than that, to the instant."""
    pool = pool_(replica_("a"), queue_s=2.5)
    with await pool.lease():
        with pytest.raises(PoolBusy, match=r"no replica of model 'm' had room within 2.5 s") as e:
            await pool.lease()
        assert trio.current_time() == pytest.approx(2.5)
        assert e.value.retry_after_s == 3
    assert pool.statistics()._replace(tiers=()) == PoolStatistics("m", 1, 1, 0, 0)


async def test_a_shared_replica_serves_both_pools(autojump_clock: trio.testing.MockClock) -> None:
    """Room made by one pool's request wakes another pool's waiter; the two take turns."""
    a = replica_("a")
    one, other = pool_(a), pool_(a)
    held = await one.lease()
    order = []

    async def wait(name: str, pool: Pool) -> None:
        with await pool.lease():
            order.append(name)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for name, pool in (("one", one), ("other", other)):
            for _ in range(3):
                nursery.start_soon(wait, name, pool)
        await trio.testing.wait_all_tasks_blocked()
        held.release()
    assert sorted(order[:2]) == sorted(order[2:4]) == sorted(order[4:]) == ["one", "other"]
    assert a.in_flight == 0


async def test_tried_ones_are_left_out_while_others_are_up() -> None:
    """A retry goes elsewhere; where there is no elsewhere it goes to the same."""
    a, b = replica_("a", None), replica_("b", None)
    pool = pool_(a, b)
    assert await used(pool, a) == {b}
    assert await used(pool, a, b) == {a, b}
    await refuse(b)
    assert await used(pool, a) == {a}


async def test_a_waiter_that_wants_another_replica_blocks_nobody(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A retry waits for the replicas it has not tried; those behind it may have the others."""
    a, b = replica_("a"), replica_("b")
    pool = pool_(a, b)
    first, second = await pool.lease(), await pool.lease()
    assert (first.replica, second.replica) == (a, b)
    async with waiting(pool, [a], (), [a]) as served:
        first.release()
        await trio.testing.wait_all_tasks_blocked()
        assert [(number, lease.replica) for number, lease in served] == [(1, a)]
        served[0][1].release()
        newcomer = pool.lease_nowait()
        assert newcomer is not None
        assert newcomer.replica is a
        second.release()
        await trio.testing.wait_all_tasks_blocked()
        assert [(number, lease.replica) for number, lease in served[1:]] == [(0, b)]


async def test_all_down_tries_anyway() -> None:
    """Trying beats refusing: with nothing up, everything is eligible."""
    a, b = replica_("a", None), replica_("b", None)
    pool = pool_(a, b)
    a.probed(False, trio.current_time())
    assert await used(pool) == {b}
    b.probed(False, trio.current_time())
    assert await used(pool) == {a, b}
    assert await used(pool, a) == {b}


async def test_resting_and_coming_back(autojump_clock: trio.testing.MockClock) -> None:
    """A replica that refused is left out for a while, then taken again."""
    a, b = replica_("a", None), replica_("b", None)
    pool = pool_(a, b)
    await refuse(a)
    assert await used(pool) == {b}
    await trio.sleep(0.5)
    assert await used(pool) == {a, b}


async def test_who_waits_learns_that_a_rest_is_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Nothing happens at that moment but time passing; the first in line is served then."""
    a, b = replica_("a"), replica_("b")
    pool = pool_(a, b)
    await refuse(a)
    with await pool.lease() as held:
        assert held.replica is b
        async with waiting(pool, (), ()) as served:
            await trio.sleep(0.6)
            assert [(number, lease.replica) for number, lease in served] == [(0, a)]
            assert pool.statistics().waiting == 1


async def test_a_newcomer_does_not_overtake_when_a_rest_is_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Also if it asks before anybody had the time to notice."""
    a, b = replica_("a"), replica_("b")
    pool = pool_(a, b)
    await refuse(a)
    with await pool.lease():
        async with waiting(pool, ()) as served:
            autojump_clock.jump(0.6)
            assert pool.lease_nowait() is None
            await trio.testing.wait_all_tasks_blocked()
            assert [lease.replica for _, lease in served] == [a]


async def test_who_waits_learns_that_a_replica_is_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A probe that finds a replica up serves the line."""
    a, b = replica_("a"), replica_("b")
    pool = pool_(a, b)
    a.probed(False, trio.current_time())
    with await pool.lease():
        async with waiting(pool, ()) as served:
            a.probed(True, trio.current_time())
            await trio.testing.wait_all_tasks_blocked()
            assert [lease.replica for _, lease in served] == [a]


async def test_retire_lets_go_at_once() -> None:
    """A replaced pool nobody waits in leaves no trace on its replicas."""
    a = replica_("a")
    pool = pool_(a)
    assert len(a.listeners) == 1
    pool.retire()
    assert a.listeners == []


@pytest.mark.parametrize("leaves", [False, True])
async def test_retire_serves_who_waits(
    leaves: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """Who waits in a replaced pool is still served (or leaves); then it lets go."""
    a = replica_("a")
    pool = pool_(a, queue_s=9)
    held = await pool.lease()
    async with waiting(pool, ()) as served:
        pool.retire()
        assert len(a.listeners) == 1
        if not leaves:
            held.release()
            await trio.testing.wait_all_tasks_blocked()
            assert len(served) == 1
    assert a.listeners == []


async def test_a_retired_pool_can_still_be_waited_in(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A request that was on its way during a reload, or retries after it, is served as any."""
    a = replica_("a")
    pool = pool_(a)
    held = await pool.lease()
    pool.retire()
    async with waiting(pool, ()) as served:
        held.release()
        await trio.testing.wait_all_tasks_blocked()
        assert len(served) == 1
    assert a.listeners == []


class Life:
    """What one task does in the property test: comes, asks, holds; or gives up before."""

    def __init__(self, drawn: tuple[int, int, int | None, int, int]) -> None:
        self.comes_s, self.holds_s, self.patience_s, self.pool, self.tried = drawn


_life = st.tuples(
    st.integers(0, 4),
    st.integers(0, 4),
    st.none() | st.integers(0, 4),
    st.integers(0, 1),
    st.integers(0, 3),
).map(Life)


@given(
    st.lists(_life, max_size=25),
    st.lists(st.integers(1, 2), min_size=3, max_size=3),
    st.integers(0, 6),
)
@settings(max_examples=80)
def test_any_interleaving_keeps_the_limits(
    lives: list[Life], limits: list[int], queue: int
) -> None:
    """Two pools share a replica; tasks come, wait, give up and release at the same instants.

    No replica is ever above its limit, nobody stays in line beside a replica it could have, and
    at the end nothing is leased and nobody waits.
    """

    async def body() -> None:
        replicas = [replica_(str(number), limit) for number, limit in enumerate(limits)]
        pools = [pool_(*replicas[:2], queue=queue), pool_(*replicas[1:], queue=queue)]

        async def live(life: Life) -> None:
            pool = pools[life.pool]
            tried = [r for at, r in enumerate(pool.replicas) if life.tried >> at & 1]
            await trio.sleep(life.comes_s)
            patience = life.patience_s
            with trio.move_on_after(float("inf") if patience is None else patience):
                try:
                    lease = await pool.lease(tried)
                except PoolBusy:
                    return
                with lease:
                    check()
                    assert len(tried) == 2 or lease.replica not in tried
                    await trio.sleep(life.holds_s)

        def check() -> None:
            assert all(r.in_flight <= (r.max_in_flight or 0) for r in replicas)
            assert all(pool.statistics().waiting <= queue for pool in pools)

        async with trio.open_nursery() as nursery:
            for life in lives:
                nursery.start_soon(live, life)
        assert in_flight(*replicas) == [0, 0, 0]
        assert [pool.statistics().waiting for pool in pools] == [0, 0]
        for pool in pools:
            pool.retire()
        assert [replica.listeners for replica in replicas] == [[], [], []]
        # The last possible holder left at 8 s: nobody sat out `queue_s` beside a free replica.
        assert trio.current_time() < 30

    in_virtual_time(body)


async def test_a_draining_replica_gets_nothing_new(autojump_clock: trio.testing.MockClock) -> None:
    """What it has goes on; who comes goes elsewhere, or waits until it may take work again."""
    a, b = replica_("a", None), replica_("b", None)
    pool = pool_(a, b)
    with await pool.lease() as lease:
        lease.replica.drain()
        other = b if lease.replica is a else a
        assert await used(pool) == {other}
        other.drain()
        assert pool.lease_nowait() is None
        async with waiting(pool, ()) as served:
            other.drain(False)
            await trio.testing.wait_all_tasks_blocked()
            assert [given.replica for _, given in served] == [other]
            served[0][1].release()


def of_run(run: str | None) -> Request:
    return Request(run=run)


async def test_a_draining_replica_keeps_its_runs(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The next call of a run goes where its last one was; other runs, new ones and calls of no run
    do not; five minutes of silence end it, and so does a restart."""
    a, b = replica_("a", None), replica_("b", None)
    pool = pool_(a, b)
    with await pool.lease((), of_run("mine")) as lease:
        home = lease.replica
    other = b if home is a else a
    home.drain()

    async def goes_to(run: str | None) -> Replica:
        with await pool.lease((), of_run(run)) as lease:
            return lease.replica

    assert {await goes_to("new"), await goes_to(None)} == {other}
    assert [await goes_to("mine") for _ in range(3)] == [home] * 3
    assert (pool.runs_of(home.name), pool.runs_of(other.name)) == (1, 1)
    other.drain()
    assert await goes_to("mine") is home, "although nobody else takes anything"
    other.drain(False)
    await trio.sleep(299)
    assert await goes_to("mine") is home
    await trio.sleep(301)
    assert pool.runs_of(home.name) == 0
    assert await goes_to("mine") is other


@pytest.mark.parametrize("why", ["not asked to", "down", "full", "tried", "restarted"])
async def test_a_run_moves_when_its_draining_replica_cannot_have_it(
    why: str, autojump_clock: trio.testing.MockClock
) -> None:
    """Its next call goes elsewhere at once, and stays there."""
    a, b = replica_("a", 1), replica_("b", 1)
    pool = pool_(a, b)
    with await pool.lease((), of_run("mine")) as lease:
        home = lease.replica
        other = b if home is a else a
        home.drain(runs=why != "not asked to")
        if why == "full":
            with await pool.lease((), of_run("mine")) as second:
                assert second.replica is other
            return
    if why == "down":
        home.probed(False, trio.current_time(), refused=True)
    elif why == "restarted":
        home.restarted()
    tried = [home] if why == "tried" else []
    for _ in range(2):
        with await pool.lease(tried, of_run("mine")) as lease:
            assert lease.replica is other


async def test_members_change_while_requests_are_in_flight(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Who is gone gets nothing more, who is new serves those that wait, leases go on."""
    a, b = replica_("a"), replica_("b")
    pool = pool_(a)
    with await pool.lease() as lease:
        async with waiting(pool, ()) as served:
            pool.update([b])
            await trio.testing.wait_all_tasks_blocked()
            assert [given.replica for _, given in served] == [b]
            served[0][1].release()
        assert (lease.replica, a.in_flight) == (a, 1)
        assert await used(pool) == {b}
    assert (a.in_flight, a.listeners) == (0, [])


async def test_a_replica_with_a_faulty_gpu_rests_until_it_is_sound() -> None:
    """A GPU that is lost takes its replica out; the next sound reading brings it back."""
    a, b = replica_("a", None), replica_("b", None)
    pool = pool_(a, b)
    a.gpu = GpuReading(at=0.0, fault="GPU is lost")
    assert (await used(pool), a.state(0.0)) == ({b}, "faulty")
    a.gpu = GpuReading(at=1.0)
    assert await used(pool) == {a, b}


async def test_rooms_follow_the_configured_limit() -> None:
    """A limit that is set, raised or lifted holds from then on."""
    a = replica_("a", None)
    pool = pool_(a)
    first, second = await pool.lease(), await pool.lease()
    a.max_in_flight = 1
    assert pool.lease_nowait() is None
    a.max_in_flight = 3
    third = pool.lease_nowait()
    assert third is not None
    assert pool.lease_nowait() is None
    for lease in (first, second, third):
        lease.release()


class _Breaks(LeastRequest):
    """A policy whose books cannot take an outcome."""

    def released(self, *_: object) -> None:
        raise OverflowError("int too large to convert to float")


async def test_who_waits_is_served_whatever_an_outcome_says() -> None:
    """A release that fails has given its place back all the same."""
    replica = replica_("a")
    pool = Pool("m", [replica], _Breaks())
    held = await pool.lease()
    async with waiting(pool, ()) as served:
        await trio.testing.wait_all_tasks_blocked()
        assert served == []
        with pytest.raises(OverflowError):
            held.release()
        await trio.testing.wait_all_tasks_blocked()
        assert len(served) == 1


class _Forgets(LeastRequest):
    """Notes whose caches are empty."""

    def __init__(self) -> None:
        super().__init__()
        self.forgotten: list[str] = []

    def forget(self, replica: str) -> None:
        self.forgotten.append(replica)


@pytest.mark.parametrize(
    ("served", "before", "after", "empty"),
    [
        (None, ["m"], ["m", "lora"], False),
        (None, ["m", "lora"], ["m"], False),
        (None, ["m", "x"], ["x"], True),
        (None, ["x"], ["x", "m"], True),
        ("org/m", ["org/m", "m"], ["org/m"], False),
        ("org/m", ["org/m"], ["m"], True),
        (None, ["other.gguf"], ["other.gguf", "lora"], False),
        (None, ["other.gguf"], ["another.gguf"], True),
    ],
)
async def test_whose_cache_another_model_empties(
    served: str | None, before: list[str], after: list[str], empty: bool
) -> None:
    """That of the pool whose own model came or went; a LoRA or another pull is not its concern."""
    replica, policy = replica_("a"), _Forgets()
    pool = Pool("m", [replica], policy, served_model=served)
    policy.forgotten.clear()
    replica.lists(before)
    assert policy.forgotten == []
    replica.lists(after)
    assert policy.forgotten == (["http://a"] if empty else [])
    assert pool.replicas == (replica,)
