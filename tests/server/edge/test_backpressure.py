"""Neither side is made to hold what the other has not taken."""

from __future__ import annotations

from typing import Final

import pytest
import trio

from server.edge.exchange import EXTENSION, Receive, Scope, Send
from server.edge.request import HeadLimits
from tests.server.edge.loopback import GET, LIMITS, PATIENCE_S, answer, serving

PIECE: Final = b"0123456789abcdef" * 4096
PIECES: Final = 160
KERNEL_BYTES: Final = 10 * 1024 * 1024
"""More than the kernel holds of one connection on loopback, both ends together."""

BIG: Final = LIMITS._replace(head=HeadLimits(4096, 20, body_bytes=10**9))


async def quiet(count: list[int]) -> int:
    """Wait until `count` stops growing, and return where."""
    with trio.fail_after(PATIENCE_S):
        while True:
            before = len(count)
            await trio.sleep(0.03)
            if len(count) == before:
                return before


@pytest.mark.slow
@pytest.mark.parametrize("sized", [False, True])
async def test_send_waits_for_a_client_that_does_not_read(sized: bool) -> None:
    """The app is held, by what fits into the kernel's buffers; and nothing is lost by it."""
    sent: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"%d" % (PIECES * len(PIECE)))] if sized else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number in range(PIECES):
            more = number < PIECES - 1
            await send({"type": "http.response.body", "body": PIECE, "more_body": more})
            sent.append(number)

    async with serving(app) as served, await served.connect(receive_buffer=65_536) as client:
        await client.send(GET)
        held = await quiet(sent)
        assert 0 < held * len(PIECE) < KERNEL_BYTES
        assert (await client.answer()).body == PIECE * PIECES
        assert len(sent) == PIECES


@pytest.mark.slow
async def test_write_nowait_tells_when_to_drain() -> None:
    """The extension's synchronous write: False when the socket is full, and nothing is lost."""
    full: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = scope["extensions"][EXTENSION]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        for _ in range(PIECES):
            if not exchange.write_nowait(PIECE):
                full.append(1)
                await exchange.drain()
        await send({"type": "http.response.body", "body": b"last"})

    async with serving(app) as served, await served.connect(receive_buffer=65_536) as client:
        await client.send(GET)
        await quiet(full)
        assert len(full) == 1
        body = (await client.answer()).body
        assert body == b"first" + PIECE * PIECES + b"last"


@pytest.mark.slow
@pytest.mark.parametrize("chunked", [False, True])
async def test_no_more_of_a_body_is_read_than_the_app_takes(chunked: bool) -> None:
    """The client is held while the app does not read; then each message is a small part."""
    go_on = trio.Event()
    taken: list[int] = []
    sent: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go_on.wait()
        more = True
        while more:
            message = await receive()
            taken.append(len(message["body"]))
            more = message["more_body"]
        await answer(send, 200, b"%d" % sum(taken))

    size = PIECES * len(PIECE)
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size

    async with serving(app, BIG) as served, await served.connect() as client:

        async def upload() -> None:
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % framing)
            for number in range(PIECES):
                piece = b"%x\r\n%b\r\n" % (len(PIECE), PIECE) if chunked else PIECE
                await client.stream.send_all(piece)
                sent.append(number)
            if chunked:
                await client.send(b"0\r\n\r\n")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload)
            held = await quiet(sent)
            assert 0 < held * len(PIECE) < KERNEL_BYTES
            go_on.set()
            assert (await client.answer()).body == b"%d" % size
        assert max(taken) <= 65_536


@pytest.mark.slow
async def test_an_app_that_takes_its_time_is_not_the_clients_fault() -> None:
    """The time for a body counts the waiting for the client, not what the app does meanwhile."""
    limits = LIMITS._replace(body_s=0.15)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        first = await receive()
        await trio.sleep(0.3)
        second = await receive()
        await answer(send, 200, first["body"] + second["body"])

    async with serving(app, limits) as served, await served.connect() as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n")
        await trio.sleep(0.02)
        await client.send(b"abc")
        await trio.sleep(0.02)
        await client.send(b"def")
        got = await client.answer()
        assert (got.status, got.body) == (200, b"abcdef")


async def test_pipelined_requests_wait_in_the_socket() -> None:
    """A client that sends requests without end is held while one of them is being served."""
    go_on = trio.Event()
    sent: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go_on.wait()
        await answer(send, 200, b"")

    async with serving(app) as served, await served.connect() as client:

        async def flood() -> None:
            for number in range(1000):
                await client.stream.send_all(GET * 1000)
                sent.append(number)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            assert await quiet(sent) * len(GET) * 1000 < KERNEL_BYTES
            nursery.cancel_scope.cancel()
