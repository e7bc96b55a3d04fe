"""When a try that failed is tried again in its pool, and what it costs."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from balancer.breaker import BreakerSettings
from balancer.errors import AnswerLost, ReplicaRefused
from balancer.pool import PoolSettings
from balancer.replica import ReplicaSettings
from balancer.retry import BudgetSettings
from tests.balancer.relays import GOOD, GOOD_BODY, relay
from tests.balancer.scripted import (
    STREAM_HEAD,
    Act,
    NotingClient,
    ScriptedReplica,
    Step,
    answer,
    chunk,
)

Clock = trio.testing.MockClock
NO_BUDGET = PoolSettings(retry_budget=BudgetSettings(0, 0, 10))
FULL = answer(b"full", status=503)


def full_for(retry_after: bytes) -> list[Step]:
    return [answer(b"full", status=429, headers=[b"retry-after: " + retry_after])]


async def test_the_only_replica_is_asked_again_after_its_pause(autojump_clock: Clock) -> None:
    """One that says it is full rests for a quarter of a second, not for a back-off alone."""
    async with relay(ScriptedReplica([FULL], GOOD)) as r:
        trace = (await r.ask()).trace
        assert trio.current_time() == pytest.approx(0.25)
        assert (trace.attempts, r.replicas[0].failures) == (2, 0)
        assert trace.queued_s == pytest.approx(0.15)


async def test_it_is_asked_again_when_it_said(autojump_clock: Clock) -> None:
    """`Retry-After` is kept, if it is soon."""
    async with relay(ScriptedReplica(full_for(b"1"), GOOD)) as r:
        assert (await r.ask()).trace.attempts == 2
        assert trio.current_time() == pytest.approx(1)


async def test_who_asks_for_more_patience_is_quoted(autojump_clock: Clock) -> None:
    """With nobody else there the client learns at once when to come back."""
    async with relay(full_for(b"30")) as r:
        with pytest.raises(ReplicaRefused) as caught:
            await r.ask()
        assert (b"retry-after", b"30") in caught.value.headers
        assert (trio.current_time(), r.served()) == (0, [1])


async def test_others_need_no_patience(autojump_clock: Clock) -> None:
    """Another replica takes over at once, however long the first one wants to be left alone."""
    async with relay(full_for(b"30"), GOOD) as r:
        await r.ask()
        assert (trio.current_time(), r.served()) == (0, [1, 1])


async def test_a_refusal_is_retried_within_the_budget(autojump_clock: Clock) -> None:
    """It comes from a replica at work: that is how overload spreads."""
    async with relay([FULL], GOOD, settings=NO_BUDGET) as r:
        with pytest.raises(ReplicaRefused):
            await r.ask()
        assert r.served() == [1, 0]


@pytest.mark.parametrize("gone", [None, [Act.RESET]], ids=["refuses", "resets"])
async def test_moving_off_a_dead_replica_is_free(
    gone: list[Step] | None, autojump_clock: Clock
) -> None:
    """No budget is needed where nobody does work twice, and another replica is there."""
    async with relay(gone, GOOD, settings=NO_BUDGET) as r:
        assert (await r.ask()).trace.attempts == 2


async def test_going_back_to_it_is_not(autojump_clock: Clock) -> None:
    """The same failure with no other replica left: that is a retry like any other."""
    async with relay([Act.RESET], settings=NO_BUDGET) as r:
        with pytest.raises(AnswerLost):
            await r.ask()
        assert r.served() == [1]


async def test_a_request_counts_once_in_the_budget(autojump_clock: Clock) -> None:
    """Of ten requests a fifth may be retried: two, whoever they are."""
    settings = PoolSettings(retry_budget=BudgetSettings(0.2, 0, 10))
    judged = ReplicaSettings(BreakerSettings(failures_in_a_row=99, volume=99))
    async with relay([answer(b"", status=502)], GOOD, settings=settings, judged=judged) as r:
        outcomes = []
        for _ in range(10):
            try:
                outcomes.append((await r.ask()).trace.attempts)
            except ReplicaRefused:
                outcomes.append(0)
        assert outcomes.count(2) == 2
        assert outcomes.count(0) == 8


async def test_what_the_client_sees_of_a_retry(autojump_clock: Clock) -> None:
    """The second replica's answer, whole; the first one's beginning never."""
    beginning = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
    async with relay([STREAM_HEAD, chunk(beginning), Act.RESET], GOOD) as r:
        client = NotingClient()
        await r.ask(client)
        assert client.body == GOOD_BODY
