"""Room that nobody makes, or that a change makes, finds who waits; and one alone looks for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import trio
import trio.testing

from balancer.admission import BATCH, INTERACTIVE, Standing, Tier
from balancer.errors import AnswerLost, ConnectFailed, ReplicaRefused
from balancer.lease import Lease, ReclaimReason
from balancer.members import Members
from balancer.outliers import OutlierSettings
from balancer.policies import UNKNOWN, Ask, LeastRequest
from balancer.policies.loaded import R
from balancer.pool import Pool, PoolSettings
from balancer.readings import Gauges
from balancer.replica import Replica
from balancer.wire.connect import Dialer

Clock = trio.testing.MockClock

WIDE = Tier(name="interactive", rank=0, queue=20_000, queue_s=100.0)


def replica_(name: str, limit: int | None = 1) -> Replica:
    return Replica(f"http://{name}", Dialer(), max_in_flight=limit, chance=lambda: 0.5)


def pool_(*replicas: Replica, tiers: Sequence[Tier] = (WIDE,)) -> Pool:
    return Pool("m", replicas, LeastRequest(), tiers=tiers, chance=lambda: 0.5)


def leased(pool: Pool, *tried: Replica) -> Lease:
    lease = pool.lease_nowait(tried)
    assert lease is not None
    return lease


class Waiters:
    """Requests that wait: who was served, where, and when."""

    def __init__(self, pool: Pool, nursery: trio.Nursery) -> None:
        self.pool, self.nursery = pool, nursery
        self.leases: list[Lease] = []
        self.served_at: list[float] = []

    async def come(self, *tried: Replica, tier: str = "interactive", times: int = 1) -> None:
        for _ in range(times):
            self.nursery.start_soon(self._wait, tried, tier)
        await trio.testing.wait_all_tasks_blocked()

    async def _wait(self, tried: Sequence[Replica], tier: str) -> None:
        standing = Standing(tier, trio.current_time())
        self.leases.append(await self.pool.lease(tried, standing=standing))
        self.served_at.append(trio.current_time())


def overloaded(retry_after_s: int) -> ReplicaRefused:
    return ReplicaRefused("a", 503, [(b"retry-after", b"%d" % retry_after_s)], b"")


async def test_a_pause_that_begins_while_somebody_waits(autojump_clock: Clock) -> None:
    """The one who waits came before it, and is served when it is over."""
    a = replica_("a")
    pool = pool_(a)
    held = leased(pool)
    async with trio.open_nursery() as nursery:
        waiters = Waiters(pool, nursery)
        await waiters.come()
        held.failed(overloaded(3))
        held.release()
    assert waiters.served_at == [3.0]


async def test_a_rest_that_begins_while_somebody_waits(autojump_clock: Clock) -> None:
    """The same for a breaker that opens, while the other replica is busy for long."""
    a, b = replica_("a"), replica_("b")
    pool = pool_(a, b)
    first, second = leased(pool), leased(pool)
    async with trio.open_nursery() as nursery:
        waiters = Waiters(pool, nursery)
        await waiters.come()
        second.failed(ConnectFailed("b", "refused"))
        second.release()
    assert waiters.served_at == [0.5]
    assert waiters.leases[0].replica is second.replica
    first.release()


async def test_an_ejection_that_begins_while_somebody_waits(autojump_clock: Clock) -> None:
    """The same for an outlier: it is out for ten seconds."""
    settings = PoolSettings(outliers=OutlierSettings(volume=1, failure_share=0.0))
    a, b = replica_("a"), replica_("b")
    pool = Pool("m", [a, b], LeastRequest(), tiers=[WIDE], settings=settings, chance=lambda: 0.5)
    leased(pool, b).answered()
    leased(pool, a).failed(AnswerLost("b", "reset"))
    for lease in (*a.unanswered, *b.unanswered):
        assert isinstance(lease, Lease)
        lease.release()
    assert pool.outliers.ejected(b.name, trio.current_time())
    async with trio.open_nursery() as nursery:
        waiters = Waiters(pool, nursery)
        await waiters.come()
        await trio.sleep(20)
        assert waiters.served_at == [10.0]


async def test_when_all_are_down_all_are_used(autojump_clock: Clock) -> None:
    """The last good one goes down: those that were left out may be tried at once."""
    a, b = replica_("a"), replica_("b")
    pool = pool_(a, b)
    b.probed(False, trio.current_time())
    held = leased(pool)
    async with trio.open_nursery() as nursery:
        waiters = Waiters(pool, nursery)
        await waiters.come()
        a.probed(False, trio.current_time())
        await trio.sleep(20)
        assert (waiters.served_at, waiters.leases[0].replica) == ([0.0], b)
        held.release()


async def test_when_the_last_old_one_leaves_nobody_is_spared(autojump_clock: Clock) -> None:
    """The only one at full speed drains: the cap of the one that came back is lifted."""
    a, b = replica_("a"), replica_("b", 8)
    pool = pool_(a, b)
    b.probed(False, trio.current_time())
    b.probed(True, trio.current_time())
    held = [leased(pool), leased(pool)]
    async with trio.open_nursery() as nursery:
        waiters = Waiters(pool, nursery)
        await waiters.come()
        a.drain()
        await trio.sleep(20)
        assert (waiters.served_at, waiters.leases[0].replica) == ([0.0], b)
        for lease in held:
            lease.release()


async def test_a_retry_learns_that_no_other_is_left(autojump_clock: Clock) -> None:
    """It waits for the other one; that goes down: the one it tried is better than none."""
    a, b = replica_("a"), replica_("b")
    pool = pool_(a, b)
    held = leased(pool, a)
    async with trio.open_nursery() as nursery:
        waiters = Waiters(pool, nursery)
        await waiters.come(a)
        b.probed(False, trio.current_time())
        await trio.sleep(20)
        assert (waiters.served_at, waiters.leases[0].replica) == ([0.0], a)
        held.release()


async def test_members_that_leave_may_be_room(autojump_clock: Clock) -> None:
    """A reserve holds while anything is at work; with that replica gone nothing is."""
    a, b = replica_("a"), replica_("b")
    tiers = [Tier(name="interactive", rank=0, reserve=1), Tier(name="batch", rank=1)]
    pool = pool_(a, b, tiers=tiers)
    held = leased(pool)
    other = b if held.replica is a else a
    async with trio.open_nursery() as nursery:
        waiters = Waiters(pool, nursery)
        await waiters.come(tier="batch")
        assert waiters.leases == []
        pool.update([other])
        await trio.sleep(20)
        assert waiters.served_at == [0.0]
        held.release()


async def test_a_member_that_comes_with_a_pause(autojump_clock: Clock) -> None:
    """Whose end nobody tells: the time to look is another with other members."""
    a, b = replica_("a"), replica_("b")
    pool = pool_(a)
    held = leased(pool)
    b.pause.refused(0.0, 3.0)
    async with trio.open_nursery() as nursery:
        waiters = Waiters(pool, nursery)
        await waiters.come()
        pool.update([a, b])
    assert (waiters.served_at, waiters.leases[0].replica) == ([3.0], b)
    held.release()


async def test_a_slot_freed_on_a_replica_that_left(autojump_clock: Clock) -> None:
    """A tier's slots count wherever they are: its end serves who waits for a slot."""
    a, b = replica_("a"), replica_("b")
    pool = pool_(a, tiers=[Tier(name="interactive", rank=0, slots=1)])
    held = leased(pool)
    async with trio.open_nursery() as nursery:
        waiters = Waiters(pool, nursery)
        await waiters.come()
        pool.update([b])
        await trio.sleep(1)
        held.release()
    assert (waiters.served_at, waiters.leases[0].replica) == ([1.0], b)


