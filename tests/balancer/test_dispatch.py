"""One request through the balancer, over a network in memory and in virtual time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from balancer.dispatch import HELD_BYTES, CancelReason
from balancer.errors import (
    AnswerInvalid,
    AnswerLost,
    AttemptFailed,
    ConnectFailed,
    ConnectionLost,
    Overdue,
    PoolBusy,
    ReplicaRefused,
    StreamCut,
)
from balancer.pool import PoolSettings
from balancer.wire.openai import Usage
from balancer.wire.transport import Transport
from tests.balancer.relays import GOOD, GOOD_BODY, JSON, TIMEOUTS, relay
from tests.balancer.scripted import (
    DONE,
    LAST_CHUNK,
    STREAM_HEAD,
    USAGE,
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


@pytest.mark.parametrize("fast", [True, False])
async def test_a_stream(fast: bool, autojump_clock: Clock) -> None:
    """Through the pump and through plain sends: every byte, all counts, the connection kept."""
    script: list[Step] = [0.5, STREAM_HEAD, 1.0, chunk(event("a")), 2.0, chunk(event("b")), 1.0]
    script += [chunk(USAGE[:9]), chunk(USAGE[9:] + DONE), LAST_CHUNK]
    async with relay(script) as r:
        client = NotingClient(fast=fast)
        trace = (await r.ask(client)).trace
        assert client.body == GOOD_BODY
        assert client.ended
        assert client.head is not None
        assert client.head.status == 200
        assert client.head.get(b"content-type") == b"text/event-stream"
        assert client.trace is trace
        assert [at for at, data in client.pieces if data] == pytest.approx([1.5, 3.5, 4.5])
        assert (trace.committed, trace.stream, trace.events, trace.attempts) == (True, True, 4, 1)
        assert trace.usage == Usage(7, 3)
        assert (trace.model, trace.replica, trace.failures) == ("m", "http://r0", [])
        assert trace.ttft_s == pytest.approx(1.5)
        assert trace.itl_s == pytest.approx(1.5)
        assert r.replicas[0].connections.idle == 1


async def test_the_policy_is_told_what_became_of_a_request(autojump_clock: Clock) -> None:
    """A failed attempt is never answered; what the replica had cached comes with the release."""
    usage = event("a") + USAGE.replace(
        b'"completion', b'"prompt_tokens_details":{"cached_tokens":5},"completion'
    )
    async with relay(None, stream(usage, DONE)) as r:
        await r.ask()
        assert r.policy.told == [
            ("leased", "http://r0", None),
            ("released", "http://r0", None),
            ("leased", "http://r1", None),
            ("answered", "http://r1", None),
            ("released", "http://r1", 5),
        ]


async def test_connections_are_kept_and_used_again(autojump_clock: Clock) -> None:
    """Exchanges in a row share one connection; those at once do not."""
    async with relay(GOOD) as r:
        for _ in range(3):
            await r.ask()
        assert r.scripted[0].connections == 1
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(r.ask)
        assert r.scripted[0].connections == 3
        assert r.replicas[0].connections.idle == 3


@pytest.mark.parametrize("body", [JSON, b"", b"x" * (HELD_BYTES + 99_999)])
@pytest.mark.parametrize("fast", [True, False])
async def test_an_answer_that_is_no_stream(body: bytes, fast: bool, autojump_clock: Clock) -> None:
    """Held until it is whole, up to 1 MiB; longer ones are relayed as they come."""
    whole = answer(body)
    async with relay([whole[:70], 1.0, whole[70:]]) as r:
        client = NotingClient(fast=fast)
        trace = (await r.ask(client)).trace
        assert client.body == body
        assert client.ended
        assert (len(client.pieces) == 1) is (len(body) <= HELD_BYTES)
        assert client.pieces[0][0] == pytest.approx(1)
        assert trace.usage == (Usage(2, 3) if body == JSON else Usage())
        assert not trace.stream
        assert trace.itl_s is None


@pytest.mark.parametrize("fast", [True, False])
async def test_audio_is_relayed_as_it_comes(fast: bool, autojump_clock: Clock) -> None:
    """What is neither events nor JSON may be made while it is played: its first bytes pass."""
    whole = answer(b"la" * 400, content_type=b"audio/mpeg")
    async with relay([whole[:-600], 2.0, whole[-600:-300], 2.0, whole[-300:]]) as r:
        client = NotingClient(fast=fast)
        trace = (await r.ask(client)).trace
        assert client.body == b"la" * 400
        assert client.ended
        assert [at for at, _ in client.pieces] == pytest.approx([0, 2, 4])
        assert (trace.stream, trace.ttft_s, trace.usage) == (False, 0, Usage())


async def test_what_the_replica_gets(autojump_clock: Clock) -> None:
    """Its own name, base path and headers; the client's other headers; the body as it is."""
    async with relay([answer(JSON)], url="http://r{}:81/base/v1") as r:
        r.replicas[0].headers = {b"authorization": b"Bearer key", b"x-own": b"mine"}
        await r.ask()
        assert r.scripted[0].requests == [
            b"POST /base/v1/chat/completions HTTP/1.1\r\nhost: r0:81\r\n"
            b"authorization: Bearer key\r\nx-own: mine\r\ncontent-length: 7\r\n\r\n"
            b'{"a":1}'
        ]


