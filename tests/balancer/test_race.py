"""Hedged requests: a first event asked for twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from balancer.admission import Standing
from balancer.dispatch import Dispatch, Request
from balancer.errors import AnswerLost, AttemptFailed, Overdue
from balancer.hedge import HedgeSettings
from balancer.policies import Explanation
from balancer.pool import Pool, PoolSettings
from tests.balancer.relays import GOOD, GOOD_BODY, JSON, TIMEOUTS, Relay, Script, relay
from tests.balancer.scripted import (
    STREAM_HEAD,
    Act,
    NotingClient,
    ScriptedReplica,
    Step,
    answer,
    chunk,
    event,
    stream,
)

Clock = trio.testing.MockClock
AFTER_S = 2.0
HEDGED = PoolSettings(hedge=HedgeSettings(after_s=AFTER_S), retries=0)
ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'


@asynccontextmanager
async def hedging(
    *scripts: Script, settings: PoolSettings = HEDGED, max_in_flight: int | None = None
) -> AsyncIterator[Relay]:
    async with relay(*scripts, settings=settings, max_in_flight=max_in_flight) as r:
        yield r


def told(dispatch: Dispatch) -> tuple[bool, bool, str | None, int]:
    trace = dispatch.trace
    return trace.hedged, trace.hedge_won, trace.replica, trace.attempts


async def test_a_quick_answer_is_not_hedged(autojump_clock: Clock) -> None:
    """Whoever begins within the time is alone."""
    async with hedging([1.9, *GOOD], GOOD) as r:
        client = NotingClient()
        assert told(await r.ask(client)) == (False, False, "http://r0", 1)
        assert (client.body, r.served()) == (GOOD_BODY, [1, 0])


async def test_the_second_wins(autojump_clock: Clock) -> None:
    """Its answer is relayed; the first one's work is stopped in that instant, and abandoned."""
    slow = ScriptedReplica([Act.HANG])
    async with hedging(slow, [0.5, *GOOD]) as r:
        client = NotingClient()
        dispatch = await r.ask(client)
        assert told(dispatch) == (True, True, "http://r1", 1)
        assert client.body == GOOD_BODY
        await trio.testing.wait_all_tasks_blocked()
        assert slow.left_at == [AFTER_S + 0.5]
        assert dispatch.trace.ttft_s == pytest.approx(AFTER_S + 0.5)
        assert dispatch.trace.observed_ttft_s == pytest.approx(0.5)
        assert [lease.replica.name for lease in dispatch.trace.leases] == ["http://r0", "http://r1"]
        assert [kind for kind, name, _ in r.policy.told if name == "http://r0"] == [
            "leased",
            "released",
        ]
        assert r.replicas[0].failures == 0


async def test_the_first_wins(autojump_clock: Clock) -> None:
    """A head start of two seconds may be enough all the same."""
    slow = ScriptedReplica([STREAM_HEAD, Act.HANG])
    async with hedging([3.0, *GOOD], slow) as r:
        client = NotingClient()
        dispatch = await r.ask(client)
        assert told(dispatch) == (True, False, "http://r0", 1)
        assert client.body == GOOD_BODY
        await trio.testing.wait_all_tasks_blocked()
        assert slow.left_at == [3]
        assert dispatch.trace.leases[-1].replica.name == "http://r0"


@pytest.mark.parametrize("gap_s", [0.0, 0.001])
async def test_a_dead_heat(gap_s: float, autojump_clock: Clock) -> None:
    """Both in one instant: one answer, whole, and the other is let go."""
    async with hedging([3.0, *GOOD], [1.0 - gap_s, *GOOD]) as r:
        client = NotingClient()
        await r.ask(client)
        assert client.body == GOOD_BODY
        assert r.served() == [1, 1]


async def test_a_role_does_not_win(autojump_clock: Clock) -> None:
    """Who says nothing first has not begun; nor does the hold's end decide a race."""
    async with hedging([STREAM_HEAD, chunk(ROLE), Act.HANG], [1.5, *GOOD]) as r:
        client = NotingClient()
        assert told(await r.ask(client))[1:3] == (True, "http://r1")
        assert client.body == GOOD_BODY


async def test_a_failure_before_the_hedge(autojump_clock: Clock) -> None:
    """Is one like any other: retried at once, and not hedged twice."""
    settings = HEDGED._replace(retries=1)
    async with hedging([1.0, Act.RESET], [1.0, *GOOD], settings=settings) as r:
        dispatch = await r.ask()
        assert told(dispatch) == (False, False, "http://r1", 2)
        assert dispatch.trace.failures == ["reset"]
        assert trio.current_time() == pytest.approx(2)


