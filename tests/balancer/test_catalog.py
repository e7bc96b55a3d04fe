"""Pools that are swapped while they serve."""

from __future__ import annotations

import trio
import trio.testing

from balancer.catalog import Catalog
from balancer.policies import LeastRequest
from balancer.pool import Pool
from balancer.replica import Replica
from balancer.wire.http1 import request_head
from balancer.wire.memory import MemoryDialer, memory_network
from tests.balancer.scripted import ScriptedReplica, answer


def pool(model: str, *replicas: Replica) -> Pool:
    return Pool(model, replicas, LeastRequest())


def test_find_and_replicas() -> None:
    """Models to pools; each replica once, in the order of the pools."""
    a, b, c = (Replica(f"http://{name}", MemoryDialer.__new__(MemoryDialer)) for name in "abc")
    catalog = Catalog([pool("x", b, a), pool("y", a, c)])
    found = catalog.find("y")
    assert found is not None
    assert found.model == "y"
    assert catalog.find("z") is None
    assert list(catalog.pools) == ["x", "y"]
    assert catalog.replicas == [b, a, c]
    assert Catalog().replicas == []


async def keep_one(replica: Replica) -> None:
    """One whole exchange, after which the connection is kept."""
    connection = await replica.connections.take(1)
    await connection.send(request_head("GET", b"/", []))
    await connection.head()
    while await connection.read():
        pass
    replica.connections.give_back(connection)
    assert replica.connections.idle == 1


async def test_replace(autojump_clock: trio.testing.MockClock) -> None:
    """Who waits is still served; kept connections go with the replicas no pool lists."""
    async with memory_network() as network:
        replicas = []
        for name in ("stays", "leaves"):
            network.serve(f"http://{name}", ScriptedReplica([answer(b"{}")]))
            replicas.append(Replica(f"http://{name}", network, max_in_flight=1))
            await keep_one(replicas[-1])
        stays, leaves = replicas
        old = pool("m", stays, leaves)
        catalog = Catalog([old])
        held = [await old.lease(), await old.lease()]
        async with trio.open_nursery() as nursery:
            waiter = nursery.start_soon
            waiter(old.lease)
            await trio.testing.wait_all_tasks_blocked()
            catalog.replace([pool("m", stays), pool("n", stays)])
            assert [stays.connections.idle, leaves.connections.idle] == [1, 0]
            assert network.open == 1
            assert catalog.replicas == [stays]
            held[0].release()
        assert (len(stays.listeners), leaves.listeners) == (2, [])


async def test_in_use_while_replaced(autojump_clock: trio.testing.MockClock) -> None:
    """A connection in use by a replica that leaves goes on, and is closed when given back."""
    async with memory_network() as network:
        network.serve("http://a", ScriptedReplica([answer(b"{}")]))
        replica = Replica("http://a", network)
        catalog = Catalog([pool("m", replica)])
        connection = await replica.connections.take(1)
        catalog.replace([])
        await connection.send(request_head("GET", b"/", []))
        assert await connection.read() == b"{}"
        replica.connections.give_back(connection)
        assert network.open == 0
