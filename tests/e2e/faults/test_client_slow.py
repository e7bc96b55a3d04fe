"""Clients that stop reading, or send so slowly that somebody must stop waiting for them."""

from __future__ import annotations

import pytest
import trio

from server.config import LimitsConfig, TimeoutConfig
from tests.e2e.faults.client import RawClient, post
from tests.e2e.faults.scripted import (
    HANG,
    REQUEST,
    STREAM_HEAD,
    FakeReplica,
    Script,
    chunk,
    delta,
    flood,
    json_answer,
    say,
)
from tests.e2e.kit import Running, assert_all_clear, eventually, relaying

BIG = chunk(b'data: {"x":"%b"}\n\n' % (b"x" * 60_000))
FLOODS: dict[str, Script] = {
    "stream": [REQUEST, say(STREAM_HEAD + chunk(delta("Hel"))), flood(BIG)],
    "whole": [REQUEST, say(json_answer(b"Hel" + b"x" * 40_000_000)), HANG],
}


async def fake_gone(fake: FakeReplica) -> None:
    assert await eventually(lambda: bool(fake.peers) and fake.peers[0].gone.is_set())


@pytest.mark.parametrize("script", FLOODS.values(), ids=FLOODS)
async def test_stops_reading(script: Script) -> None:
    """After write_s without reading anything the exchange ends, and the replica's work with it."""
    fake = FakeReplica(script)
    async with relaying(fake, limits=LimitsConfig(write_s=0.15)) as triolet:
        async with triolet.client(receive_bytes=8_192) as client:
            await client.send(post())
            await client.body_so_far(b"Hel")
            stopped = trio.current_time()
            await fake.peers[0].gone.wait()
            # The wait may have begun a little before the client's last read was noticed here.
            assert fake.peers[0].gone_at - stopped >= 0.1
            await assert_all_clear(triolet)
        assert triolet.failed_attempts() == {}


async def test_stopping_to_read_is_told() -> None:
    """The log and the metrics do not call it a success."""
    fake = FakeReplica(FLOODS["stream"])
    async with relaying(fake, limits=LimitsConfig(write_s=0.1)) as triolet:
        async with triolet.client(receive_bytes=8_192) as client:
            await client.send(post())
            await fake_gone(fake)
        line = await triolet.logged()
        assert (line["status"], line["outcome"]) == (200, "client_stalled")
        assert triolet.outcomes() == {"client_stalled": 1}


@pytest.mark.slow
async def test_waiting_for_the_client_is_not_the_replicas_silence() -> None:
    """A client that pauses for longer than idle_s, but less than write_s, loses nothing."""
    limits = TimeoutConfig(connect_s=3, first_byte_s=3, idle_s=0.1, total_s=4)
    # More than the buffers of the sockets take.
    events = STREAM_HEAD + chunk(delta("Hel")) + BIG * 250 + chunk(delta("lo")) + b"0\r\n\r\n"
    fake = FakeReplica([REQUEST, say(events), HANG])
    async with relaying(fake, timeouts=limits) as triolet:
        async with triolet.client() as client:
            await client.send(post())
            await client.body_so_far(b"Hel")
            await trio.sleep(0.3)
            answer = await client.answer()
        assert (answer.whole, answer.text) == (True, "Hello")
        assert triolet.outcomes() == {"ok": 1}


async def test_stops_reading_and_leaves() -> None:
    """Leaving is noticed while Triolet waits to write."""
    fake = FakeReplica(FLOODS["stream"])
    async with relaying(fake) as triolet, triolet.client(receive_bytes=8_192) as client:
        await client.send(post())
        await client.body_so_far(b"Hel")
        await trio.sleep(0.05)
        left_at = client.leave()
        await fake_gone(fake)
        assert fake.peers[0].gone_at - left_at < 0.1
        assert (await triolet.logged())["outcome"] == "client_gone"


async def dripped(client: RawClient, data: bytes) -> None:
    """Send byte after byte, until done or until Triolet has had enough."""
    for index in range(len(data)):
        try:
            await client.send(data[index : index + 1])
        except OSError:
            return
        await trio.sleep(0.01)


HEAD = post().partition(b"\r\n\r\n")[0]
CHUNKED_HEAD = HEAD.replace(b"content-length: ", b"transfer-encoding: chunked\r\nx-was: ")


