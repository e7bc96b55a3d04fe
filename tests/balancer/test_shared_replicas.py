"""One replica in several pools: each has its turn, and its own view of how far it may be used."""

from __future__ import annotations

from collections import Counter

import pytest
import trio
import trio.testing

from balancer.catalog import Catalog
from balancer.errors import AnswerLost, ConnectFailed
from balancer.lease import Lease
from balancer.outliers import OutlierSettings
from balancer.policies import LeastRequest
from balancer.pool import Pool, PoolSettings
from balancer.prefix import PrefixIndex
from balancer.replica import Replica
from balancer.wire.connect import Dialer
from tests.balancer.test_pool_placing import Reads, Text

Clock = trio.testing.MockClock


def replica_(name: str, limit: int | None = None) -> Replica:
    return Replica(f"http://{name}", Dialer(), max_in_flight=limit, chance=lambda: 0.5)


def pool_(*replicas: Replica, settings: PoolSettings = PoolSettings()) -> Pool:  # noqa: B008
    return Pool("m", replicas, LeastRequest(), settings=settings, chance=lambda: 0.5)


def leased(pool: Pool) -> Lease:
    lease = pool.lease_nowait()
    assert lease is not None
    return lease


def came_back(replica: Replica) -> None:
    """It was down: it starts slowly."""
    replica.probed(False, trio.current_time())
    replica.probed(True, trio.current_time())


@pytest.mark.parametrize("answers", [False, True])
async def test_pools_take_turns(answers: bool, autojump_clock: Clock) -> None:
    """Whose clients ask again and again gets no more than the other, though it tells of room twice
    for each request: at its first event, and at its end."""
    a = replica_("a", 1)
    pools = {"one": pool_(a), "other": pool_(a)}
    held = leased(pools["one"])
    served: Counter[str] = Counter()

    async def ask_again_and_again(name: str) -> None:
        while True:
            with await pools[name].lease() as lease:
                served[name] += 1
                await trio.sleep(0.5)
                if answers:
                    lease.answered()
                await trio.sleep(0.5)

    async with trio.open_nursery() as nursery:
        for name in pools:
            for _ in range(8):
                nursery.start_soon(ask_again_and_again, name)
        await trio.testing.wait_all_tasks_blocked()
        held.release()
        await trio.sleep(20.5)
        nursery.cancel_scope.cancel()
    assert abs(served["one"] - served["other"]) <= 1


async def test_nobody_to_spare_it_in_one_pool_is_no_room_in_another() -> None:
    """The pool that has nothing else uses it in full; where others are, it starts slowly."""
    a, b = replica_("a"), replica_("b")
    alone, both = pool_(a), pool_(a, b)
    came_back(a)
    for _ in range(3):
        assert leased(alone).replica is a
    for _ in range(5):
        assert leased(both).replica is b


async def test_a_look_of_another_pool_takes_no_room() -> None:
    """And the other way round: that it should be spared elsewhere does not throttle this one."""
    a, b = replica_("a", 8), replica_("b", 8)
    alone, both = pool_(a), pool_(a, b)
    came_back(a)
    for _ in range(3):
        leased(alone)
    leased(both)
    for _ in range(5):
        assert leased(alone).replica is a
    assert alone.lease_nowait() is None


async def test_one_at_work_elsewhere_is_no_beginner() -> None:
    """To list it in a second pool does not throttle the first."""
    a, b = replica_("a", 64), replica_("b", 64)
    first, second = pool_(a), pool_(b)
    for _ in range(40):
        leased(first)
    second.update([a, b])
    assert leased(first).replica is a
    assert a.ramp.cap is None


async def test_one_that_rests_from_work_elsewhere_is_no_beginner() -> None:
    """Another pool had it serve, and nothing is in flight just now. But one that is new to all
    pools at once starts slowly in each."""
    a, b, c = replica_("a"), replica_("b"), replica_("c")
    first, second = pool_(a), pool_(b)
    leased(first).release()
    second.update([a, b])
    assert a.ramp.cap is None
    for pool in (first, second):
        pool.update([*pool.replicas, c])
    assert c.ramp.cap == 1


async def test_a_trial_is_one_for_all(autojump_clock: Clock) -> None:
    """Whichever pool sends it, the others send none beside it."""
    a = replica_("a")
    pools = [pool_(a, replica_(str(number))) for number in range(5)]
    leased(pools[0]).failed(ConnectFailed("a", "refused"))
    (lease,) = a.unanswered
    assert isinstance(lease, Lease)
    lease.release()
    await trio.sleep(1)
    for pool in pools:
        assert pool.fit_elsewhere([])
    for pool in pools:
        for _ in range(4):
            leased(pool)
    assert a.in_flight == 1


async def test_a_reload_starts_new_members_slowly() -> None:
    """As an update does; those that stay are as they were."""
    a, b = replica_("a"), replica_("b")
    catalog = Catalog([pool_(a)])
    leased(catalog.pools["m"])
    catalog.replace([pool_(a, b)])
    pool = catalog.pools["m"]
    for _ in range(4):
        leased(pool)
    assert (a.in_flight, b.in_flight) == (4, 1)


async def test_a_reload_forgets_no_fault() -> None:
    """An ejected replica stays out, unless ejection itself is configured anew; the retries that
    were made still count."""
    strict = PoolSettings(outliers=OutlierSettings(volume=1, failure_share=0.0))
    for new, out in ((strict, True), (PoolSettings(), False)):
        a, b = replica_("a"), replica_("b")
        pool = pool_(a, b, settings=strict)
        with leased(pool) as good, leased(pool) as bad:
            good.answered()
            bad.failed(AnswerLost("b", "reset"))
        now = trio.current_time()
        assert pool.outliers.ejected(bad.replica.name, now)
        catalog = Catalog([pool])
        catalog.replace([pool_(a, b, settings=new)])
        after = catalog.pools["m"]
        assert after.outliers.ejected(bad.replica.name, now) is out
        assert ({leased(after).replica for _ in range(4)} == {good.replica}) is out
        assert after.budget is pool.budget
        assert after.patience is pool.patience


async def test_a_retired_pool_teaches_nothing(autojump_clock: Clock) -> None:
    """Who comes after it has dropped a replica: what still ends there brings no record back."""
    a, b = replica_("a"), replica_("b")
    index, policy = PrefixIndex(64), Reads()
    old = Pool("m", [a, b], policy, prefixes=index)
    held = old.lease_nowait((b,), Text(1, 2))
    assert held is not None
    catalog = Catalog([old])
    catalog.replace([Pool("m", [b], policy, prefixes=index)])
    assert index.capacity_blocks(a.name) is None
    held.answered()
    held.cut()
    held.release()
    late = old.lease_nowait((b,), Text(1, 2))
    assert late is not None
    assert late.replica is a
    late.release()
    assert index.capacity_blocks(a.name) is None
    assert catalog.pools["m"].outliers.known == set()


async def test_what_ends_on_a_replica_that_left_leaves_no_record() -> None:
    """It may come back some day as another; and until then it must not count among the others."""
    a, b = replica_("a"), replica_("b")
    pool = pool_(a, b)
    leases = [leased(pool) for _ in range(4)]
    pool.update([b])
    for lease in leases:
        lease.answered()
        lease.cut()
        lease.release()
    assert pool.outliers.known == {b.name}
