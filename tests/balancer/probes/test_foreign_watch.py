"""ForeignWatch sets what policies read, and takes it back when nothing is heard any more."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from balancer.probes.foreign import ForeignWatch
from balancer.readings import Gauges, GpuReading
from balancer.replica import Replica
from balancer.wire.memory import memory_network

Clock = trio.testing.MockClock


async def test_foreign_load_comes_and_goes(autojump_clock: Clock) -> None:
    """A job and clients of somebody else: seen while they are reported, 0 a few polls later."""
    async with memory_network() as network, trio.open_nursery() as nursery:
        replica, idle = Replica("http://a", network), Replica("http://b", network)
        watch = ForeignWatch(lambda: 2.0, 1.0)
        nursery.start_soon(watch.run, lambda: [replica, idle])
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(30):
            now = trio.current_time()
            replica.gpu = GpuReading(at=now, utilisation=0.6)
            watch.read(replica, Gauges(at=now, running=5, waiting=2), 3)
            await trio.sleep(1)
        assert replica.foreign_requests == 4
        assert replica.foreign_share == pytest.approx(0.6, abs=0.01)
        await trio.sleep(10)
        assert (replica.foreign_requests, replica.foreign_share) == (0, 0)
        assert (idle.foreign_requests, idle.foreign_share) == (0, 0)
        nursery.cancel_scope.cancel()


async def test_our_own_work_is_not_foreign(autojump_clock: Clock) -> None:
    """A GPU that is busy while we are."""
    async with memory_network() as network, trio.open_nursery() as nursery:
        replica = Replica("http://a", network)
        replica.open(1, (), trio.current_time())
        nursery.start_soon(ForeignWatch(lambda: 2.0, 1.0).run, lambda: [replica])
        for _ in range(60):
            replica.gpu = GpuReading(at=trio.current_time(), utilisation=1.0)
            await trio.sleep(1)
            assert replica.foreign_share < 1e-6
        nursery.cancel_scope.cancel()


async def test_a_replica_that_left_is_forgotten(autojump_clock: Clock) -> None:
    """Its readings count no more, and nothing is kept of it."""
    async with memory_network() as network, trio.open_nursery() as nursery:
        replicas = [Replica(f"http://{n}", network) for n in range(250)]
        watch = ForeignWatch(lambda: 2.0, 1.0)
        nursery.start_soon(watch.run, lambda: replicas)
        await trio.sleep(0.5)
        gone = replicas.pop()
        await trio.sleep(1)
        for at in (1, 2):
            watch.read(gone, Gauges(at=at, running=5, waiting=2), 0)
            watch.read(replicas[0], Gauges(at=at, running=5, waiting=2), 0)
        await trio.sleep(1)
        assert (gone.foreign_requests, replicas[0].foreign_requests) == (0, 7)
        nursery.cancel_scope.cancel()
