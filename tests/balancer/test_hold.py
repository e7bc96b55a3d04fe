"""A head is held back until an event carries something; TTFT is measured to that event."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from balancer.errors import Overdue, ReplicaRefused, StreamCut
from balancer.pool import PoolSettings
from tests.balancer.relays import GOOD, GOOD_BODY, relay
from tests.balancer.scripted import (
    DONE,
    LAST_CHUNK,
    STREAM_HEAD,
    Act,
    NotingClient,
    ScriptedReplica,
    Step,
    chunk,
    event,
    stream,
)

Clock = trio.testing.MockClock
ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
ERROR = b'data: {"error":{"code":503}}\n\n'
BEGUN: list[Step] = [STREAM_HEAD, chunk(ROLE)]


def held(hold_s: float) -> PoolSettings:
    return PoolSettings(hold_s=hold_s)


async def test_nothing_is_sent_before_something_is_said(autojump_clock: Clock) -> None:
    """The role alone stays here; then all that came is one piece."""
    async with relay([*BEGUN, 0.6, chunk(event("a")), 1.0, chunk(DONE), LAST_CHUNK]) as r:
        client = NotingClient()
        trace = (await r.ask(client)).trace
        assert client.pieces[0][0] == pytest.approx(0.6)
        assert client.pieces[0][1] == ROLE + event("a")
        assert client.body == ROLE + event("a") + DONE
        assert trace.ttft_s == pytest.approx(0.6)
        assert trace.events == 3


async def test_it_costs_no_time_if_it_comes_at_once(autojump_clock: Clock) -> None:
    """As from engines that send the role with the first token."""
    async with relay([STREAM_HEAD, chunk(ROLE + event("a")), 0.5, *GOOD[2:]]) as r:
        client = NotingClient()
        await r.ask(client)
        assert client.pieces[0] == (0, ROLE + event("a"))


@pytest.mark.parametrize(
    "then",
    [
        [Act.RESET],
        [Act.CLOSE],
        [chunk(ERROR)],
        [chunk(ERROR[:9]), 0.1, chunk(ERROR[9:])],
        [LAST_CHUNK],
        [b"garbage\r\n"],
        [chunk(b": ping\n\n"), 0.3, chunk(ROLE), 0.3, Act.RESET],
    ],
    ids=["reset", "closed", "error", "error in halves", "ended", "garbage", "role again"],
)
@pytest.mark.parametrize("together", [False, True])
async def test_what_fails_meanwhile_is_repaired(
    then: list[Step], together: bool, autojump_clock: Clock
) -> None:
    """The client sees the second replica's answer alone."""
    begun: list[Step] = BEGUN if together else [*BEGUN, 0.2]
    async with relay([*begun, *then], GOOD) as r:
        client = NotingClient()
        trace = (await r.ask(client)).trace
        assert client.body == GOOD_BODY
        assert (trace.attempts, trace.replica) == (2, "http://r1")
        assert r.policy.count("answered") == 1


async def test_an_error_behind_the_role_keeps_its_words(autojump_clock: Clock) -> None:
    """It is told as the replica's refusal, with nobody else to ask."""
    async with relay(stream(ROLE, b'data: {"error":{"code":400}}\n\n')) as r:
        with pytest.raises(ReplicaRefused) as caught:
            await r.ask()
        assert (caught.value.status, caught.value.body) == (400, b'{"error":{"code":400}}')


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(("hold_s", "head_at"), [(1.0, 1.0), (0.3, 0.3), (0.0, 0.0)])
async def test_the_hold_ends(
    hold_s: float, head_at: float, fast: bool, autojump_clock: Clock
) -> None:
    """Then the client gets its head; the first event and TTFT are still to come."""
    script: list[Step] = [*BEGUN, 3.0, chunk(event("a")), 0.5, chunk(DONE), LAST_CHUNK]
    async with relay(script, settings=held(hold_s)) as r:
        client = NotingClient(fast=fast)
        trace = (await r.ask(client)).trace
        assert client.pieces[0][0] == pytest.approx(head_at)
        assert client.pieces[0][1] == ROLE
        assert client.body == ROLE + event("a") + DONE
        assert trace.ttft_s == trace.observed_ttft_s == pytest.approx(3)
        assert trace.events == 3
        assert r.policy.count("answered") == 1


