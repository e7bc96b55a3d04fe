"""Apps and clients that cut each other short: what the client then reads, what is recorded."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import pytest
import trio

from server.edge.accept import bind
from server.edge.app import App, Route
from server.edge.exchange import ASGIApp, Exchange, Message, Receive, Scope, Send
from server.errors import ApiError
from server.observe.record import Record
from tests.server.edge.loopback import PATIENCE_S, Client, quick, serving

BIG: Final = b"".join(b"%07d," % number for number in range(100_000))
"""Far more than the sockets between server and client hold; no part of it is like another."""
TAIL: Final = b"and this is the end"
_PATIENCE_OF_APP_S: Final = 0.02
_EDGE_LOGS: Final = "triolet.edge"

START: Final[Message] = {"type": "http.response.start", "status": 200, "headers": []}


def body(data: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


class Impatient:
    """Gives up on each write of a large body; `cut` is set when it has."""

    def __init__(self, answer: Callable[[Impatient, Scope, Send], Awaitable[None]]) -> None:
        self._answer = answer
        self.cut = trio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/next":
            await quick(scope, receive, send)
        else:
            await self._answer(self, scope, send)

    async def give_up_on(self, write: Callable[[], Awaitable[None]]) -> None:
        with trio.move_on_after(_PATIENCE_OF_APP_S) as scope:
            await write()
        assert scope.cancelled_caught, "the sockets took it all"
        self.cut.set()


async def whole_answer(app: Impatient, _: Scope, send: Send) -> None:
    await send(START)
    await app.give_up_on(lambda: send(body(BIG + TAIL, more=False)))


async def sized_answer(app: Impatient, _: Scope, send: Send) -> None:
    length = (b"content-length", b"%d" % len(BIG + TAIL))
    await send({**START, "headers": [length]})
    await app.give_up_on(lambda: send(body(BIG, more=True)))
    await send(body(TAIL, more=False))


async def chunks(app: Impatient, _: Scope, send: Send) -> None:
    await send(START)
    await send(body(b"", more=True))
    await app.give_up_on(lambda: send(body(BIG, more=True)))
    await send(body(TAIL, more=False))


async def end_cut_twice(app: Impatient, _: Scope, send: Send) -> None:
    await send(START)
    await app.give_up_on(lambda: send(body(BIG, more=True)))
    await app.give_up_on(lambda: send(body(TAIL, more=False)))


async def sink(app: Impatient, scope: Scope, send: Send) -> None:
    exchange: Exchange = scope["extensions"]["triolet"]
    await send(START)
    await send(body(b"", more=True))
    assert not exchange.write_nowait(BIG)
    await app.give_up_on(exchange.drain)
    await send(body(TAIL, more=False))


@asynccontextmanager
async def slow_client(app: ASGIApp) -> AsyncIterator[Client]:
    """Small buffers on both sides: a client that does not read is soon felt."""
    listener = bind("127.0.0.1", 0)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
    async with (
        serving(app, listener=listener) as served,
        await served.connect(receive_buffer=4_096) as client,
    ):
        yield client


@pytest.mark.parametrize(
    "answer", [whole_answer, sized_answer, chunks, end_cut_twice, sink], ids=lambda a: a.__name__
)
async def test_what_was_cut_off_is_sent_first(
    answer: Callable[[Impatient, Scope, Send], Awaitable[None]],
) -> None:
    """Whatever the app says after it gave up on a write, the client reads behind that write."""
    app = Impatient(answer)
    async with slow_client(app) as client:
        await client.send(
            b"GET /big HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n"
        )
        with trio.fail_after(PATIENCE_S):
            await app.cut.wait()
        first, second = await client.answer(), await client.answer()
    assert first.body == BIG + TAIL
    assert (second.status, second.body) == (200, b"/next")


class Gushing:
    """Writes until the client is gone; then does `at_the_end`."""

    def __init__(self, at_the_end: Callable[[], None]) -> None:
        self._at_the_end = at_the_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        try:
            while True:
                await send(body(BIG, more=True))
        except OSError:
            self._at_the_end()
            raise


def stumble() -> None:
    raise KeyError("a planned bug in the app's clean-up")


async def errors_logged_of(app: ASGIApp, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the edge logs of an app whose client leaves in the middle of the answer."""
    with caplog.at_level(logging.WARNING, logger=_EDGE_LOGS):
        async with serving(app) as served:
            client = await served.connect()
            await client.send(b"GET /gush HTTP/1.1\r\nHost: a\r\n\r\n")
            await client.read_until(b"\r\n\r\n")
            client.leave(reset=True)
            await served.until_empty()
    return [record.exc_text or record.getMessage() for record in caplog.records]


async def test_a_bug_in_the_handling_of_a_disconnect(caplog: pytest.LogCaptureFixture) -> None:
    """Is the app's own failure: logged, although a lost connection is what it came from."""
    [text] = await errors_logged_of(Gushing(stumble), caplog)
    assert "a planned bug in the app's clean-up" in text


async def test_a_disconnect_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    """Is nobody's failure: nothing is logged."""
    assert await errors_logged_of(Gushing(lambda: None), caplog) == []


async def in_a_nursery(record: Record, scope: Scope, receive: Receive, send: Send) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        await trio.sleep_forever()


async def in_a_group(record: Record, scope: Scope, receive: Receive, send: Send) -> None:
    """As nurseries do that have more to tell than one cancellation."""
    try:
        await trio.sleep_forever()
    except trio.Cancelled as cancelled:
        raise BaseExceptionGroup("of a nursery", [cancelled]) from None  # noqa: ASYNC104 - it is in the group


async def no_error(send: Send, record: Record, error: ApiError) -> None:
    raise AssertionError(f"an error answer to nobody: {error}")


@pytest.mark.parametrize("handler", [in_a_nursery, in_a_group])
async def test_a_call_cancelled_by_another_server(
    handler: Callable[[Record, Scope, Receive, Send], Awaitable[None]], autojump_clock: object
) -> None:
    """A server that ends a call by cancelling it (https) leaves a record that says so."""
    settled: list[Record] = []
    app = App({"/": Route(GET=handler)}, no_error, settled.append)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        raise AssertionError(f"an answer to nobody: {message}")

    scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    with trio.move_on_after(1) as server:
        await app({**scope, "client": None, "extensions": {}}, receive, send)
    assert server.cancelled_caught
    [record] = settled
    assert (record.outcome, record.status) == ("aborted", 0)
    assert record.duration_s == pytest.approx(1)
