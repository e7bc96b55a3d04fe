"""Fallback chains: when the next pool is asked, and what the client is told when none can."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from balancer.admission import Standing
from balancer.dispatch import Dispatch, Request
from balancer.errors import (
    AttemptFailed,
    BalancerError,
    ConnectFailed,
    Overdue,
    PoolBusy,
    ReplicaRefused,
    StreamCut,
)
from balancer.faults import Fault
from balancer.lease import Lease
from balancer.policies import Ask
from balancer.pool import Pool, PoolSettings
from balancer.replica import Replica
from tests.balancer.relays import GOOD, GOOD_BODY, TIMEOUTS, Script, make_request, relay
from tests.balancer.scripted import (
    STREAM_HEAD,
    Act,
    NotingClient,
    ScriptedReplica,
    answer,
    chunk,
    event,
    stream,
)

Clock = trio.testing.MockClock
TOO_LONG = answer(b'{"error":{"message":"maximum context length is 9"}}', status=400)
FULL = answer(b"", status=503)
BROKEN = answer(b"", status=500)

GIVEN_UP: dict[str, tuple[Script, float, list[str]]] = {
    "unreachable": (None, 0, ["connect"]),
    "resets": ([Act.RESET], 0, ["reset"]),
    "full": ([FULL], 0, ["status"]),
    "broken": ([BROKEN], 0, ["status"]),
    "context": ([TOO_LONG], 0, ["status"]),
    "broken under a 200": (stream(b'data: {"error":{"code":500}}\n\n'), 0, ["status"]),
    "silent": ([Act.HANG], 5, ["timeout"]),
}


@pytest.mark.parametrize("name", GIVEN_UP)
async def test_the_next_pool_is_asked(name: str, autojump_clock: Clock) -> None:
    """At once, unless it is silence that has to be found out; the client sees one answer."""
    script, at, failures = GIVEN_UP[name]
    async with relay(script, fallback=[[GOOD]]) as r:
        client = NotingClient()
        trace = (await r.ask(client)).trace
        assert client.body == GOOD_BODY
        assert trio.current_time() == pytest.approx(at)
        assert (trace.model, trace.fell_back_from) == ("m1", ["m"])
        assert (trace.replica, trace.attempts, trace.failures) == ("http://m1-r0", 2, failures)
        assert [lease.replica.name for lease in trace.leases] == ["http://r0", "http://m1-r0"]


async def test_the_pools_own_replicas_come_first(autojump_clock: Clock) -> None:
    """All that may be tried there are; then the chain, in its order."""
    async with relay([FULL], [FULL], fallback=[[None], [GOOD]]) as r:
        trace = (await r.ask()).trace
        assert (r.served(), r.served(2)) == ([1, 1], [1])
        assert (trace.fell_back_from, trace.model) == (["m", "m1"], "m2")
        assert trace.attempts == 4


async def test_the_others_are_full_as_well(autojump_clock: Clock) -> None:
    """Who was refused does not wait in line for one that refuses others: the next pool may be
    free. Alone, it does."""
    full = answer(b"", status=429, headers=[b"retry-after: 9"])
    for fallback, at in (([[GOOD]], 0), ([], 9)):
        async with relay([full], GOOD, fallback=fallback) as r:
            began = trio.current_time()
            with await r.pool.lease({r.replicas[0]}) as lease:
                lease.failed(ReplicaRefused("r1", 429, [(b"retry-after", b"9")], b""))
            trace = (await r.ask()).trace
            assert trio.current_time() - began == pytest.approx(at)
            assert trace.attempts == 2


@pytest.mark.parametrize("script", [[answer(b"{}", status=422)], [answer(b"{}", status=401)]])
async def test_a_callers_fault_does_not_fall_back(script: Script, autojump_clock: Clock) -> None:
    """Another model would say the same, or worse, not say it."""
    async with relay(script, fallback=[[GOOD]]) as r:
        with pytest.raises(ReplicaRefused):
            await r.ask()
        assert r.served(1) == [0]


@pytest.mark.parametrize("name", GIVEN_UP)
async def test_only_what_the_pool_says_falls_back(name: str, autojump_clock: Clock) -> None:
    """`fallback_on` with nothing in it is no fallback at all; retries are as without."""
    settings = PoolSettings(fallback_on=frozenset())
    async with relay(GIVEN_UP[name][0], fallback=[[GOOD]], settings=settings) as r:
        with pytest.raises((AttemptFailed, Overdue)):
            await r.ask()
        assert r.served(1) == [0]


async def test_one_kind_alone(autojump_clock: Clock) -> None:
    """A prompt too long goes on; a pool that is full keeps its own."""
    settings = PoolSettings(fallback_on=frozenset({Fault.CONTEXT}))
    async with relay(
        ScriptedReplica([TOO_LONG], [FULL]), fallback=[[GOOD]], settings=settings
    ) as r:
        assert (await r.ask()).trace.model == "m1"
        with pytest.raises(ReplicaRefused):
            await r.ask()


@pytest.mark.parametrize("act", [Act.CLOSE, Act.HANG])
async def test_nothing_falls_back_once_begun(act: Act, autojump_clock: Clock) -> None:
    """What the client has seen is the answer."""
    async with relay([STREAM_HEAD, chunk(event("a")), 1.0, act], fallback=[[GOOD]]) as r:
        with pytest.raises((StreamCut, Overdue)):
            await r.ask()
        assert r.served(1) == [0]


async def test_a_line_too_long(autojump_clock: Clock) -> None:
    """Who would wait too long in one pool goes to the next; what it waited is told."""
    async with relay(GOOD, fallback=[[GOOD]], max_in_flight=1) as r:
        with await r.pool.lease():
            trace = (await r.ask()).trace
        assert trace.fell_back_from == ["m"]
        assert (trace.attempts, trace.failures) == (1, [])
        assert trace.queued_s == pytest.approx(20)


async def test_a_deadline_that_has_passed(autojump_clock: Clock) -> None:
    """A later answer is of no use, wherever it comes from."""
    async with relay(GOOD, fallback=[[GOOD]], max_in_flight=1) as r:
        with await r.pool.lease(), pytest.raises(PoolBusy):
            await r.ask(standing=Standing("interactive", 0.0, deadline=3.0))
        assert trio.current_time() == pytest.approx(3)
        assert r.served(1) == [0]


async def test_a_pool_that_is_down_is_passed_by(autojump_clock: Clock) -> None:
    """Nobody waits for replicas that probes found dead, nor tries them, if there is another."""
    async with relay(GOOD, GOOD, fallback=[[GOOD], [GOOD]]) as r:
        for replica in r.replicas:
            replica.probed(False, trio.current_time())
        trace = (await r.ask()).trace
        assert (r.served(), r.served(1)) == ([0, 0], [1])
        assert (trace.fell_back_from, trace.attempts) == (["m"], 1)
        r.replicas[0].probed(True, trio.current_time())
        assert (await r.ask()).trace.fell_back_from == []


async def test_all_pools_are_down(autojump_clock: Clock) -> None:
    """The last of a chain is tried all the same: probes may be wrong."""
    async with relay(GOOD, fallback=[[GOOD]]) as r:
        for replica in r.all_replicas:
            replica.probed(False, trio.current_time())
        assert (await r.ask()).trace.model == "m1"


TOLD: list[tuple[Sequence[Script], type[BalancerError], str]] = [
    ([[FULL], [TOO_LONG]], ReplicaRefused, "replica http://r0: answered 503"),
    ([[TOO_LONG], [FULL]], ReplicaRefused, "replica http://m1-r0: answered 503"),
    ([[TOO_LONG], [TOO_LONG]], ReplicaRefused, "replica http://m1-r0: answered 400"),
    ([None, [FULL]], ConnectFailed, "replica http://r0"),
    ([[BROKEN], [answer(b"", status=422)]], ReplicaRefused, "replica http://r0: answered 500"),
    ([[Act.HANG], None], Overdue, "first_byte_s"),
]


@pytest.mark.parametrize(("scripts", "error", "words"), TOLD)
async def test_what_the_client_is_told(
    scripts: Sequence[Script], error: type[BalancerError], words: str, autojump_clock: Clock
) -> None:
    """Of all failures the first that may pass: what the model asked for said, if there is hope."""
    first, *others = scripts
    settings = PoolSettings(retries=0)
    async with relay(first, fallback=[[one] for one in others], settings=settings) as r:
        client, dispatch = NotingClient(), r.dispatch()
        with pytest.raises(error, match=words):
            await dispatch.run()
        assert client.head is None
        assert dispatch.trace.fell_back_from == ["m"]


async def test_total_s_covers_the_chain(autojump_clock: Clock) -> None:
    """The first pool's limit, from the request's arrival."""
    timeouts = TIMEOUTS._replace(total_s=8)
    async with relay([Act.HANG], fallback=[[[Act.HANG]]], timeouts=timeouts) as r:
        with pytest.raises(Overdue, match=r"timeouts.total_s \(8 s\)"):
            await r.ask()
        assert trio.current_time() == pytest.approx(8)


async def test_put_backs_stay_in_their_line(autojump_clock: Clock) -> None:
    """They let a request into the line it was in before, not into another, past those refused."""
    standing = Standing("interactive", 0.0, put_backs=2)
    async with relay([TOO_LONG], fallback=[[GOOD]]) as r:
        trace = (await r.ask(standing=standing)).trace
        assert [lease.standing.put_backs for lease in trace.leases] == [2, 0]


async def test_a_replica_in_one_pool_is_no_way_into_the_line_of_another(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who had one is not refused where it comes again; elsewhere it has not been yet."""
    asked: list[tuple[str, bool]] = []
    lease_nowait = Pool.lease_nowait

    def noted(pool: Pool, tried: Sequence[Replica], ask: Ask, standing: Standing) -> Lease | None:
        asked.append((pool.model, standing.placed))
        return lease_nowait(pool, tried, ask, standing)

    monkeypatch.setattr(Pool, "lease_nowait", noted)
    async with relay([Act.RESET], [TOO_LONG], fallback=[[GOOD]]) as r:
        await r.ask(standing=Standing("interactive", 0.0))
    assert asked == [("m", False), ("m", True), ("m1", False)]


async def test_requests_are_made_for_each_pool(autojump_clock: Clock) -> None:
    """Once for each whose turn comes, however often it tries there, and not before."""
    made: list[str] = []

    async def request(pool: Pool) -> Request:
        made.append(pool.model)
        return await make_request(pool)

    async with relay([FULL], [FULL], fallback=[[GOOD], [GOOD]]) as r:
        dispatch = Dispatch(r.pools, request, NotingClient(), now=trio.current_time())
        await dispatch.run()
        assert made == ["m", "m1"]


async def test_a_request_counts_in_each_pools_budget(autojump_clock: Clock) -> None:
    """Where it came, it may be retried."""
    async with relay([TOO_LONG], fallback=[[GOOD]]) as r:
        await r.ask()
        counted = [pool.budget._counts.share(trio.current_time())[1] for pool in r.pools]
        assert counted == [1, 1]
