"""Places that the pool takes back: for a higher tier, or because the replica is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing

from balancer.admission import Standing
from balancer.dispatch import Dispatch
from balancer.errors import ReplicaLost
from balancer.pool import PoolSettings
from balancer.readings import GpuReading
from balancer.replica import Replica
from tests.balancer.relays import GOOD, GOOD_BODY, JSON, Relay, Script, relay
from tests.balancer.scripted import Act, NotingClient, ScriptedReplica, answer

Clock = trio.testing.MockClock
BROKEN = answer(b"", status=502)


def standing(tier: str) -> Standing:
    return Standing(tier, trio.current_time())


@asynccontextmanager
async def batch_at_work(
    *scripts: Script, client: NotingClient | None = None, settings: PoolSettings | None = None
) -> AsyncIterator[tuple[Relay, Dispatch]]:
    """A batch request that has nothing yet, on the first of replicas with one place each."""
    settings = settings or PoolSettings()
    async with relay(*scripts, max_in_flight=1, settings=settings) as r:
        dispatch = r.dispatch(client, standing("batch"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dispatch.run)
            await trio.sleep(1)
            yield r, dispatch


@pytest.mark.parametrize("begun", [[3.0, *GOOD], [3.0, answer(JSON)]], ids=["stream", "whole"])
async def test_an_interactive_request_takes_the_place(
    begun: list[bytes | float], autojump_clock: Clock
) -> None:
    """At once; the other's connection is closed, and it waits again. No attempt was lost."""
    hanging = ScriptedReplica([Act.HANG], begun, GOOD)
    client = NotingClient()
    async with batch_at_work(hanging, client=client) as (r, batch):
        interactive = (await r.ask(standing=standing("interactive"))).trace
        assert interactive.queued_s == 0
        assert hanging.left_at == [1]
    trace = batch.trace
    assert client.body == GOOD_BODY
    assert (trace.put_backs, trace.attempts, trace.failures) == (1, 1, [])
    assert trace.queued_s == pytest.approx(3)
    assert [lease.replica.name for lease in trace.leases] == ["http://r0"] * 2
    assert r.replicas[0].failures == 0


async def test_it_may_go_back_where_it_was(autojump_clock: Clock) -> None:
    """A replica it was put back from is not one that failed it; retries are not used up."""
    scripted = ScriptedReplica([Act.HANG], [2.0, *GOOD], GOOD)
    settings = PoolSettings(retries=0)
    async with batch_at_work(scripted, settings=settings) as (r, batch):
        await r.ask(standing=standing("interactive"))
    assert batch.trace.replica == "http://r0"


async def test_a_put_back_is_no_retry(autojump_clock: Clock) -> None:
    """Neither counted as one, nor delayed like one."""
    scripted = ScriptedReplica([Act.RESET], [Act.HANG], [2.0, *GOOD], [BROKEN], GOOD)
    settings = PoolSettings(retries=2)
    async with batch_at_work(scripted, settings=settings) as (r, batch):
        await r.ask(standing=standing("interactive"))
        assert trio.current_time() == pytest.approx(3)
    trace = batch.trace
    assert (trace.attempts, trace.put_backs, trace.failures) == (3, 1, ["reset", "status"])
    assert trace.queued_s == pytest.approx(2)
    assert trio.current_time() == pytest.approx(3.2)


async def test_what_has_begun_is_not_put_back(autojump_clock: Clock) -> None:
    """The client has seen something: the other waits."""
    script = [*GOOD[:2], 3.0, *GOOD[2:]]
    async with batch_at_work(script) as (r, batch):
        trace = (await r.ask(standing=standing("interactive"))).trace
        assert trace.queued_s == pytest.approx(2)
    assert batch.trace.put_backs == 0


async def test_put_back_while_it_connects(autojump_clock: Clock) -> None:
    """Before there is anything to close but a connection half made."""
    async with relay(GOOD, max_in_flight=1) as r:
        r.network.serve("http://r0", r.scripted[0], connect_s=0.5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(r.ask, standing=standing("batch")))
            await trio.sleep(0.1)
            await r.ask(standing=standing("interactive"))
        assert r.served() == [2]


def probe_finds_nobody(replica: Replica) -> None:
    for _ in range(3):  # one that finds nobody may be chance
        replica.probed(False, trio.current_time(), refused=True)


def gpu_is_lost(replica: Replica) -> None:
    replica.gpu = GpuReading(at=trio.current_time(), fault="fell off the bus")


@pytest.mark.parametrize("lose", [probe_finds_nobody, gpu_is_lost])
async def test_a_lost_replica_is_left(
    lose: Callable[[Replica], None], autojump_clock: Clock
) -> None:
    """At once, without waiting for its silence to be noticed; that is a failed attempt."""
    hanging = ScriptedReplica([Act.HANG])
    client = NotingClient()
    async with batch_at_work(hanging, GOOD, client=client) as (r, dispatch):
        lose(r.replicas[0])
        await trio.testing.wait_all_tasks_blocked()
        assert hanging.left_at == [1]
    assert client.body == GOOD_BODY
    trace = dispatch.trace
    assert (trace.attempts, trace.failures, trace.put_backs) == (2, ["lost"], 0)
    assert trace.replica == "http://r1"


async def test_lost_with_nowhere_to_go(autojump_clock: Clock) -> None:
    """The client is told which replica, and why."""
    async with relay([Act.HANG], settings=PoolSettings(retries=0)) as r:
        with pytest.RaisesGroup(pytest.RaisesExc(ReplicaLost, match="replica http://r0: found")):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(r.ask)
                await trio.sleep(1)
                assert next(iter(r.replicas[0].unanswered)).reclaim("replica_lost")


@pytest.mark.parametrize("leaves_first", [True, False])
async def test_the_client_leaves_as_the_place_is_taken(
    leaves_first: bool, autojump_clock: Clock
) -> None:
    """Both at once: it does not come back to wait."""
    async with batch_at_work([Act.HANG]) as (r, dispatch):
        if leaves_first:
            dispatch.cancel("client_gone")
        assert next(iter(r.replicas[0].unanswered)).reclaim("put_back")
        dispatch.cancel("client_gone")
    assert dispatch.cancel_reason == "client_gone"
    assert r.served() == [1]
