"""Replicas come and go by the admin API while calls run: nobody who is being served notices."""

from __future__ import annotations

import json
from typing import Any

import trio

from server.config import PoolConfig, ReplicaConfig
from tests.e2e.faults.client import MODEL, post
from tests.e2e.faults.scripted import (
    DONE,
    END,
    HEALTHY,
    REQUEST,
    STREAM_HEAD,
    FakeReplica,
    Script,
    chunk,
    delta,
    say,
    until,
)
from tests.e2e.kit import ADMIN_KEY, PATIENT, Running, asked, config_of, eventually, running_triolet

_REST = say(chunk(delta("lo")) + chunk(DONE) + END)


def gated(turn: trio.Event) -> Script:
    """A stream that goes on when the test says so."""
    return [REQUEST, say(STREAM_HEAD + chunk(delta("Hel"))), until(turn), _REST, *HEALTHY]


def admin(method: str, path: str = "/admin/api/replicas", **fields: Any) -> bytes:
    """A request to the admin API."""
    body = json.dumps(fields).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {ADMIN_KEY}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def change(triolet: Running, method: str, fake: FakeReplica, **fields: Any) -> None:
    """Add (POST) or remove (DELETE) a replica of the only pool."""
    answer = await triolet.call(admin(method, model=MODEL, url=fake.url, **fields))
    assert answer.status in (200, 201), answer.body


async def probed(triolet: Running) -> None:
    """Wait for the health probes: a fake replica takes its first connection for one."""
    assert await eventually(lambda: all(one.probed_up for one in triolet.replicas))


async def used_before_it_is_probed(fake: FakeReplica) -> None:
    """Whoever waits is sent to a new replica at once. Have it play its script from the start."""
    port = int(fake.url.rpartition(":")[2])
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n")
        assert await stream.receive_some()


def pool(*fakes: FakeReplica, max_in_flight: int | None = None) -> PoolConfig:
    replicas = tuple(ReplicaConfig(url=fake.url, max_in_flight=max_in_flight) for fake in fakes)
    return PoolConfig(model=MODEL, replicas=replicas, timeouts=PATIENT, policy="round_robin")


async def test_a_removed_replica_finishes_its_streams() -> None:
    """New calls go elsewhere at once; the stream ends well, then its connection is closed."""
    turn = trio.Event()
    old, new = FakeReplica(gated(turn)), FakeReplica()
    async with running_triolet(config_of(pool(old)), old, new) as triolet:
        async with triolet.client() as client:
            await client.send(post())
            await client.body_so_far(b"Hel")
            await change(triolet, "POST", new)
            await probed(triolet)
            await change(triolet, "DELETE", old)
            for _ in range(3):
                answer = await triolet.call(post())
                assert (answer.text, answer.headers["x-triolet-replica"]) == ("Hello", new.url)
            assert triolet.triolet.relay.in_flight == 1
            turn.set()
            answer = await client.answer()
            assert (answer.text, answer.events[-1]) == ("Hello", DONE.strip())
        assert await eventually(lambda: old.open == 0), "its connection is kept for nobody"
        assert len(old.requests) == 1
        assert triolet.outcomes() == {"ok": 4}


async def test_streams_elsewhere_are_not_disturbed() -> None:
    """Every other replica is added and removed around a stream; it goes on."""
    turn = trio.Event()
    own, others = FakeReplica(gated(turn), HEALTHY), [FakeReplica() for _ in range(3)]
    async with running_triolet(config_of(pool(own)), own, *others) as triolet:
        async with triolet.client() as client:
            await client.send(post())
            await client.body_so_far(b"Hel")
            for _ in range(2):
                for other in others:
                    await change(triolet, "POST", other)
                    await probed(triolet)
                    await triolet.call(post())
                for other in others:
                    await change(triolet, "DELETE", other)
            turn.set()
            assert (await client.answer()).text == "Hello"
        assert triolet.outcomes() == {"ok": 7}
        assert triolet.failed_attempts() == {}


async def test_who_waits_is_served_by_one_that_comes() -> None:
    """At once, not when the replica that is busy has room again."""
    turn = trio.Event()
    busy, new = FakeReplica(gated(turn)), FakeReplica()
    config = config_of(pool(busy, max_in_flight=1))
    async with running_triolet(config, busy, new) as triolet:
        await used_before_it_is_probed(new)
        async with triolet.client() as client, triolet.client() as waiter:
            await client.send(post())
            await client.body_so_far(b"Hel")
            await waiter.send(post())
            await triolet.queued(1)
            await change(triolet, "POST", new, max_in_flight=1)
            answer = await waiter.answer()
            assert (answer.text, answer.headers["x-triolet-replica"]) == ("Hello", new.url)
            turn.set()
            assert (await client.answer()).text == "Hello"
        await change(triolet, "DELETE", new)


async def test_the_last_one_goes_and_another_comes() -> None:
    """Between the two a call waits, as it does while all are busy."""
    old, new = FakeReplica(), FakeReplica()
    async with running_triolet(config_of(pool(old)), old, new) as triolet:
        await used_before_it_is_probed(new)
        await change(triolet, "DELETE", old)
        async with triolet.client() as waiter:
            await waiter.send(post())
            assert await eventually(lambda: triolet.waiting == 1)
            await change(triolet, "POST", new)
            answer = await waiter.answer()
            assert (answer.text, answer.headers["x-triolet-replica"]) == ("Hello", new.url)


async def test_drained() -> None:
    """It gets no more calls and finishes what it has; drained no longer, it is used again."""
    turn = trio.Event()
    one, other = FakeReplica(gated(turn), HEALTHY), FakeReplica()
    path = "/admin/api/replicas/drain"
    async with running_triolet(config_of(pool(one, other)), one, other) as triolet:
        async with triolet.client() as client:
            await client.send(post())
            await client.body_so_far(b"Hel")
            answer = await triolet.call(admin("POST", path, url=one.url))
            expected = {"url": one.url, "draining": True, "in_flight": 1, "runs": 0}
            assert answer.json() == expected
            for _ in range(3):
                answer = await triolet.call(post())
                assert answer.headers["x-triolet-replica"] == other.url
            turn.set()
            assert (await client.answer()).text == "Hello"
        await triolet.call(admin("POST", path, url=one.url, draining=False))
        used = {(await triolet.call(post())).headers["x-triolet-replica"] for _ in range(2)}
        assert used == {one.url, other.url}


async def test_removed_before_it_answers() -> None:
    """A call that the replica has and has not answered is still the replica's."""
    turn = trio.Event()
    old = FakeReplica(
        [REQUEST, until(turn), say(STREAM_HEAD + chunk(delta("Hel"))), _REST, *HEALTHY]
    )
    new = FakeReplica()
    async with running_triolet(config_of(pool(old)), old, new) as triolet:
        async with triolet.client() as client:
            await client.send(post())
            await asked(old)
            await change(triolet, "POST", new)
            await change(triolet, "DELETE", old)
            turn.set()
            answer = await client.answer()
            assert (answer.text, answer.headers["x-triolet-replica"]) == ("Hello", old.url)
            assert answer.headers["x-triolet-attempts"] == "1"
        assert new.requests == []
