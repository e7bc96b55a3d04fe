"""Requests that try out a replica after failures are not given all the time there is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from balancer.breaker import BreakerSettings
from balancer.dispatch import Dispatch, Request
from balancer.errors import Overdue
from balancer.pool import Pool
from balancer.replica import ReplicaSettings
from tests.balancer.relays import GOOD, TIMEOUTS, Relay, Script, relay
from tests.balancer.scripted import Act, NotingClient, Step, answer

Clock = trio.testing.MockClock
JUDGED = ReplicaSettings(BreakerSettings(failures_in_a_row=1, rest_s=0.5))
PATIENT = TIMEOUTS._replace(first_byte_s=30, total_s=600)


@asynccontextmanager
async def on_trial(
    then: list[Step], *others: Script, fallback: tuple[Script, ...] = (), usual_s: float = 0.1
) -> AsyncIterator[Relay]:
    """The first replica has failed and rested, and is tried out now; streams begin soon here."""
    chain = [fallback] if fallback else []
    async with relay(then, *others, fallback=chain, timeouts=PATIENT, judged=JUDGED) as r:
        for pool in r.pools[1:]:
            for _ in range(40):
                pool.patience.waited(usual_s)
        for _ in range(40):
            r.pool.patience.waited(usual_s)
        lease = await r.pool.lease()
        lease.failed(Overdue("first_byte", 1))
        lease.release()
        await trio.sleep(1)
        assert r.replicas[0].state(trio.current_time()) == "trial"
        yield r


@pytest.mark.parametrize(("usual_s", "limit_s"), [(0.1, 5), (2.0, 8)])
async def test_a_silent_trial_is_left(
    usual_s: float, limit_s: float, autojump_clock: Clock
) -> None:
    """After 5 s, or four times what is usual; another replica serves it, and the breaker opens."""
    async with on_trial([Act.HANG], GOOD, usual_s=usual_s) as r:
        began = trio.current_time()
        trace = (await r.ask()).trace
        assert trio.current_time() - began == pytest.approx(limit_s, rel=0.15)
        assert (trace.failures, trace.replica, trace.attempts) == (["lost"], "http://r1", 2)
        assert r.replicas[0].breaker.standing == "open"


async def test_a_trial_that_begins_closes_the_breaker(autojump_clock: Clock) -> None:
    """In its own time."""
    async with on_trial([4.0, *GOOD], GOOD) as r:
        for _ in range(2):
            assert (await r.ask()).trace.replica == "http://r0"
        assert r.replicas[0].breaker.standing == "closed"


async def test_with_nowhere_else_to_go_it_is_waited_for(autojump_clock: Clock) -> None:
    """A replica that warms up after a restart would else never get to it."""
    async with on_trial([20.0, *GOOD]) as r:
        assert (await r.ask()).trace.attempts == 1


async def test_another_pool_is_somewhere_else(autojump_clock: Clock) -> None:
    """Then the request falls back."""
    async with on_trial([Act.HANG], fallback=(GOOD,)) as r:
        trace = (await r.ask()).trace
        assert (trace.fell_back_from, trace.failures) == (["m"], ["lost"])


async def test_a_whole_answer_takes_its_time(autojump_clock: Clock) -> None:
    """What begins only when it ends is not measured by when streams begin."""

    async def request(pool: Pool) -> Request:
        return Request("POST", b"/v1/chat/completions", [], b"{}", stream=False)

    async with on_trial([20.0, answer(b"{}")], GOOD) as r:
        dispatch = Dispatch([r.pool], request, NotingClient(), now=trio.current_time())
        await dispatch.run()
        assert dispatch.trace.replica == "http://r0"
