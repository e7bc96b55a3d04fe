"""Replicas that take their time before the first event."""

from __future__ import annotations

import pytest
import trio

from server.config import PoolConfig, ReplicaConfig, TimeoutConfig
from tests.e2e.faults.client import MODEL, post
from tests.e2e.faults.scripted import (
    HANG,
    REQUEST,
    STREAM_HEAD,
    FakeReplica,
    Script,
    chunk,
    delta,
    drip,
    json_answer,
    say,
)
from tests.e2e.kit import (
    PATIENT,
    asked,
    assert_failed,
    config_of,
    relaying,
    running_triolet,
)

JSON = json_answer(b'{"choices":[]}')
SILENCES: dict[str, Script] = {
    "never reads": [HANG],
    "never answers": [REQUEST, HANG],
    "stalls within the head": [REQUEST, say(STREAM_HEAD[:30]), HANG],
    "stalls after an interim answer": [REQUEST, say(b"HTTP/1.1 103 Hints\r\n\r\n"), HANG],
    "stalls after the head": [REQUEST, say(STREAM_HEAD), HANG],
    "stalls after a comment": [REQUEST, say(STREAM_HEAD + chunk(b": ping\n\n")), HANG],
    "stalls within the first event": [REQUEST, say(STREAM_HEAD + chunk(delta("x")[:9])), HANG],
    "stalls within a JSON answer": [REQUEST, say(JSON[:-3]), HANG],
    "trickles its head": [REQUEST, drip(STREAM_HEAD, 0.02), HANG],
    "trickles comments": [REQUEST, say(STREAM_HEAD), drip(chunk(b": ping\n\n") * 9, 0.02), HANG],
    "trickles its first event": [REQUEST, say(STREAM_HEAD), drip(chunk(delta("x")), 0.02), HANG],
    "trickles a JSON answer": [REQUEST, drip(JSON, 0.02), HANG],
}


@pytest.mark.parametrize("script", SILENCES.values(), ids=SILENCES)
async def test_first_byte(script: Script) -> None:
    """first_byte_s limits the wait for the first whole event, or for a whole answer."""
    limits = TimeoutConfig(connect_s=5, first_byte_s=0.1, idle_s=5, total_s=9)
    fake = FakeReplica(script)
    async with relaying(fake, timeouts=limits) as triolet:
        begun = trio.current_time()
        answer = await triolet.call(post())
        assert 0.1 <= trio.current_time() - begun < 0.5
        await assert_failed(triolet, answer, 504, "replica_timeout", "timeout_first_byte")
        assert "first_byte_s (0.1 s)" in answer.error["message"]
        assert answer.headers["x-should-retry"] == "false"
        assert answer.headers["x-triolet-replica"] == fake.url


async def test_slow_is_not_tried_elsewhere() -> None:
    """A request that just took long on one replica is not worth as long on another."""
    limits = TimeoutConfig(connect_s=5, first_byte_s=0.1, idle_s=5, total_s=9)
    slow, other = FakeReplica([REQUEST, HANG]), FakeReplica()
    async with relaying(slow, other, timeouts=limits) as triolet:
        answer = await triolet.call(post())
        await assert_failed(triolet, answer, 504, "replica_timeout", "timeout_first_byte")
        assert other.requests == []


async def test_total_before_the_first_event() -> None:
    """total_s counts from the request's arrival, over all attempts."""
    limits = TimeoutConfig(connect_s=5, first_byte_s=5, idle_s=5, total_s=0.15)
    fake = FakeReplica([REQUEST, HANG])
    async with relaying(fake, timeouts=limits) as triolet:
        begun = trio.current_time()
        answer = await triolet.call(post())
        assert 0.15 <= trio.current_time() - begun < 0.5
        await assert_failed(triolet, answer, 504, "replica_timeout", "timeout_total")
        assert "total_s (0.15 s)" in answer.error["message"]
        assert answer.headers["x-should-retry"] == "false"


async def test_total_while_connecting() -> None:
    """The shortest limit holds, also where another one speaks of the same wait."""
    limits = TimeoutConfig(connect_s=5, first_byte_s=5, idle_s=5, total_s=0.15)
    fake = FakeReplica()
    async with relaying(fake, timeouts=limits) as triolet:
        fake.stop_accepting()
        answer = await triolet.call(post())
        await assert_failed(triolet, answer, 504, "replica_timeout", "timeout_total")


async def test_total_while_queued() -> None:
    """Also before any replica was asked; then there is no attempt and no replica to name."""
    fake = FakeReplica([REQUEST, HANG])
    replica = ReplicaConfig(url=fake.url, max_in_flight=1)
    patient = PoolConfig(model=MODEL, replicas=(replica,), timeouts=PATIENT)
    limits = TimeoutConfig(connect_s=5, first_byte_s=5, idle_s=5, total_s=0.15)
    hurried = PoolConfig(model="hurried", replicas=(replica,), timeouts=limits)
    async with running_triolet(config_of(patient, hurried), fake) as triolet:
        async with triolet.client() as first:
            await first.send(post())
            await asked(fake)
            answer = await triolet.call(post(model="hurried"))
        assert (answer.status, answer.error["code"]) == (504, "replica_timeout")
        assert answer.headers["x-triolet-attempts"] == "0"
        assert "x-triolet-replica" not in answer.headers
        assert (await triolet.logged())["outcome"] == "timeout_total"
        assert len(fake.requests) == 1