SSE_503 = stream(b'data: {"error":{"code":503}}\n\n')
PARTLY = answer(JSON)[:-5]
FAILURES: dict[str, tuple[Sequence[Step] | None, str, type[AttemptFailed]]] = {
    "refuses": (None, "connect", ConnectFailed),
    "resets before the head": ([Act.RESET], "reset", AnswerLost),
    "closes before the head": ([Act.CLOSE], "reset", AnswerLost),
    "closes in the head": ([b"HTTP/1.1 200 OK\r\nx", Act.CLOSE], "reset", AnswerLost),
    "closes after the head": ([STREAM_HEAD, Act.CLOSE], "reset", AnswerLost),
    "closes in an answer": ([PARTLY, 1.0, Act.CLOSE], "reset", AnswerLost),
    "half an event": ([STREAM_HEAD, chunk(event("x")[:9]), Act.RESET], "reset", AnswerLost),
    "no HTTP": ([b"SSH-2.0-OpenSSH_9.6\r\n"], "invalid", AnswerInvalid),
    "a bad chunk": ([STREAM_HEAD, b"zz\r\n"], "invalid", AnswerInvalid),
    "a stream of nothing": (stream(), "invalid", AnswerInvalid),
    "a stream of comments": (stream(b": ping\n\n"), "invalid", AnswerInvalid),
    "an endless event": ([STREAM_HEAD, chunk(b"x" * (HELD_BYTES + 1))], "invalid", AnswerInvalid),
    "an endless head": ([b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 50_000], "invalid", AnswerInvalid),
    "another protocol": (
        [b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"],
        "invalid",
        AnswerInvalid,
    ),
    "429": ([answer(b"{}", status=429)], "status", ReplicaRefused),
    "502": ([answer(b"", status=502)], "status", ReplicaRefused),
    "503": ([answer(b"loading", status=503)], "status", ReplicaRefused),
    "504": ([answer(b"", status=504)], "status", ReplicaRefused),
    "503 under a 200": ([answer(b'{"error":{"code":503}}')], "status", ReplicaRefused),
    "503 as an event": (SSE_503, "status", ReplicaRefused),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_a_failure_before_the_first_event_is_repaired(
    name: str, autojump_clock: Clock
) -> None:
    """Another replica serves it; the client sees nothing of the first try, not even a delay."""
    script, kind, _ = FAILURES[name]
    async with relay(script, GOOD) as r:
        client = NotingClient()
        trace = (await r.ask(client)).trace
        assert client.body == GOOD_BODY
        assert (trace.attempts, trace.failures, trace.replica) == (2, [kind], "http://r1")
        assert r.replicas[0].failures == (0 if "429" in name or "503" in name else 1)
        assert r.replicas[0].in_flight == 0
        assert trio.current_time() == (1 if 1.0 in (script or []) else 0)
        assert r.replicas[0].up(trio.current_time()) is (kind != "connect")


@pytest.mark.parametrize("name", FAILURES)
async def test_failures_everywhere(name: str, autojump_clock: Clock) -> None:
    """At most `retries` more tries, never the same replica twice while others remain."""
    script, kind, error = FAILURES[name]
    async with relay(*[script] * 4) as r:
        client, dispatch = NotingClient(), r.dispatch()
        with pytest.raises(error, match="replica http://r2"):
            await dispatch.run()
        assert client.head is None
        assert dispatch.trace.attempts == 3
        assert dispatch.trace.failures == [kind] * 3
        assert not dispatch.trace.committed
        if script is not None:
            assert r.served() == [1, 1, 1, 0]


@pytest.mark.parametrize("status", [400, 401, 404, 422, 500, 501])
async def test_statuses_about_the_request_are_final(status: int, autojump_clock: Clock) -> None:
    """Another replica would say the same; the replica's own words are kept for the client."""
    refusal = answer(b'{"error":"no"}', status=status, headers=[b"x-why: because"])
    async with relay([refusal], GOOD) as r:
        with pytest.raises(ReplicaRefused) as caught:
            await r.ask()
        refused = caught.value
        assert (refused.status, refused.body) == (status, b'{"error":"no"}')
        assert (b"x-why", b"because") in refused.headers
        assert r.served() == [1, 0]
        assert r.replicas[0].connections.idle == 1


async def test_errors_under_a_200_keep_their_words(autojump_clock: Clock) -> None:
    """What was found in the first event is passed on as that error's body."""
    async with relay(stream(b": hi\n\n", b'data: {"error":{"code":400}}\n\n')) as r:
        with pytest.raises(ReplicaRefused) as caught:
            await r.ask()
        assert (caught.value.status, caught.value.body) == (400, b'{"error":{"code":400}}')
        assert (b"content-type", b"application/json") in caught.value.headers


@pytest.mark.parametrize("retries", [0, 1, 3])
async def test_retries_at_one_replica_wait(retries: int, autojump_clock: Clock) -> None:
    """Where there is only the one that failed: 0.1 s, then twice as long each time."""
    async with relay([answer(b"", status=502)], settings=PoolSettings(retries=retries)) as r:
        with pytest.raises(ReplicaRefused):
            await r.ask()
        assert r.served() == [retries + 1]
        assert trio.current_time() == pytest.approx(0.1 * (2**retries - 1))


async def test_retries_at_the_only_one_that_is_up_wait(autojump_clock: Clock) -> None:
    """Replicas that are down are no elsewhere: the one left gets a pause all the same."""
    async with relay([answer(b"", status=502)], GOOD) as r:
        r.replicas[1].probed(False, trio.current_time())
        with pytest.raises(ReplicaRefused):
            await r.ask()
        assert r.served() == [3, 0]
        assert trio.current_time() == pytest.approx(0.3)


CUTS: dict[str, list[Step]] = {
    "reset": [STREAM_HEAD, chunk(event("a")), 1.0, Act.RESET],
    "closed": [STREAM_HEAD, chunk(event("a")), 1.0, Act.CLOSE],
    "half an event": [STREAM_HEAD, chunk(event("a")), 1.0, chunk(event("b")[:9]), 1.0, Act.CLOSE],
    "half a chunk": [STREAM_HEAD, chunk(event("a")), 1.0, chunk(event("b"))[:9], 1.0, Act.RESET],
    "garbage": [STREAM_HEAD, chunk(event("a")), 1.0, b"garbage\r\n"],
    "endless event": [STREAM_HEAD, chunk(event("a")), 1.0, chunk(b"x" * (HELD_BYTES + 1))],
    "no length, no end mark": [
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n",
        event("a"),
        1.0,
        Act.CLOSE,
    ],
}


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("name", CUTS)
async def test_a_failure_after_the_first_event_is_told(
    name: str, fast: bool, autojump_clock: Clock
) -> None:
    """Nothing is retried; the client has whole events only, so an error event may follow."""
    async with relay(CUTS[name], GOOD) as r:
        client = NotingClient(fast=fast)
        dispatch = r.dispatch(client)
        with pytest.raises(StreamCut, match="replica http://r0"):
            await dispatch.run()
        assert client.body == event("a")
        assert not client.ended
        assert r.served() == [1, 0]
        assert (dispatch.trace.committed, dispatch.trace.events) == (True, 1)
        assert r.replicas[0].failures == 1
        assert r.replicas[0].connections.idle == 0


@pytest.mark.parametrize("fast", [True, False])
async def test_a_stream_ended_by_its_mark_and_a_close(fast: bool, autojump_clock: Clock) -> None:
    """Without a length the end of the connection ends it, if the end mark came before."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    async with relay([head, event("a"), 1.0, DONE, Act.CLOSE]) as r:
        client = NotingClient(fast=fast)
        await r.ask(client)
        assert client.body == event("a") + DONE
        assert client.ended


@pytest.mark.parametrize("fast", [True, False])
async def test_an_unfinished_last_event_still_passes(fast: bool, autojump_clock: Clock) -> None:
    """An engine that forgets the last empty line has ended its answer all the same."""
    async with relay([*stream(event("a"), DONE[:-2])]) as r:
        client = NotingClient(fast=fast)
        await r.ask(client)
        assert client.body == event("a") + DONE[:-2]
        assert client.ended


@pytest.mark.parametrize("act", [Act.CLOSE, Act.RESET])
async def test_a_stale_connection_is_free(act: Act, autojump_clock: Clock) -> None:
    """A kept connection that dies under the next request costs no attempt and no failure."""
    async with relay(ScriptedReplica(GOOD, [act], GOOD), settings=PoolSettings(retries=0)) as r:
        await r.ask()
        client = NotingClient()
        trace = (await r.ask(client)).trace
        assert client.body == GOOD_BODY
        assert (trace.attempts, trace.failures, r.replicas[0].failures) == (1, [], 0)
        assert r.scripted[0].connections == 2


async def test_a_fresh_connection_is_never_stale(autojump_clock: Clock) -> None:
    """If the replacement dies as well it is the replica: that counts."""
    async with relay(ScriptedReplica(GOOD, [Act.CLOSE]), settings=PoolSettings(retries=0)) as r:
        await r.ask()
        with pytest.raises(AnswerLost):
            await r.ask()
        assert r.served() == [3]
        assert r.replicas[0].failures == 1


async def test_a_stale_connection_dies_silently_while_kept(autojump_clock: Clock) -> None:
    """One that the replica closes between requests is gone before the next one asks."""
    async with relay([*GOOD, 1.0, Act.CLOSE]) as r:
        await r.ask()
        assert r.replicas[0].connections.idle == 1
        await trio.sleep(2)
        assert r.replicas[0].connections.idle == 0
        await r.ask()
        await trio.sleep(2)


async def test_connect_s(autojump_clock: Clock) -> None:
    """A connection that does not come is given up to the instant; the replica rests."""
    async with relay(GOOD, GOOD) as r:
        r.network.serve("http://r0", r.scripted[0], connect_s=float("inf"))
        trace = (await r.ask()).trace
        assert (trace.failures, trace.replica) == (["connect"], "http://r1")
        assert trio.current_time() == pytest.approx(TIMEOUTS.connect_s)
        assert not r.replicas[0].up(trio.current_time())


_PINGS: list[Step] = [1.0, chunk(b": ping\n\n")] * 9


@pytest.mark.parametrize(
    "script",
    [
        [Act.HANG],
        [STREAM_HEAD, Act.HANG],
        [STREAM_HEAD, *_PINGS],
        [answer(JSON)[:-1], Act.HANG],
        [x for byte in answer(JSON) for x in (bytes([byte]), 1.0)],
    ],
    ids=["no head", "no event", "comments only", "half an answer", "a byte a second"],
)
async def test_first_byte_s(script: list[Step], autojump_clock: Clock) -> None:
    """Exact, not prolonged by what is no event, and not tried again."""
    async with relay(script, GOOD) as r:
        dispatch = r.dispatch()
        with pytest.raises(Overdue, match=r"timeouts.first_byte_s \(5 s\) passed") as caught:
            await dispatch.run()
        assert caught.value.phase == "first_byte"
        assert trio.current_time() == pytest.approx(5)
        assert (dispatch.trace.committed, r.served()) == (False, [1, 0])
        await trio.sleep(10)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("gap_s", [0.5, 1.5, 3.9])
async def test_idle_s(gap_s: float, fast: bool, autojump_clock: Clock) -> None:
    """A silence ends it after `idle_s` at the earliest and a quarter more at the latest."""
    beat: list[Step] = [chunk(event("a")), gap_s]
    hanging = ScriptedReplica([STREAM_HEAD, *beat * 9, chunk(event("b")), Act.HANG])
    async with relay(hanging) as r:
        with pytest.raises(Overdue, match=r"timeouts.idle_s \(4 s\) passed") as caught:
            await r.ask(NotingClient(fast=fast))
        assert caught.value.phase == "idle"
        silence_s = trio.current_time() - 9 * gap_s
        assert 4 <= silence_s <= 5
        await trio.testing.wait_all_tasks_blocked()
        assert hanging.left_at == [trio.current_time()]


@pytest.mark.parametrize(
    "first_byte_s",
    [1, 5.9, 600],
)
async def test_idle_s_from_the_first_event_on(first_byte_s: float, autojump_clock: Clock) -> None:
    """The same for a silence right after the first event, whatever limit held before it."""
    timeouts = TIMEOUTS._replace(first_byte_s=first_byte_s, total_s=6000)
    async with relay([STREAM_HEAD, chunk(event("a")), Act.HANG], timeouts=timeouts) as r:
        with pytest.raises(Overdue, match="idle_s"):
            await r.ask()
        assert 4 <= trio.current_time() <= 5


async def test_comments_keep_a_stream_alive(autojump_clock: Clock) -> None:
    """An engine that says `: ping` is not silent."""
    script = [STREAM_HEAD, chunk(event("a")), *_PINGS, *GOOD[1:]]
    async with relay(script) as r:
        client = NotingClient()
        await r.ask(client)
        assert client.body.endswith(DONE)


@pytest.mark.parametrize("fast", [True, False])
async def test_total_s(fast: bool, autojump_clock: Clock) -> None:
    """Exact, however lively the stream."""
    beat: list[Step] = [chunk(event("a")), 0.7]
    async with relay([STREAM_HEAD, *beat * 200]) as r:
        with pytest.raises(Overdue, match=r"timeouts.total_s \(60 s\) passed"):
            await r.ask(NotingClient(fast=fast))
        assert trio.current_time() == pytest.approx(60)
        assert r.replicas[0].failures == 0


async def test_total_s_counts_all_tries(autojump_clock: Clock) -> None:
    """Retries and their pauses do not prolong it."""
    script: list[Step] = [2.0, Act.CLOSE]
    async with relay(
        script, settings=PoolSettings(retries=99), timeouts=TIMEOUTS._replace(total_s=9)
    ) as r:
        with pytest.raises(Overdue) as caught:
            await r.ask()
        assert caught.value.phase == "total"
        assert trio.current_time() == pytest.approx(9)


async def test_first_byte_s_is_for_each_try(autojump_clock: Clock) -> None:
    """A first try that took its time leaves the second all of its own."""
    async with relay([4.0, Act.CLOSE], [4.0, *GOOD]) as r:
        assert (await r.ask()).trace.attempts == 2
        assert trio.current_time() == pytest.approx(8)


async def test_a_slow_connection_after_a_slow_try(autojump_clock: Clock) -> None:
    """Time that an earlier try used up is not taken from the next one's connecting."""
    async with relay([4.8, Act.CLOSE], GOOD) as r:
        r.network.serve("http://r1", r.scripted[1], connect_s=0.9)
        assert (await r.ask()).trace.attempts == 2
        assert trio.current_time() == pytest.approx(5.7)


async def test_queueing_is_not_first_byte(autojump_clock: Clock) -> None:
    """`first_byte_s` begins when the request is sent; the wait for a place is told apart."""
    async with relay([4.0, *GOOD], max_in_flight=1) as r:
        traces = []

        async def ask() -> None:
            traces.append((await r.ask()).trace)

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ask)
        assert [trace.queued_s for trace in traces] == pytest.approx([0, 4, 8, 12])
        assert trio.current_time() == pytest.approx(16)


async def test_pool_busy(autojump_clock: Clock) -> None:
    """Who waits for `queue_s` in vain is told so."""
    async with relay(GOOD, max_in_flight=1) as r:
        with await r.pool.lease():
            with pytest.raises(PoolBusy):
                await r.ask()
            assert trio.current_time() == pytest.approx(20)


@pytest.mark.parametrize("fast", [True, False])
async def test_a_slow_client_is_not_an_idle_replica(fast: bool, autojump_clock: Clock) -> None:
    """While the client takes nothing, `idle_s` does not run: its server limits how long."""
    async with relay([STREAM_HEAD, *map(chunk, [event("a")] * 5), LAST_CHUNK]) as r:
        client = NotingClient(fast=fast, takes_bytes=len(event("a")) * 2.5, drain_s=9)
        await r.ask(client)
        assert client.body == event("a") * 5


_LARGE = b'{"text": "%b"}' % (b"x" * 20_000)  # a small one fits into any socket's buffer
_SLOW_START = [STREAM_HEAD, chunk(event("a")), 1.0, *GOOD[2:]]


@pytest.mark.parametrize(
    ("script", "start_s", "finish_s"),
    [(_SLOW_START, 20, 0), (_SLOW_START, 0, 20), ([answer(_LARGE)], 20, 0)],
    ids=["start of a stream", "end of a stream", "whole answer"],
)
async def test_a_client_slow_at_head_or_end(
    script: list[Step], start_s: float, finish_s: float, autojump_clock: Clock
) -> None:
    """The same while the head, a whole answer or the last bytes are sent."""
    async with relay(script) as r:
        client = NotingClient(start_s=start_s, finish_s=finish_s)
        await r.ask(client)
        assert client.ended


async def test_backpressure_reaches_the_replica(autojump_clock: Clock) -> None:
    """A client that takes nothing stops the replica's sending after the buffers are full."""
    sent = []

    async def firehose(source: Transport) -> None:
        await source.send_all(STREAM_HEAD)
        while True:
            await source.send_all(chunk(event("a")))
            sent.append(trio.current_time())

    async with relay(GOOD, capacity_bytes=500) as r:
        r.network.serve("http://r0", firehose)
        dispatch = r.dispatch(NotingClient(takes_bytes=100, drain_s=50))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dispatch.run)
            await trio.sleep(49)
            assert len(sent) < 40
            dispatch.cancel("client_gone")
        assert max(sent) == 0


