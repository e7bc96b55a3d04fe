"""Every bound has its answer, a closed connection, and no effect on anybody else."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable
from typing import Any, Final

import pytest
import trio

from server.edge.accept import bind
from server.edge.connection import EdgeLimits
from server.edge.exchange import EXTENSION, Receive, Scope, Send
from tests.server.edge.loopback import (
    GET,
    LIMITS,
    POST_HELLO,
    Client,
    Recorder,
    Served,
    answer,
    quick,
    serving,
)

SHORT_S: Final = 0.08
HEAD_PART: Final = b"GET / HTTP/1.1\r\nHost: a\r\nX: "
BODY_PART: Final = POST_HELLO[:-2]
CHUNKED: Final = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
TOO_LONG: Final = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100001\r\n\r\n"


async def refusal(client: Client) -> tuple[int, str]:
    """The status and text of an answer that is the last on its connection."""
    got = await client.answer()
    assert got.header(b"connection") == b"close"
    assert await client.rest() == b""
    return got.status, got.body.decode()


async def still_serves(served: Served) -> bool:
    """Whether another client is served as ever."""
    async with await served.connect() as client:
        await client.send(GET)
        return (await client.answer()).status == 200


HEADS: Final = {
    "bytes-of-target": b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "bytes-of-value": HEAD_PART + b"a" * 5000 + b"\r\n\r\n",
    "bytes-of-name": b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a" * 5000 + b": b\r\n\r\n",
    "bytes-of-many": HEAD_PART + b"\r\nX: ".join([b"a" * 300] * 15) + b"\r\n\r\n",
    "count": HEAD_PART + b"\r\nX: ".join([b"a"] * 20) + b"\r\n\r\n",
    "without-end": HEAD_PART + b"a" * 5000,
}


@pytest.mark.parametrize("piece", [1000, 10_000])
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
async def test_431_for_a_head_over_the_limit(head: bytes, piece: int) -> None:
    """Too many bytes or too many fields, in one piece or several; the app is not called."""
    recorder = Recorder()
    async with serving(recorder) as served, await served.connect() as client:
        await client.send(*(head[at : at + piece] for at in range(0, len(head), piece)))
        status, text = await refusal(client)
        assert status == 431
        assert "limits.header_" in text
        assert recorder.seen == []
        assert served.server.counts().refused == {431: 1}
        assert await still_serves(served)


async def test_413_by_content_length() -> None:
    """Refused by its length alone, before the body, also for one who waits to be told."""
    recorder = Recorder()
    async with serving(recorder) as served:
        for extra in (b"", b"Expect: 100-continue\r\n"):
            async with await served.connect() as client:
                await client.send(TOO_LONG[:-2] + extra + b"\r\n")
                status, text = await refusal(client)
                assert status == 413
                assert "100000 bytes" in text
        assert recorder.seen == []
        assert await still_serves(served)


@pytest.mark.parametrize("size", [1000, 50_000, 120_000])
async def test_413_by_growth(size: int) -> None:
    """A chunked body that grows over the limit: the app is ended, its client told why."""
    recorder = Recorder()
    async with serving(recorder) as served, await served.connect() as client:
        await client.send(CHUNKED)
        for _ in range(100_000 // size + 1):
            await client.send(b"%x\r\n%b\r\n" % (size, b"a" * size))
        assert (await refusal(client))[0] == 413
        assert [seen.complete for seen in recorder.seen] == [False]
        assert len(recorder.seen[0].body) <= 100_000


async def test_413_by_growth_in_one_piece() -> None:
    """The same when head and body come at once: told at once, not when time has passed."""
    limits = LIMITS._replace(body_s=SHORT_S)
    limits = limits._replace(head=limits.head._replace(body_bytes=100))
    async with serving(Recorder(), limits) as served, await served.connect() as client:
        await client.send(CHUNKED + b"c8\r\n" + b"a" * 200 + b"\r\n0\r\n\r\n")
        assert (await refusal(client))[0] == 413


async def test_a_body_at_the_limit_passes() -> None:
    """The limit itself is allowed, sized and chunked."""
    body = b"a" * 100_000
    async with serving(Recorder()) as served, await served.connect() as client:
        sized = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + body
        chunked = CHUNKED + b"186a0\r\n" + body + b"\r\n0\r\n\r\n"
        for request in (sized, chunked):
            await client.send(request)
            assert (await client.answer()).body == body


async def test_408_for_a_slow_head() -> None:
    """Slow loris: each byte in time, the head not. The clock is not started anew by a byte."""
    limits = LIMITS._replace(head_s=SHORT_S)
    async with serving(quick, limits) as served, await served.connect() as client:
        started = trio.current_time()

        async def trickle() -> None:
            for byte in HEAD_PART + b"a" * 100:
                await client.stream.send_all(bytes([byte]))
                await trio.sleep(SHORT_S / 8)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trickle)
            got = await client.answer()
            nursery.cancel_scope.cancel()
        assert got.status == 408
        assert b"limits.head_s" in got.body
        assert trio.current_time() - started >= SHORT_S * 0.9
        assert await client.rest() == b""


@pytest.mark.parametrize("part", [b"G", HEAD_PART])
async def test_408_for_a_head_that_stalls_on_a_kept_connection(part: bytes) -> None:
    """The second head has as long as the first, and not as long as an idle connection."""
    limits = LIMITS._replace(head_s=SHORT_S)
    async with serving(quick, limits) as served, await served.connect() as client:
        await client.send(GET)
        await client.answer()
        await trio.sleep(SHORT_S * 1.5)
        await client.send(part)
        with trio.fail_after(SHORT_S * 10):
            assert (await refusal(client))[0] == 408


@pytest.mark.slow
async def test_408_for_a_head_that_stalls_behind_a_pipelined_request() -> None:
    """Its first bytes came with the request before it: its time runs all the same."""
    limits = LIMITS._replace(head_s=SHORT_S)
    async with serving(quick, limits) as served, await served.connect() as client:
        await client.send(GET + HEAD_PART)
        assert (await client.answer()).status == 200
        with trio.fail_after(SHORT_S * 10):
            assert (await refusal(client))[0] == 408


@pytest.mark.parametrize("part", [BODY_PART, CHUNKED, CHUNKED + b"5\r\nhel", POST_HELLO[:-5]])
async def test_408_for_a_slow_body(part: bytes) -> None:
    """A body that does not come to its end: the app is cancelled while it waits for it."""
    ended: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            while True:
                await receive()
        except trio.Cancelled:
            ended.append("cancelled")
            raise

    limits = LIMITS._replace(body_s=SHORT_S)
    async with serving(app, limits) as served, await served.connect() as client:
        await client.send(part)
        status, text = await refusal(client)
        assert status == 408
        assert "limits.body_s" in text
        client.leave()
        await served.until_empty()
    assert ended == ["cancelled"]


async def test_a_slow_body_after_the_answer_began_is_cut_off() -> None:
    """No second status line in the middle of an answer: the connection is reset."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        while True:
            await receive()

    limits = LIMITS._replace(body_s=SHORT_S)
    async with serving(app, limits) as served, await served.connect() as client:
        await client.send(BODY_PART)
        raw = await client.read_until(b"begun\r\n")
        assert raw.startswith(b"HTTP/1.1 200")
        await client.until_reset()


