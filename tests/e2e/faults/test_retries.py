"""Which replica is tried next, and when trying ends."""

from __future__ import annotations

import pytest
import trio

from server.config import TimeoutConfig
from tests.e2e.faults.client import post
from tests.e2e.faults.scripted import (
    CLOSE,
    DONE,
    HANG,
    HEALTHY,
    REQUEST,
    RESET,
    STREAM_HEAD,
    FakeReplica,
    chunk,
    delta,
    forever,
    json_answer,
    say,
    until,
)
from tests.e2e.kit import asked, assert_failed, assert_served, relaying

BUSY = forever(REQUEST, say(json_answer(b'{"error":"busy"}', "503 Busy")))


@pytest.mark.parametrize("policy", ["round_robin", "least_request", "random"])
async def test_each_replica_once(policy: str) -> None:
    """Whatever the policy: no replica is asked twice while others remain."""
    bad = [FakeReplica([REQUEST, RESET]), FakeReplica(BUSY), FakeReplica([REQUEST, CLOSE])]
    good = FakeReplica()
    async with relaying(*bad, good, policy=policy, retries=3) as triolet:
        for _ in range(4):
            assert (await triolet.call(post())).text == "Hello"
            assert all(len(fake.requests) <= 1 for fake in bad)
            for fake in bad:
                for peer in fake.peers:
                    peer.requests.clear()


async def test_no_more_than_retries() -> None:
    """After `retries` the last failure is the answer, though another replica remains."""
    fakes = [FakeReplica([REQUEST, RESET]) for _ in range(4)]
    async with relaying(*fakes, retries=2) as triolet:
        answer = await triolet.call(post())
        await assert_failed(triolet, answer, 502, "replica_failed", "reset", attempts=3)
        assert sorted(len(fake.requests) for fake in fakes) == [0, 1, 1, 1]
        assert triolet.failed_attempts() == {"reset": 3}


async def test_the_default_is_two() -> None:
    """A pool that says nothing of retries tries three times in all."""
    fakes = [FakeReplica([REQUEST, RESET]) for _ in range(4)]
    async with relaying(*fakes) as triolet:
        assert (await triolet.call(post())).headers["x-triolet-attempts"] == "3"
        assert sum(len(fake.requests) for fake in fakes) == 3


async def test_the_same_replica_if_there_is_no_other() -> None:
    """After a pause, so that a replica in trouble is not hammered."""
    fake = FakeReplica([REQUEST, RESET], HEALTHY)
    async with relaying(fake) as triolet:
        begun = trio.current_time()
        await assert_served(triolet, await triolet.call(post()), fake, attempts=2)
        assert trio.current_time() - begun >= 0.1


async def test_one_more_round_when_all_have_failed() -> None:
    """With two replicas and two retries the third try goes to one that has failed before."""
    first = FakeReplica([REQUEST, RESET], HEALTHY)
    second = FakeReplica([REQUEST, RESET], HEALTHY)
    async with relaying(first, second) as triolet:
        answer = await triolet.call(post())
        assert (answer.text, answer.headers["x-triolet-attempts"]) == ("Hello", "3")
        assert {len(first.requests), len(second.requests)} == {1, 2}


async def test_the_request_is_the_same_each_time() -> None:
    """Body and headers reach the second replica as they reached the first."""
    bad, good = FakeReplica([REQUEST, RESET]), FakeReplica()
    async with relaying(bad, good) as triolet:
        await triolet.call(post(headers=b"x-own: yes\r\n", seed=1, unknown={"a": [1e3]}))
        one, two = bad.requests[0], good.requests[0]
        assert one.body == two.body
        assert b'"unknown":{"a":[1000.0]}' in one.body
        for asked in (one, two):
            asked.headers.pop("host")
        assert (one.line, one.headers) == (two.line, two.headers)
        assert one.headers["x-own"] == "yes"


async def test_nothing_after_the_first_event() -> None:
    """Neither another replica nor the same one is asked again, and the client is told."""
    begun = say(STREAM_HEAD + chunk(delta("Hel")))
    fakes = [FakeReplica([REQUEST, begun, CLOSE]) for _ in range(2)]
    async with relaying(*fakes, retries=5) as triolet:
        answer = await triolet.call(post())
        assert (answer.status, answer.text, answer.whole) == (200, "Hel", True)
        assert DONE not in answer.body
        assert answer.last_event["error"]["code"] == "replica_failed"
        assert [len(fake.requests) for fake in fakes] == [1, 0]


async def test_a_full_replica_is_waited_for() -> None:
    """The next try waits for room on another replica before it asks the failed one again."""
    turn = trio.Event()

    other = FakeReplica([REQUEST, until(turn), say(json_answer(b"{}")), *HEALTHY])
    bad = FakeReplica([REQUEST, RESET])
    async with relaying(other, bad, max_in_flight=1) as triolet:
        async with triolet.client() as first, triolet.client() as second:
            await first.send(post(stream=False))
            await asked(other)
            await second.send(post())
            await triolet.queued(1)
            turn.set()
            assert (await first.answer()).body == b"{}"
            answer = await second.answer()
        assert (answer.text, answer.headers["x-triolet-attempts"]) == ("Hello", "2")
        assert answer.headers["x-triolet-replica"] == other.url
        assert len(bad.requests) == 1


async def test_the_lease_of_a_failed_try_is_given_back() -> None:
    """With room for one call on each replica, a hundred calls that fail once all get through."""
    bad, good = FakeReplica([REQUEST, RESET]), FakeReplica()
    async with relaying(bad, good, max_in_flight=1) as triolet:
        for _ in range(50):
            assert (await triolet.call(post())).text == "Hello"
        assert triolet.outcomes() == {"ok": 50}


async def test_unreachable_and_hanging_at_once() -> None:
    """One replica refuses and one hangs: the call waits for the one that may still answer."""
    refusing, hanging = FakeReplica(), FakeReplica([REQUEST, HANG])
    async with relaying(refusing, hanging) as triolet, triolet.client() as client:
        refusing.refuse()
        await client.send(post())
        await asked(hanging)
        assert triolet.triolet.relay.in_flight == 1
        client.leave()
        await hanging.peers[0].gone.wait()


async def test_pauses_are_not_the_replicas_silence() -> None:
    """first_byte_s limits each try's wait for the replica, not the pauses between tries."""
    limits = TimeoutConfig(connect_s=3, first_byte_s=0.15, idle_s=3, total_s=4)
    fake = FakeReplica([REQUEST, RESET], [REQUEST, RESET], HEALTHY)
    async with relaying(fake, timeouts=limits) as triolet:
        await assert_served(triolet, await triolet.call(post()), fake, attempts=3)