PHASES: dict[str, tuple[Sequence[Step], float]] = {
    "before the head": ([Act.HANG], 1),
    "before the first event": ([STREAM_HEAD, Act.HANG], 1),
    "mid-stream": ([STREAM_HEAD, chunk(event("a")), Act.HANG], 1),
    "mid-answer": ([answer(JSON)[:-1], Act.HANG], 1),
}


@pytest.mark.parametrize("name", PHASES)
@pytest.mark.parametrize("reason", ["client_gone", "shutdown"])
async def test_cancel_closes_the_connection_at_once(
    name: str, reason: CancelReason, autojump_clock: Clock
) -> None:
    """In every phase the replica sees it at that very instant; `run` just returns."""
    script, at = PHASES[name]
    async with relay(script) as r:
        dispatch = r.dispatch()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dispatch.run)
            await trio.sleep(at)
            dispatch.cancel(reason)
            dispatch.cancel("shutdown")
        assert dispatch.cancel_reason == reason
        assert dispatch.trace.failures == []
        await trio.testing.wait_all_tasks_blocked()
        assert r.scripted[0].left_at == [at]


async def test_cancel_in_the_queue(autojump_clock: Clock) -> None:
    """Who waits for a place and leaves costs no replica anything."""
    async with relay(GOOD, max_in_flight=1) as r:
        held = await r.pool.lease()
        dispatch = r.dispatch()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dispatch.run)
            await trio.sleep(1)
            assert r.pool.statistics().waiting == 1
            dispatch.cancel("client_gone")
        held.release()
        assert r.served() == [0]