@pytest.mark.parametrize("before", [b"", GET])
async def test_an_idle_connection_is_closed_silently(before: bytes) -> None:
    """Nobody asked anything: no answer, just the end, after keep_alive_s (or head_s at first)."""
    times = LIMITS._replace(keep_alive_s=SHORT_S) if before else LIMITS._replace(head_s=SHORT_S)
    async with serving(quick, times) as served, await served.connect() as client:
        started = trio.current_time()
        await client.send(before)
        if before:
            await client.answer()
        assert await client.rest() == b""
        assert SHORT_S * 0.9 <= trio.current_time() - started < SHORT_S * 10
        assert served.server.counts().refused == {}


async def test_a_running_exchange_is_not_idle() -> None:
    """However long an app takes: the times for head, body and idleness do not run."""
    limits = LIMITS._replace(head_s=SHORT_S, body_s=SHORT_S, keep_alive_s=SHORT_S, write_s=SHORT_S)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"slow", "more_body": True})
        await trio.sleep(SHORT_S * 2)
        await send({"type": "http.response.body", "body": message["body"]})

    async with serving(app, limits) as served, await served.connect() as client:
        await client.send(POST_HELLO)
        assert (await client.answer()).body == b"slowhello"


async def hold(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers `/` and keeps any other waiting until its client leaves."""
    if scope["path"] != "/":
        while (await receive())["type"] != "http.disconnect":
            pass
    await answer(send, 200, b"")


async def test_503_for_one_connection_too_many() -> None:
    """Told at accept, with when to try again; those inside are not affected; room comes back."""
    limits = LIMITS._replace(connections=2)
    async with serving(hold, limits) as served:
        async with await served.connect() as first, await served.connect() as second:
            for client in (first, second):
                await client.send(GET)
                assert (await client.answer()).status == 200
            for sent in (GET, b""):
                async with await served.connect() as third:
                    await third.send(sent)
                    got = await third.answer()
                    assert (got.status, got.header(b"retry-after")) == (503, b"1")
                    assert got.header(b"connection") == b"close"
                    assert b"limits.connections" in got.body
                    assert await third.rest() == b""
            for client in (first, second):
                await client.send(GET)
                assert (await client.answer()).status == 200
            counts = served.server.counts()
            assert (counts.connections, counts.turned_away) == (2, 2)
            assert counts.refused == {503: 2}
        await served.until_empty()
        assert await still_serves(served)


async def test_a_rush_does_not_get_over_the_limit() -> None:
    """Connections that come all at once are counted like those that come one by one."""
    limits = LIMITS._replace(connections=3)
    most = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal most
        most = max(most, served.server.counts().connections)
        await trio.sleep(0.05)
        await answer(send, 200, b"")

    listener = bind("127.0.0.1", 0)
    rush = []
    for _ in range(12):  # in the backlog before the server is there
        rush.append(socket.create_connection(listener.getsockname()))
        rush[-1].sendall(GET)
    clients = [Client(trio.SocketStream(trio.socket.from_stdlib_socket(sock))) for sock in rush]
    async with serving(app, limits, listener=listener) as served:
        statuses = [(await client.answer()).status for client in clients]
        for client in clients:
            client.leave()
    assert most <= 3
    assert sorted(statuses) == [200] * 3 + [503] * 9


async def test_a_client_that_stops_reading_is_cut_off() -> None:
    """After write_s without a byte taken: the app sees Cancelled, the client a reset."""
    ended: list[str] = []
    gone: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"][EXTENSION].on_gone = lambda: gone.append("gone")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
        except trio.Cancelled:
            ended.append("cancelled")
            raise

    limits = LIMITS._replace(write_s=SHORT_S)
    async with serving(app, limits) as served, await served.connect(receive_buffer=4096) as client:
        await client.send(GET)
        await trio.sleep(SHORT_S / 2)
        await served.until_empty()
        assert ended == ["cancelled"]
        await client.until_reset()
        assert await still_serves_other(served)


async def still_serves_other(served: Served) -> bool:
    """Whether a request that is not answered in full is at least taken."""
    async with await served.connect() as client:
        await client.send(GET)
        return (await client.read_until(b"\r\n")).startswith(b"HTTP/1.1 200")


@pytest.mark.slow
async def test_a_client_that_reads_slowly_is_not_cut_off() -> None:
    """The deadline is for taking anything, not for taking all."""
    size = 10 * 1024 * 1024

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, 200, bytes(size))

    limits = LIMITS._replace(write_s=0.25)
    async with (
        serving(app, limits) as served,
        await served.connect(receive_buffer=65_536) as client,
    ):
        await client.send(GET)
        started, read = trio.current_time(), 0
        while read < size:
            read += len(await client.stream.receive_some(65_536))
            await trio.sleep(0.004)
        assert trio.current_time() - started > 0.25


@pytest.mark.slow
async def test_a_client_that_does_not_read_its_refusal_is_let_go() -> None:
    """Telling a client why is bounded too: the connection is closed after a second."""
    async with serving(quick) as served, await served.connect() as client:
        await client.send(b"nonsense\r\n\r\n")
        with trio.fail_after(3):
            await served.until_empty()


class Failing(socket.socket):
    """A listener whose `accept` fails as often as told."""

    failures: list[OSError]
    calls: int

    def accept(self) -> tuple[socket.socket, Any]:
        self.calls += 1
        if self.failures:
            raise self.failures.pop()
        return super().accept()


def failing(make: Callable[[], OSError], times: int) -> Failing:
    listener = Failing(fileno=bind("127.0.0.1", 0).detach())
    listener.setblocking(False)
    listener.failures = [make() for _ in range(times)]
    listener.calls = 0
    return listener


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_no_descriptors_left_is_waited_out(
    number: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Out of descriptors: the server says so, does not spin, and accepts when there are some."""
    listener = failing(lambda: OSError(number, "out of something"), 2)
    async with serving(quick, listener=listener) as served:
        assert await still_serves(served)
        assert listener.calls <= 6, "it spins"
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
    assert 1 <= len(warnings) <= 2
    assert "ulimit -n" in warnings[0]


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPROTO, errno.EPERM])
async def test_a_connection_that_fails_before_it_is_accepted(number: int) -> None:
    """accept(2): such errors are the one connection's, and not the listener's."""
    listener = failing(lambda: OSError(number, "that one is gone"), 1)
    async with serving(quick, listener=listener) as served:
        assert await still_serves(served)


def test_defaults_are_those_of_the_configuration() -> None:
    """The server's own defaults and the configuration's do not drift apart."""
    from server.config import Config

    limits, ours = Config().limits, EdgeLimits()
    assert (limits.header_bytes, limits.header_count, limits.body_bytes) == ours.head
    assert limits.connections == ours.connections
    assert (limits.head_s, limits.body_s) == (ours.head_s, ours.body_s)
    assert (limits.keep_alive_s, limits.write_s) == (ours.keep_alive_s, ours.write_s)
