"""A client that leaves is noticed: while a response streams, and while nothing is sent or read."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import pytest
import trio

from balancer.wire.poller import EpollPoller, Poller, TaskPoller
from server.edge.exchange import EXTENSION, Message, Receive, Scope, Send
from tests.server.edge.loopback import (
    GET,
    LIMITS,
    PATIENCE_S,
    POST_HELLO,
    Client,
    answer,
    serving,
)

SOON_S = 0.1
"""Within this time whoever works for a client that left is told (the promise of the edge)."""

TRIES = 3
"""A moment in which the machine did something else is not a failure; three in a row are."""

Leaving = Callable[[Client], Awaitable[None]]


async def close(client: Client) -> None:
    client.leave()


async def reset(client: Client) -> None:
    client.leave(reset=True)


async def half_close(client: Client) -> None:
    await client.stream.send_eof()


@pytest.fixture(params=[EpollPoller, TaskPoller])
def make_poller(request: pytest.FixtureRequest) -> Callable[[], Poller]:
    """Each kind of poller."""
    make: Callable[[], Poller] = request.param
    return make


ways = pytest.mark.parametrize("leave", [close, reset, half_close])


async def stream_slowly(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(500):
        await send({"type": "http.response.body", "body": b"x" * 10, "more_body": True})
        await trio.sleep(0.01)


async def stay_silent(send: Send) -> None:
    await trio.sleep_forever()


async def stay_silent_after_a_piece(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x", "more_body": True})
    await trio.sleep_forever()


works = pytest.mark.parametrize("work", [stream_slowly, stay_silent, stay_silent_after_a_piece])


class Watching:
    """An app that works until `receive` tells that the client is gone, and notes when."""

    def __init__(self, work: Callable[[Send], Awaitable[None]]) -> None:
        self.work = work
        self.started = trio.Event()
        self.gone_at = 0.0
        self.messages: list[str] = []
        self.done = trio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.request"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._work, send)
            self.started.set()
            self.messages.append((await receive())["type"])
            self.gone_at = time.perf_counter()
            nursery.cancel_scope.cancel()
        self.done.set()

    async def _work(self, send: Send) -> None:
        try:
            await self.work(send)
        except OSError:
            await trio.sleep_forever()  # the other task is told as well: wait for it


@ways
@works
async def test_receive_tells_that_the_client_left(
    work: Callable[[Send], Awaitable[None]], leave: Leaving, make_poller: Callable[[], Poller]
) -> None:
    """`http.disconnect` comes soon, whatever the app does and however the client goes."""
    delays = []
    for _ in range(TRIES):
        app = Watching(work)
        async with serving(app, poller=make_poller()) as served, await served.connect() as client:
            await client.send(GET)
            await app.started.wait()
            await trio.sleep(0.01)
            left_at = time.perf_counter()
            await leave(client)
            with trio.fail_after(PATIENCE_S):
                await app.done.wait()
            await served.until_empty()
        assert app.messages == ["http.disconnect"]
        delays.append(app.gone_at - left_at)
        if delays[-1] < SOON_S:
            return
    pytest.fail(f"told after {delays} s")


@ways
@pytest.mark.parametrize(
    "unread",
    [b"", GET, b"GET / HTTP/1.1\r\nHo", b"y" * 70_000],
    ids=["none", "get", "part", "much"],
)
async def test_on_gone_is_called_soon(leave: Leaving, unread: bytes) -> None:
    """The plain call comes within 100 ms and once, also over bytes that nobody has read."""
    delays = []
    for _ in range(TRIES):
        calls: list[float] = []
        running, told = trio.Event(), trio.Event()

        async def app(
            scope: Scope,
            receive: Receive,
            send: Send,
            calls: list[float] = calls,
            running: trio.Event = running,
            told: trio.Event = told,
        ) -> None:
            exchange = scope["extensions"][EXTENSION]

            def gone() -> None:
                calls.append(time.perf_counter())
                told.set()

            exchange.on_gone = gone
            running.set()
            await told.wait()
            assert exchange.gone
            assert (await receive())["type"] == "http.request"
            assert (await receive())["type"] == "http.disconnect"

        async with serving(app, poller=EpollPoller()) as served:
            async with await served.connect() as client:
                await client.send(GET)
                await running.wait()
                await client.send(unread)
                await trio.sleep(0.01)
                left_at = time.perf_counter()
                await leave(client)
                with trio.fail_after(PATIENCE_S):
                    await told.wait()
            await served.until_empty()
        assert len(calls) == 1
        delays.append(calls[0] - left_at)
        if delays[-1] < SOON_S:
            return
    pytest.fail(f"called after {delays} s")


async def test_on_gone_is_not_called_after_a_whole_answer() -> None:
    """An app that has answered is not told that its client closed the connection then."""
    calls: list[str] = []
    answered = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"][EXTENSION].on_gone = lambda: calls.append("gone")
        await answer(send, 200, b"")
        answered.set()
        await trio.sleep(0.05)

    async with serving(app) as served:
        async with await served.connect() as client:
            await client.send(GET)
            await client.answer()
            await answered.wait()
        await served.until_empty()
    assert calls == []


@ways
async def test_a_client_that_leaves_within_its_body(leave: Leaving) -> None:
    """The app gets what came, then `http.disconnect`, and never a body that looks whole."""
    messages: list[Message] = []
    done = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            while not messages or messages[-1]["type"] != "http.disconnect":
                messages.append(await receive())
        finally:
            done.set()

    async with serving(app) as served, await served.connect() as client:
        await client.send(POST_HELLO[:-2])
        await trio.sleep(0.02)
        await leave(client)
        with trio.fail_after(PATIENCE_S):
            await done.wait()
        await served.until_empty()
    *parts, last = messages
    assert last["type"] == "http.disconnect"
    assert all(message["more_body"] for message in parts)


async def test_send_to_a_client_that_left_raises_oserror() -> None:
    """As ASGI (2.4) has it; until the server has noticed, sending may seem to succeed."""
    raised: list[BaseException] = []
    running = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        running.set()
        with trio.fail_after(PATIENCE_S):
            try:
                while True:
                    await send({"type": "http.response.body", "body": b"x", "more_body": True})
                    await trio.sleep(0.002)
            except OSError as exc:
                raised.append(exc)

    async with serving(app) as served:
        async with await served.connect() as client:
            await client.send(GET)
            await running.wait()
        await served.until_empty()
    assert len(raised) == 1


async def test_leaving_is_not_worth_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """A client may go at any time: nothing is logged that a person would look at."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await stream_slowly(send)

    async def nursed(scope: Scope, receive: Receive, send: Send) -> None:
        async with trio.open_nursery() as nursery:  # the OSError comes out in a group
            nursery.start_soon(stream_slowly, send)
            nursery.start_soon(trio.sleep_forever)

    for serve_it in (app, nursed):
        async with serving(serve_it) as served:
            for leave in (close, reset):
                async with await served.connect() as client:
                    await client.send(GET)
                    await client.read_until(b"\r\n\r\n")
                    await leave(client)
                await served.until_empty()
    assert [record.getMessage() for record in caplog.records if record.levelname != "DEBUG"] == []


async def test_a_client_that_comes_and_goes_leaves_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Connections without a request, or with half a one, end silently and are not counted on."""
    async with serving(stay_silent_app, LIMITS) as served:
        for sent in (b"", b"GET", b"GET / HTTP/1.1\r\nHost: a\r\n"):
            for leave in (close, reset, half_close):
                async with await served.connect() as client:
                    await client.send(sent)
                    await trio.sleep(0.005)
                    await leave(client)
        await served.until_empty()
        assert served.server.counts().refused == {}
    assert [record for record in caplog.records if record.levelname != "DEBUG"] == []


async def stay_silent_app(scope: Scope, receive: Receive, send: Send) -> None:
    await trio.sleep_forever()