async def test_cancel_before_run(autojump_clock: Clock) -> None:
    """The same for one who left before it began."""
    async with relay(GOOD) as r:
        dispatch = r.dispatch()
        dispatch.cancel("client_gone")
        await dispatch.run()
        assert (r.served(), r.network.dialed) == ([0], 0)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("after", [0, 60, 200])
async def test_a_client_found_gone_while_sending(
    after: int, fast: bool, autojump_clock: Clock
) -> None:
    """`ConnectionLost` comes out, and the replica is left."""
    beats: list[Step] = [chunk(event("a")), 0.5]
    hanging = ScriptedReplica([STREAM_HEAD, *beats * 9, Act.HANG])
    async with relay(hanging) as r:
        with pytest.raises(ConnectionLost):
            await r.ask(NotingClient(fast=fast, leaves_after=after))
        assert r.replicas[0].failures == 0
        assert r.network.open == 0


async def test_an_error_of_the_caller_settles_too(autojump_clock: Clock) -> None:
    """Whatever a client's methods raise, the lease and the connection go."""

    class Broken(NotingClient):
        def write_nowait(self, data: bytes) -> bool:
            raise ConnectionLost("gone")

    async with relay([STREAM_HEAD, chunk(event("a")), 1.0, chunk(event("b")), Act.HANG]) as r:
        with pytest.raises(ConnectionLost):
            await r.ask(Broken())