async def test_a_reading_that_goes_stale_is_room(autojump_clock: Clock) -> None:
    """A cache that was full 6 s ago and nobody speaks of any more keeps no batch waiting."""
    a = replica_("a", None)
    pool = pool_(a, tiers=[INTERACTIVE, BATCH])
    held = leased(pool)
    async with trio.open_nursery() as nursery:
        waiters = Waiters(pool, nursery)
        a.gauges = Gauges(at=0.0, kv_share=0.9)
        await waiters.come(tier="batch")
        await trio.sleep(2)
        a.gauges = Gauges(at=2.0, kv_share=0.9)
    assert waiters.served_at == [8.0]
    held.release()


async def test_a_reading_with_less_in_use_is_room(autojump_clock: Clock) -> None:
    """At once, when it is heard."""
    a = replica_("a", None)
    pool = pool_(a, tiers=[INTERACTIVE, BATCH])
    held = leased(pool)
    a.gauges = Gauges(at=0.0, kv_share=0.9)
    async with trio.open_nursery() as nursery:
        waiters = Waiters(pool, nursery)
        await waiters.come(tier="batch")
        await trio.sleep(1)
        a.gauges = Gauges(at=1.0, kv_share=0.5)
    assert waiters.served_at == [1.0]
    held.release()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Each look for the time of the next change."""
    seen: list[float] = []
    changes_at = Members.changes_at

    def counted(self: Members, now: float) -> float:
        seen.append(now)
        return changes_at(self, now)

    monkeypatch.setattr(Members, "changes_at", counted)
    return seen


async def test_one_looks_for_all(looks: list[float], autojump_clock: Clock) -> None:
    """However many wait: the end of a rest does not wake them all."""
    a, b = replica_("a"), replica_("b")
    pool = pool_(a, b)
    first, second = leased(pool), leased(pool)
    async with trio.open_nursery() as nursery:
        waiters = Waiters(pool, nursery)
        await waiters.come(times=500)
        second.failed(overloaded(3))
        second.release()
        await trio.sleep(5)
        assert waiters.served_at == [3.0]
        assert len(looks) < 10
        nursery.cancel_scope.cancel()
    first.release()


@pytest.mark.parametrize("leaves", ["cancelled", "served", "late"])
async def test_the_watch_is_handed_over(leaves: str, autojump_clock: Clock) -> None:
    """The one that would have looked is gone, in the very instant of the change even."""
    a, b = replica_("a"), replica_("b")
    pool = pool_(a, b, tiers=[Tier(name="interactive", rank=0, queue_s=9)])
    first, second = leased(pool), leased(pool)
    served: list[float] = []

    async def watcher(scope: trio.CancelScope) -> None:
        deadline = 3.0 if leaves == "late" else 8.0  # first in line
        with scope:
            try:
                with await pool.lease(standing=Standing("interactive", 0.0, deadline)):
                    await trio.sleep(20)
            except Exception:
                assert leaves == "late"

    async def wait() -> None:
        with await pool.lease():
            served.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope(deadline=3.0 if leaves == "cancelled" else 99)
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(watcher, scope)
        await trio.testing.wait_all_tasks_blocked()  # the other looks now, and is behind it then
        second.failed(overloaded(3))
        second.release()
        if leaves == "served":
            await trio.sleep(2.999)
            first.release()
        await trio.sleep(12)
    assert served == [3.0]
    if leaves != "served":
        first.release()


async def test_much_room_at_once_is_handed_out_in_steps(autojump_clock: Clock) -> None:
    """No single call takes long, all are served in the same instant, and in their order; who comes
    between two steps does not overtake."""
    replicas = [replica_(str(number), 8) for number in range(20)]
    pool = pool_(*replicas)
    for replica in replicas:
        replica.drain()
    async with trio.open_nursery() as nursery:
        waiters = Waiters(pool, nursery)
        await waiters.come(times=100)
        for replica in replicas:
            replica.draining = False
        replicas[0].drain(False)
        placed = sum(replica.in_flight for replica in replicas)
        assert 0 < placed < 50
        assert pool.lease_nowait() is None
        await trio.testing.wait_all_tasks_blocked()
        assert len(waiters.leases) == 100
        assert pool.lease_nowait() is not None


class Broken(LeastRequest):
    """Fails when told to."""

    broken = False

    def pick(self, candidates: Sequence[R], ask: Ask = UNKNOWN) -> R:
        if self.broken:
            raise ZeroDivisionError
        return super().pick(candidates, ask)


async def test_a_policys_error_is_the_waiters(autojump_clock: Clock) -> None:
    """Not of the one whose end made room; and the next in line is served."""
    a, policy = replica_("a"), Broken()
    pool = Pool("m", [a], policy, tiers=[WIDE])
    held = leased(pool)
    errors: list[Exception] = []

    async def wait() -> None:
        try:
            await pool.lease()
        except ZeroDivisionError as exc:
            errors.append(exc)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        waiters = Waiters(pool, nursery)
        await waiters.come()
        policy.broken = True
        held.release()
        policy.broken = False
        await trio.testing.wait_all_tasks_blocked()
    assert (len(errors), len(waiters.leases), a.in_flight) == (1, 1, 1)
    waiters.leases[0].release()
    assert pool.statistics().waiting == 0


@pytest.mark.parametrize("reason", ["replica_lost", "put_back"])
async def test_a_place_lost_before_its_request_ran(
    reason: ReclaimReason, autojump_clock: Clock
) -> None:
    """It waits again, and gets the next one."""
    a, b = replica_("a"), replica_("b")
    pool = pool_(a)
    held = leased(pool)
    async with trio.open_nursery() as nursery:
        waiters = Waiters(pool, nursery)
        await waiters.come()
        held.release()
        (lease,) = a.unanswered
        a.drain()
        assert lease.reclaim(reason)
        assert (a.in_flight, pool.statistics().waiting) == (0, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert waiters.leases == []
        pool.update([b])
    assert [one.replica for one in waiters.leases] == [b]
    assert waiters.leases[0].on_reclaim is None


@pytest.mark.parametrize(
    "leave", [lambda pool, other: pool.update([other]), lambda pool, other: pool.retire()]
)
async def test_lost_with_a_replica_that_the_pool_let_go(
    leave: Callable[[Pool, Replica], None],
) -> None:
    """What still waits there is told all the same."""
    a, b = replica_("a"), replica_("b")
    pool = pool_(a)
    reasons: list[ReclaimReason] = []
    held = leased(pool)
    held.on_reclaim = reasons.append
    leave(pool, b)
    a.probed(False, trio.current_time(), refused=True)
    assert (reasons, a.unanswered) == (["replica_lost"], {})