async def assert_too_slow(triolet: Running, at_once: bytes, slowly: bytes, limit: str) -> None:
    async with triolet.client() as client, trio.open_nursery() as nursery:
        await client.send(at_once)
        nursery.start_soon(dripped, client, slowly)
        begun = trio.current_time()
        answer = await client.answer()
        assert trio.current_time() - begun < 0.5
        assert await client.closed()
        nursery.cancel_scope.cancel("answered")
    assert (answer.status, answer.whole) == (408, True)
    assert answer.error["type"] == "invalid_request_error"
    assert answer.error["code"] == "request_timeout"
    assert limit in answer.error["message"]
    assert answer.headers["connection"] == "close"
    assert triolet.fakes[0].requests == []


HEADS = {"first byte": (b"", HEAD), "within": (HEAD[:30], HEAD[30:])}


@pytest.mark.parametrize(("at_once", "slowly"), HEADS.values(), ids=HEADS)
async def test_slow_loris_head(at_once: bytes, slowly: bytes) -> None:
    """A head that comes byte by byte must be whole within head_s."""
    async with relaying(FakeReplica(), limits=LimitsConfig(head_s=0.1)) as triolet:
        await assert_too_slow(triolet, at_once, slowly, "limits.head_s (0.1 s)")
        assert triolet.outcomes() == {}


async def test_slow_loris_second_head() -> None:
    """The same on a connection that served a request well."""
    fake = FakeReplica()
    async with (
        relaying(fake, limits=LimitsConfig(head_s=0.1)) as triolet,
        triolet.client() as client,
    ):
        await client.send(post())
        assert (await client.answer()).text == "Hello"
        await client.send(HEAD[:30])
        assert (await client.answer()).status == 408
        assert await client.closed()


BODIES = {
    "length": (HEAD + b"\r\n\r\n", b" " * 99),
    "length, part at once": (post()[:-20], b" " * 19),
    "chunk": (CHUNKED_HEAD + b"\r\n\r\n99\r\n", b" " * 99),
    "chunks": (CHUNKED_HEAD + b"\r\n\r\n", b"1\r\n \r\n" * 99),
}


@pytest.mark.parametrize(("at_once", "slowly"), BODIES.values(), ids=BODIES)
async def test_slow_loris_body(at_once: bytes, slowly: bytes) -> None:
    """A body that comes byte by byte must be whole within body_s."""
    async with relaying(FakeReplica(), limits=LimitsConfig(body_s=0.1)) as triolet:
        await assert_too_slow(triolet, at_once, slowly, "limits.body_s (0.1 s)")


async def test_slow_loris_body_is_told() -> None:
    """The log and the metrics do not call it a success."""
    async with relaying(FakeReplica(), limits=LimitsConfig(body_s=0.1)) as triolet:
        assert (await triolet.call(HEAD + b"\r\n\r\n")).status == 408
        line = await triolet.logged()
        assert (line["status"], line["outcome"]) == (408, "refused")
        assert triolet.outcomes() == {"refused": 1}


async def test_silent_from_the_beginning() -> None:
    """Whoever connects and says nothing is let go without a word after head_s."""
    async with relaying(FakeReplica(), limits=LimitsConfig(head_s=0.1)) as triolet:
        async with triolet.client() as client:
            assert await client.closed()
        assert triolet.lines() == []


async def test_silent_after_an_answer() -> None:
    """An idle connection is closed after keep_alive_s."""
    async with (
        relaying(FakeReplica(), limits=LimitsConfig(keep_alive_s=0.1)) as triolet,
        triolet.client() as client,
    ):
        await client.send(post())
        assert (await client.answer()).text == "Hello"
        begun = trio.current_time()
        assert await client.closed()
        assert trio.current_time() - begun >= 0.09


async def test_one_connection_too_many() -> None:
    """Over limits.connections a client is told so, and may try again soon."""
    async with (
        relaying(FakeReplica(), limits=LimitsConfig(connections=1)) as triolet,
        triolet.client() as first,
    ):
        assert await eventually(lambda: triolet.connections == 1)
        async with triolet.client() as second:
            answer = await second.answer()
            assert await second.closed()
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert answer.error["code"] == "overloaded"
        assert answer.error["type"] == "server_error"
        await first.send(post())
        assert (await first.answer()).text == "Hello"