@pytest.mark.parametrize("fails", [0, 1])
async def test_one_that_fails_leaves_the_other(fails: int, autojump_clock: Clock) -> None:
    """The race goes on with one; nobody is asked a third time."""
    failing: list[list[Step]] = [[3.0, Act.RESET], [1.0, Act.RESET]]
    scripts: list[list[Step]] = [[4.0, *GOOD], [2.0, *GOOD]]
    scripts[fails] = failing[fails]
    async with hedging(*scripts, GOOD) as r:
        client = NotingClient()
        trace = (await r.ask(client)).trace
        assert client.body == GOOD_BODY
        assert (trace.hedge_won, trace.attempts, trace.failures) == (fails == 0, 1, [])
        assert r.served() == [1, 1, 0]
        assert r.replicas[fails].failures == 1


async def test_both_fail(autojump_clock: Clock) -> None:
    """That is one failure, and one retry, at neither of the two."""
    settings = HEDGED._replace(retries=1)
    async with hedging([3.0, Act.RESET], [0.5, Act.RESET], GOOD, settings=settings) as r:
        dispatch = await r.ask()
        assert told(dispatch) == (True, False, "http://r2", 2)
        assert dispatch.trace.failures == ["reset"]
    async with hedging([3.0, Act.RESET], [0.5, Act.RESET], GOOD) as r:
        with pytest.raises(AnswerLost, match="replica http://r0"):
            await r.ask()
        assert r.served() == [1, 1, 0]


async def test_both_are_silent(autojump_clock: Clock) -> None:
    """Each has its own limit; the last one's end is the end."""
    async with hedging([Act.HANG], [STREAM_HEAD, Act.HANG]) as r:
        with pytest.raises(Overdue) as caught:
            await r.ask()
        assert caught.value.phase == "first_byte"
        assert trio.current_time() == pytest.approx(AFTER_S + 5)
        assert [replica.failures for replica in r.replicas] == [1, 1]


async def test_silence_and_a_failure(autojump_clock: Clock) -> None:
    """A limit that has passed is final, however the other ended."""
    async with hedging([Act.HANG], [1.0, Act.RESET], settings=HEDGED._replace(retries=2)) as r:
        with pytest.raises(Overdue):
            await r.ask()
        assert trio.current_time() == pytest.approx(5)
        assert r.served() == [1, 1]


async def test_total_s(autojump_clock: Clock) -> None:
    """It ends both."""
    timeouts = TIMEOUTS._replace(total_s=3.5)
    hanging = [ScriptedReplica([Act.HANG]), ScriptedReplica([Act.HANG])]
    async with relay(*hanging, settings=HEDGED, timeouts=timeouts) as r:
        with pytest.raises(Overdue, match="total_s"):
            await r.ask()
        await trio.testing.wait_all_tasks_blocked()
        assert [one.left_at for one in hanging] == [[3.5], [3.5]]


async def test_no_hedge_without_room_or_another(autojump_clock: Clock) -> None:
    """It never waits, and never goes to the replica it is meant to outrun."""
    async with hedging([4.0, *GOOD]) as r:
        assert told(await r.ask())[0] is False
        assert r.served() == [1]
    async with hedging([4.0, *GOOD], GOOD, max_in_flight=1) as r:
        with await r.pool.lease({r.replicas[0]}):
            assert told(await r.ask())[0] is False
        assert r.served() == [1, 0]


async def test_no_hedge_beyond_its_budget(autojump_clock: Clock) -> None:
    """5 % of the requests, and one in ten seconds besides."""
    async with hedging([3.0, *GOOD], [Act.HANG]) as r:
        hedged = [told(await r.ask())[0] for _ in range(20)]
        assert sum(hedged) == 7
        assert hedged[0]


async def test_no_hedge_of_a_whole_answer(autojump_clock: Clock) -> None:
    """Its first event is its end: long is not late."""

    async def request(pool: Pool) -> Request:
        return Request("POST", b"/v1/chat/completions", [], b"{}", stream=False)

    async with hedging([4.0, answer(JSON)], GOOD) as r:
        dispatch = Dispatch([r.pool], request, NotingClient(), now=trio.current_time())
        await dispatch.run()
        assert (told(dispatch)[0], r.served()) == (False, [1, 0])


async def test_the_time_is_learned(autojump_clock: Clock) -> None:
    """From the waits of the pool's streams, once there are enough."""
    settings = HEDGED._replace(hedge=HedgeSettings())
    slow_at_last = ScriptedReplica(*[[0.2, *GOOD]] * 32, [Act.HANG])
    async with hedging(slow_at_last, GOOD, settings=settings) as r:
        for _ in range(32):
            assert told(await r.ask())[0] is False
        began = trio.current_time()
        assert told(await r.ask())[1] is True
        assert trio.current_time() - began == pytest.approx(0.2, abs=0.01)


