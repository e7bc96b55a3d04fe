"""Whatever happens to replicas and requests: nobody waits beside room, and nothing is left over."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from balancer.admission import BATCH, Standing, Tier
from balancer.errors import AnswerLost, BalancerError, ConnectFailed, PoolBusy, ReplicaRefused
from balancer.lease import Lease
from balancer.policies import POLICIES, PolicyName
from balancer.pool import Pool
from balancer.prefix import PrefixIndex
from balancer.readings import Gauges, GpuReading
from balancer.replica import Replica
from balancer.wire.connect import Dialer
from tests.balancer.scripted import in_virtual_time
from tests.balancer.test_pool_placing import Text

POLICY_NAMES: Sequence[PolicyName] = (
    "least_request",
    "expected_cost",
    "least_tokens",
    "prefix_hash",
)


class World:
    """Two pools that share two of five replicas, and everything that happens to them.

    Pools are the one part that a reload replaces: `pools` are those of now, `all_pools` all.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        choice = self.random.choice
        self.replicas = [
            Replica(
                f"http://r{number}",
                Dialer(),
                max_in_flight=choice([1, 2, 4]),
                chance=self.random.random,
            )
            for number in range(5)
        ]
        self.tiers = (
            Tier(name="interactive", rank=0, preempts=True, reserve=choice([0, 0, 1]), queue=50),
            replace(BATCH, slots=choice([None, 2, 3]), queue=50, handicap_s=3.0),
        )
        self.pools = [self.pool(self.replicas[:4]), self.pool(self.replicas[2:])]
        self.all_pools = list(self.pools)

    def pool(self, replicas: Sequence[Replica]) -> Pool:
        return Pool(
            "m",
            replicas,
            POLICIES[self.random.choice(POLICY_NAMES)](),
            prefixes=PrefixIndex(64),
            tiers=self.tiers,
            chance=self.random.random,
        )

    # Requests

    async def client(self) -> None:
        """One request: comes, waits, is tried again when it fails, may lose patience."""
        chance = self.random
        await trio.sleep(chance.random() * 12)
        pool, now = chance.choice(self.pools), trio.current_time()
        deadline = None if chance.random() < 0.6 else now + chance.random() * 8
        standing = Standing(chance.choice(["interactive", "batch"]), now, deadline)
        tried: list[Replica] = []
        patience_s = chance.choice([1e9, 1e9, chance.random() * 5])
        with trio.move_on_after(patience_s):
            try:
                while len(tried) < 4 and not await self.is_served(pool, standing, tried):
                    pass
            except PoolBusy:
                return

    async def is_served(self, pool: Pool, standing: Standing, tried: list[Replica]) -> bool:
        blocks = range(1, self.random.randrange(2, 9))
        ask = Text(*blocks, tokens=self.random.randrange(1, 6000))
        with await pool.lease(tried, ask, standing) as lease, trio.CancelScope() as scope:
            lease.on_reclaim = lambda _: scope.cancel()
            await trio.sleep(self.random.random() * 1.5)
            failure = self.failure()
            if failure is not None:
                lease.failed(failure)
                tried.append(lease.replica)
                return False
            await self.answer(lease)
            return True
        return False

    async def answer(self, lease: Lease) -> None:
        lease.on_reclaim = None
        lease.answered()
        await trio.sleep(self.random.random() * 3)
        if self.random.random() < 0.03:
            lease.cut()

    def failure(self) -> BalancerError | None:
        pause = [(b"retry-after", b"%d" % self.random.randrange(4))]
        return self.random.choice(
            [None] * 12
            + [
                ConnectFailed("r", "refused"),
                AnswerLost("r", "reset"),
                ReplicaRefused("r", 500, [], b""),
                ReplicaRefused("r", 503, pause, b""),
                ReplicaRefused("r", 400, [], b""),
            ]
        )

    # What happens to replicas

    def probe(self, replica: Replica, now: float) -> None:
        up, refused = self.random.random() < 0.6, self.random.random() < 0.3
        replica.probed(up, now, refused=refused, silent=self.random.random() < 0.3)

    def drain(self, replica: Replica, now: float) -> None:
        replica.drain(self.random.random() < 0.4)

    def read_gauges(self, replica: Replica, now: float) -> None:
        tokens = self.random.choice([None, 640, 6400])
        replica.gauges = Gauges(at=now, kv_share=self.random.random(), kv_tokens=tokens)

    def read_gpu(self, replica: Replica, now: float) -> None:
        replica.gpu = GpuReading(at=now, fault=self.random.choice([None, None, "lost"]))

    def limit(self, replica: Replica, now: float) -> None:
        replica.max_in_flight = self.random.choice([1, 2, 4])

    def change_members(self, replica: Replica, now: float) -> None:
        members = self.random.sample(self.replicas, self.random.randrange(1, 5))
        self.random.choice(self.pools).update(members)

    def reload(self, replica: Replica, now: float) -> None:
        at = self.random.randrange(2)
        old = self.pools[at]
        self.pools[at] = new = self.pool(old.replicas)
        new.succeed(old)
        old.retire()
        self.all_pools.append(new)

    async def happen(self) -> None:
        events: list[Callable[[Replica, float], None]] = [
            self.probe,
            self.drain,
            self.read_gauges,
            self.read_gpu,
            self.limit,
            self.change_members,
            self.reload,
        ]
        while trio.current_time() < 14:
            await trio.sleep(self.random.random() * 0.5)
            self.random.choice(events)(self.random.choice(self.replicas), trio.current_time())
        for replica in self.replicas:
            replica.probed(True, trio.current_time())
            replica.drain(False)
            replica.gpu = None

    # What must hold

    async def keep_checking(self) -> None:
        while True:
            await trio.sleep(0.0731)
            await trio.testing.wait_all_tasks_blocked()
            for pool in self.all_pools:
                self.check_nobody_waits_beside_room(pool)

    def check_nobody_waits_beside_room(self, pool: Pool) -> None:
        now, line = trio.current_time(), pool._line
        pool._members.unready()
        for tier_line in line._lines:
            for lane in tier_line.lanes.values():
                waiter = lane.by_end[0]
                if waiter.until > now and line._is_open(tier_line):
                    free = self.free(pool, tier_line.tier, waiter.tried, now)
                    assert not free, (now, tier_line.tier.name, free[0].name)

    def free(
        self, pool: Pool, tier: Tier, tried: Collection[Replica], now: float
    ) -> Sequence[Replica]:
        def fits(one: Replica) -> bool:
            return tier.fits(one.load.requests, one.load.waiting_tokens, one.kv_share(now))

        return pool._members.choose(now, tried, fits)

    def check_nothing_is_left(self) -> None:
        for pool in self.all_pools:
            for tier in pool.statistics().tiers:
                assert (tier.in_flight, tier.waiting) == (0, 0)
            assert not pool._line._held
            assert not pool._waiting._naps
        for replica in self.replicas:
            load = replica.load
            assert (replica.in_flight, load.waiting, load.waiting_tokens) == (0, 0, 0)
            assert (load.held, replica.unanswered) == ({}, {})
            assert replica.breaker._out == 0
            assert set(replica.listeners) <= set(self.pools)


@given(st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_nobody_waits_beside_room(seed: int) -> None:
    """Requests of two tiers come, fail, are tried again, put back and cut; replicas go down,
    drain, are paused and limited; members change and pools are replaced. At every moment at which
    all tasks sleep, nobody is in line whom a replica would take."""

    async def body() -> None:
        world = World(seed)
        async with trio.open_nursery() as checking:
            checking.start_soon(world.keep_checking)
            async with trio.open_nursery() as nursery:
                for _ in range(60):
                    nursery.start_soon(world.client)
                nursery.start_soon(world.happen)
            checking.cancel_scope.cancel()
        world.check_nothing_is_left()

    in_virtual_time(body)


@pytest.mark.slow
@given(st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_nobody_waits_beside_room_at_length(seed: int) -> None:
    """The same, more often."""
    test_nobody_waits_beside_room.hypothesis.inner_test(seed)  # type: ignore[attr-defined]