async def test_the_policy_learns_of_the_first_token(autojump_clock: Clock) -> None:
    """Not of the role: until then the replica counts as reading."""
    async with relay([*BEGUN, 3.0, *GOOD[1:]]) as r, trio.open_nursery() as nursery:
        nursery.start_soon(r.ask)
        await trio.sleep(2)
        assert (r.policy.count("answered"), r.replicas[0].load.waiting) == (0, 1)
        await trio.sleep(1.1)
        assert r.policy.count("answered") == 1


async def test_a_committed_one_is_not_taken_back(autojump_clock: Clock) -> None:
    """What the client has seen of a replica's answer binds it to that replica."""
    async with relay([*BEGUN, 3.0, *GOOD[1:]], GOOD) as r, trio.open_nursery() as nursery:
        client = NotingClient()
        nursery.start_soon(r.ask, client)
        await trio.sleep(2)
        assert not r.pool.statistics().waiting
        assert not next(iter(r.replicas[0].unanswered)).reclaim("replica_lost")
        await trio.sleep(2)
        assert client.ended
        assert r.served() == [1, 0]


@pytest.mark.parametrize("act", [Act.RESET, Act.CLOSE])
async def test_a_failure_after_the_hold_is_told(act: Act, autojump_clock: Clock) -> None:
    """It counts against the replica as one before its first event."""
    async with relay([*BEGUN, 2.0, act], GOOD) as r:
        client = NotingClient()
        with pytest.raises(StreamCut):
            await r.ask(client)
        assert client.body == ROLE
        assert (r.served(), r.replicas[0].failures) == ([1, 0], 1)
        assert r.policy.count("answered") == 0


async def test_an_error_after_the_hold_is_passed_on(autojump_clock: Clock) -> None:
    """The replica's own words, in-band; they are no first event."""
    async with relay([*BEGUN, 2.0, chunk(ERROR), chunk(DONE), LAST_CHUNK], GOOD) as r:
        client = NotingClient()
        trace = (await r.ask(client)).trace
        assert client.body == ROLE + ERROR + DONE
        assert (trace.ttft_s, r.policy.count("answered")) == (None, 0)
        assert r.replicas[0].pause.until > 0


async def test_first_byte_s_holds_after_the_hold(autojump_clock: Clock) -> None:
    """A stream that has said nothing is no idle one; what it repeats does not prolong it."""
    again: list[Step] = [1.0, chunk(ROLE)]
    script: list[Step] = [*BEGUN, *again * 9]
    async with relay(script, GOOD) as r:
        with pytest.raises(Overdue) as caught:
            await r.ask()
        assert caught.value.phase == "first_byte"
        assert trio.current_time() == pytest.approx(5)
        assert r.replicas[0].failures == 1
        await trio.sleep(10)


async def test_a_long_prelude_is_not_held_for_ever(autojump_clock: Clock) -> None:
    """64 KiB of it are enough."""
    role = ROLE.replace(b"assistant", b"a" * 4_000)
    script: list[Step] = [STREAM_HEAD, *[chunk(role)] * 40, 0.5, *GOOD[1:]]
    async with relay(script) as r:
        client = NotingClient()
        await r.ask(client)
        first_at, first = client.pieces[0]
        assert first_at == 0
        assert 65_536 <= len(first) < 140_000
        assert client.body.endswith(GOOD_BODY)


async def test_an_unfinished_event_is_not_lost(autojump_clock: Clock) -> None:
    """A stream that ends in an event without its last newline passes, as without a hold."""
    async with relay(stream(ROLE, event("a")[:-2])) as r:
        client = NotingClient()
        await r.ask(client)
        assert client.body == ROLE + event("a")[:-2]


async def test_a_slow_client_after_the_hold(autojump_clock: Clock) -> None:
    """Its slowness is not the replica's silence."""
    script: list[Step] = [*BEGUN, 2.0, chunk(ROLE), chunk(event("a")), 0.5, *GOOD[1:]]
    async with relay(ScriptedReplica(script)) as r:
        client = NotingClient(start_s=20, drain_s=20, takes_bytes=200)
        await r.ask(client)
        assert client.ended