def predicting(ttft_s: float) -> Explanation:
    return Explanation("s", (), (), 1, ttft_s)


async def test_a_long_prompt_is_not_taken_for_a_slow_replica(autojump_clock: Clock) -> None:
    """What is learned is by how much the policy's prediction is missed."""
    settings = HEDGED._replace(hedge=HedgeSettings())
    slow_at_last = ScriptedReplica(*[[0.2, *GOOD]] * 32, [Act.HANG])
    async with hedging(slow_at_last, GOOD, settings=settings) as r:
        r.policy.explanation = predicting(0.1)
        for _ in range(32):
            trace = (await r.ask()).trace
            assert (trace.predicted_ttft_s, trace.hedged) == (0.1, False)
            assert trace.observed_ttft_s == pytest.approx(0.2)
        r.policy.explanation = predicting(1.5)
        began = trio.current_time()
        assert told(await r.ask())[1] is True
        assert trio.current_time() - began == pytest.approx(3, abs=0.1)


async def test_what_the_loser_waited_is_learned_too(autojump_clock: Clock) -> None:
    """Or each limit learned would be lower than the last."""
    async with hedging([Act.HANG], [0.5, *GOOD]) as r:
        await r.ask()
        assert r.pool.hedge is not None
        assert sorted(r.pool.hedge._ratios) == pytest.approx([0.5, 2.5])


async def test_a_cancel_ends_both(autojump_clock: Clock) -> None:
    """In one instant."""
    hanging = [ScriptedReplica([Act.HANG]), ScriptedReplica([STREAM_HEAD, Act.HANG])]
    async with hedging(*hanging) as r, trio.open_nursery() as nursery:
        dispatch = r.dispatch()
        nursery.start_soon(dispatch.run)
        await trio.sleep(3)
        dispatch.cancel("client_gone")
        await trio.testing.wait_all_tasks_blocked()
        assert [one.left_at for one in hanging] == [[3], [3]]
        assert dispatch.trace.failures == []


@pytest.mark.parametrize("lost", [0, 1])
async def test_a_lost_replica_leaves_the_race(lost: int, autojump_clock: Clock) -> None:
    """The other goes on alone."""
    async with hedging([4.0, *GOOD], [2.0, *GOOD]) as r, trio.open_nursery() as nursery:
        client = NotingClient()
        dispatch = r.dispatch(client)
        nursery.start_soon(dispatch.run)
        await trio.sleep(3)
        leases = {one: next(iter(one.unanswered)) for one in r.replicas}
        assert leases[r.replicas[lost]].reclaim("replica_lost")
        await trio.sleep(2)
        assert client.body == GOOD_BODY
        assert dispatch.trace.replica == f"http://r{1 - lost}"
        assert dispatch.trace.attempts == 1


async def test_both_are_put_back(autojump_clock: Clock) -> None:
    """Then it waits again, as if it had not been tried."""
    scripts = [ScriptedReplica([Act.HANG], [1.0, *GOOD]), ScriptedReplica([Act.HANG], GOOD)]
    async with hedging(*scripts, max_in_flight=1) as r:
        dispatch = r.dispatch(standing=Standing("batch", trio.current_time()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dispatch.run)
            await trio.sleep(3)
            for _ in range(2):
                nursery.start_soon(r.ask)
        trace = dispatch.trace
        assert (trace.put_backs, trace.attempts, trace.failures) == (1, 1, [])
        assert r.served() == [3, 2] or r.served() == [2, 3]


async def test_without_a_stream_after_all(autojump_clock: Clock) -> None:
    """A replica that answers whole may win as well."""
    async with hedging([Act.HANG], [answer(JSON)]) as r:
        client = NotingClient()
        assert told(await r.ask(client))[1] is True
        assert client.body == JSON


async def test_an_error_event_does_not_win(autojump_clock: Clock) -> None:
    """It is a failure like another."""
    error = stream(b'data: {"error":{"code":503}}\n\n')
    async with hedging([3.0, *GOOD], error) as r:
        client = NotingClient()
        await r.ask(client)
        assert client.body == GOOD_BODY
    async with hedging(error, error) as r:
        with pytest.raises(AttemptFailed):
            await r.ask()
        assert r.served() == [1, 0]


async def test_the_winner_is_relayed_with_its_own_limits(autojump_clock: Clock) -> None:
    """Those of a stream that has begun."""
    async with hedging([Act.HANG], [STREAM_HEAD, chunk(event("a")), Act.HANG]) as r:
        with pytest.raises(Overdue, match="idle_s"):
            await r.ask()
        assert AFTER_S + 4 <= trio.current_time() <= AFTER_S + 5
        assert r.replicas[1].failures == 1
