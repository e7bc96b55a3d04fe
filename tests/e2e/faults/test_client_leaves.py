"""Clients that leave, in every phase: the replica hears of it within 100 ms, and nothing stays."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.e2e.faults.client import RawClient, post
from tests.e2e.faults.scripted import (
    HANG,
    REQUEST,
    STREAM,
    STREAM_HEAD,
    FakeReplica,
    Script,
    chunk,
    delta,
    forever,
    json_answer,
    pause,
    say,
    until,
)
from tests.e2e.kit import Running, asked, assert_all_clear, eventually, relaying

NOTICED_S = 0.1
"""How soon the connection to the replica is closed once the client is gone."""

POLITELY = pytest.mark.parametrize("reset", [False, True], ids=["closes", "resets"])

REFUSAL = b"HTTP/1.1 400 No\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"
TICKS = forever(say(chunk(delta("."))), pause(0.005))
WAITS: dict[str, Script] = {
    "before the head": [REQUEST, HANG],
    "after an interim answer": [REQUEST, say(b"HTTP/1.1 103 Hints\r\n\r\n"), HANG],
    "within the head": [REQUEST, say(STREAM_HEAD[:30]), HANG],
    "before the first event": [REQUEST, say(STREAM_HEAD), HANG],
    "within the first event": [REQUEST, say(STREAM_HEAD + chunk(delta("x")[:9])), HANG],
    "within a JSON answer": [REQUEST, say(json_answer(b'{"choices":[]}')[:-3]), HANG],
    "within an error": [REQUEST, say(REFUSAL), HANG],
}
STREAMS: dict[str, Script] = {
    "between events": [REQUEST, say(STREAM_HEAD + chunk(delta("Hel"))), HANG],
    "within an event": [
        REQUEST,
        say(STREAM_HEAD + chunk(delta("Hel")) + chunk(delta("lo")[:9])),
        HANG,
    ],
    "while events come": [REQUEST, say(STREAM_HEAD + chunk(delta("Hel"))), *TICKS],
}


async def assert_noticed(triolet: Running, left_at: float, fake: FakeReplica) -> None:
    """The replica's connection was closed in time; the call counts as the client's doing."""
    (peer,) = fake.peers
    await peer.gone.wait()
    assert peer.gone_at - left_at < NOTICED_S
    await assert_client_gone(triolet)


async def assert_client_gone(triolet: Running) -> None:
    await assert_all_clear(triolet)
    assert (await triolet.logged())["outcome"] == "client_gone"
    assert triolet.outcomes() == {"client_gone": 1}
    assert triolet.failed_attempts() == {}
    assert [replica.statistics(trio.current_time()).failures for replica in triolet.replicas] == [
        0 for _ in triolet.replicas
    ]


@POLITELY
@pytest.mark.parametrize("script", WAITS.values(), ids=WAITS)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_before_the_first_byte(script: Script, stream: bool, reset: bool) -> None:
    """While the replica is still thinking or the answer not complete."""
    fake, other = FakeReplica(script), FakeReplica()
    async with relaying(fake, other) as triolet, triolet.client() as client:
        await client.send(post(stream=stream))
        await asked(fake)
        await trio.testing.wait_all_tasks_blocked(0.005)
        await assert_noticed(triolet, client.leave(reset=reset), fake)
        assert other.requests == []
        assert (await triolet.logged())["status"] == 0


@POLITELY
@pytest.mark.parametrize("script", STREAMS.values(), ids=STREAMS)
async def test_mid_stream(script: Script, reset: bool) -> None:
    """While the stream flows, also when nothing is being sent just then."""
    fake = FakeReplica(script)
    async with relaying(fake) as triolet, triolet.client() as client:
        await client.send(post())
        await client.body_so_far(b"Hel")
        await assert_noticed(triolet, client.leave(reset=reset), fake)
        assert (await triolet.logged())["status"] == 200


@POLITELY
@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat", post()[:60]], ids=["", "line", "head"])
async def test_before_the_head_is_sent(sent: bytes, reset: bool) -> None:
    """No request, so nothing is logged or counted as one, and no replica hears of it."""
    fake = FakeReplica()
    async with relaying(fake) as triolet, triolet.client() as client:
        await client.send(sent)
        assert await eventually(lambda: triolet.connections == 1)
        client.leave(reset=reset)
        await assert_all_clear(triolet)
        assert triolet.outcomes() == {}
        assert triolet.lines() == []
        assert fake.requests == []


HEAD = post().partition(b"\r\n\r\n")[0]
CHUNKED = HEAD.replace(b"content-length: ", b"transfer-encoding: chunked\r\nx-was: ")
BODIES = {
    "length, none": HEAD + b"\r\n\r\n",
    "length, some": post()[:-10],
    "chunked, none": CHUNKED + b"\r\n\r\n",
    "chunked, some": CHUNKED + b'\r\n\r\n9\r\n{"mod',
}


@POLITELY
@pytest.mark.parametrize("sent", BODIES.values(), ids=BODIES)
async def test_while_sending_the_body(sent: bytes, reset: bool) -> None:
    """Nothing is asked of a replica before the request is whole."""
    fake = FakeReplica()
    async with relaying(fake) as triolet, triolet.client() as client:
        await client.send(sent)
        assert await eventually(lambda: triolet.connections == 1)
        await trio.testing.wait_all_tasks_blocked(0.005)
        client.leave(reset=reset)
        await assert_client_gone(triolet)
        assert fake.requests == []


@POLITELY
async def test_while_connecting_to_the_replica(reset: bool) -> None:
    """The attempt to connect ends with the client."""
    fake = FakeReplica()
    async with relaying(fake) as triolet, triolet.client() as client:
        fake.stop_accepting()
        await client.send(post())
        assert await eventually(lambda: triolet.triolet.relay.in_flight == 1)
        left_at = client.leave(reset=reset)
        await assert_client_gone(triolet)
        assert trio.current_time() - left_at < NOTICED_S


@POLITELY
async def test_while_queued(reset: bool) -> None:
    """Whoever waits for a replica leaves the line; who waits behind moves up."""
    turn = trio.Event()
    fake = FakeReplica([REQUEST, until(turn), say(STREAM), REQUEST, say(STREAM), HANG])
    async with relaying(fake, max_in_flight=1) as triolet:
        async with triolet.client() as first, triolet.client() as second, triolet.client() as third:
            for waiting, client in enumerate((first, second, third)):
                await client.send(post())
                await triolet.queued(waiting)
            left_at = second.leave(reset=reset)
            await triolet.queued(1)
            assert trio.current_time() - left_at < NOTICED_S
            turn.set()
            assert [(await client.answer()).text for client in (first, third)] == ["Hello"] * 2
        assert len(fake.requests) == 2
        assert triolet.outcomes() == {"client_gone": 1, "ok": 2}
        assert (await triolet.logged())["outcome"] == "client_gone"


async def test_while_waiting_to_try_again() -> None:
    """The pause before the same replica is asked again ends with the client."""
    fake = FakeReplica(forever(REQUEST, say(json_answer(b"{}", "503 Busy"))))
    async with relaying(fake, retries=9) as triolet, triolet.client() as client:
        await client.send(post())
        await asked(fake, 2)
        left_at = client.leave()
        await assert_all_clear(triolet)
        assert trio.current_time() - left_at < NOTICED_S
        assert triolet.outcomes() == {"client_gone": 1}
        assert triolet.failed_attempts() == {"status": 2}
        assert len(fake.requests) == 2


async def test_behind_a_pipelined_request() -> None:
    """A next request that waits in the buffer does not hide that the client is gone."""
    fake = FakeReplica([REQUEST, say(STREAM_HEAD + chunk(delta("Hel"))), HANG])
    async with relaying(fake) as triolet, triolet.client() as client:
        await client.send(post() + post() + b"x" * 10)
        await client.body_so_far(b"Hel")
        await assert_noticed(triolet, client.leave(), fake)
        assert len(fake.requests) == 1


async def test_at_the_very_end() -> None:
    """A client that has its answer may go: that is no disconnect."""
    fake = FakeReplica()
    async with relaying(fake) as triolet:
        for _ in range(3):
            async with triolet.client() as client:
                await client.send(post())
                await client.body_so_far(b"[DONE]")
        await assert_all_clear(triolet)
        assert triolet.outcomes() == {"ok": 3}
        assert len(fake.peers) == 1


async def test_many_at_once() -> None:
    """A hundred clients that leave together, in whatever phase, leave nothing."""
    scripts = [*WAITS.values(), *STREAMS.values()]
    fake = FakeReplica(*(script for _ in range(10) for script in scripts))
    async with relaying(fake, max_in_flight=80) as triolet:
        clients: list[RawClient] = []
        async with trio.open_nursery() as nursery:
            for index in range(100):
                nursery.start_soon(_leave_later, triolet, index, clients)
        assert len(clients) == 100
        await assert_all_clear(triolet)
        assert set(triolet.outcomes()) == {"client_gone"}
        assert all(peer.gone.is_set() for peer in fake.peers)


async def _leave_later(triolet: Running, index: int, clients: list[RawClient]) -> None:
    async with triolet.client() as client:
        clients.append(client)
        await client.send(post())
        await trio.sleep(0.05 + 0.0005 * index)
        client.leave(reset=index % 2 == 1)
