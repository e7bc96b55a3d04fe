"""Stopping: idle connections close, running ones finish and say so; abort ends all at once."""

from __future__ import annotations

from typing import Final

import pytest
import trio

from balancer.wire.poller import open_poller
from server.edge.accept import bind
from server.edge.exchange import Receive, Scope, Send
from server.edge.http1 import Http1Server
from tests.server.edge.loopback import (
    GET,
    LIMITS,
    PATIENCE_S,
    POST_HELLO,
    Recorder,
    answer,
    quick,
    serving,
)

HEAD_PART: Final = GET[:20]


class Gated:
    """An app that answers when let."""

    def __init__(self) -> None:
        self.running = trio.Event()
        self.let = trio.Event()
        self.cancelled = 0
        self.served = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.running.set()
        try:
            await self.let.wait()
        except trio.Cancelled:
            self.cancelled += 1
            raise
        await answer(send, 200, b"late")
        self.served += 1


async def test_idle_connections_are_closed() -> None:
    """Those that were used and those that never were; and nobody gets in any more."""
    async with serving(quick) as served:
        async with await served.connect() as used, await served.connect() as unused:
            await used.send(GET)
            await used.answer()
            await trio.sleep(0.01)
            served.server.stop_accepting()
            assert await used.rest() == b""
            assert await unused.rest() == b""
            await served.until_empty()
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream("127.0.0.1", served.port)


async def test_running_exchanges_finish_and_say_that_they_are_the_last() -> None:
    """The answer comes whole, with `connection: close`; what is pipelined behind is not served."""
    app = Gated()
    async with serving(app) as served, await served.connect() as client:
        await client.send(GET + GET)
        await app.running.wait()
        served.server.stop_accepting()
        assert await client.silent(0.02)
        app.let.set()
        got = await client.answer()
        assert (got.status, got.body) == (200, b"late")
        assert await client.rest() == b""
    assert app.served == 1
    assert got.header(b"connection") == b"close"


async def test_a_body_on_its_way_is_still_read() -> None:
    """An exchange that is reading its request's body counts as running."""
    recorder = Recorder()
    async with serving(recorder) as served, await served.connect() as client:
        await client.send(POST_HELLO[:-2])
        await trio.sleep(0.02)
        served.server.stop_accepting()
        await client.send(POST_HELLO[-2:])
        assert (await client.answer()).body == b"hello"
        assert await client.rest() == b""


async def test_half_a_head_may_still_become_a_request() -> None:
    """A client that was sending when we stopped is answered, and told that it was the last."""
    async with serving(quick) as served, await served.connect() as client:
        await client.send(HEAD_PART)
        await trio.sleep(0.02)
        served.server.stop_accepting()
        await client.send(GET[20:])
        got = await client.answer()
        assert (got.body, got.header(b"connection")) == (b"/", b"close")
        assert await client.rest() == b""


async def test_a_connection_that_just_came_does_not_hold_up_the_end() -> None:
    """Accepted in the moment of stopping, without a request: closed when its time is up."""
    listener = bind("127.0.0.1", 0)
    stream = await trio.open_tcp_stream(*listener.getsockname())  # waits in the backlog
    limits = LIMITS._replace(head_s=0.05)
    async with stream, serving(quick, limits, listener=listener) as served:
        while not served.server.counts().accepted:
            await trio.lowlevel.checkpoint()
        served.server.stop_accepting()
        await served.until_empty()


async def test_abort_ends_everything_at_once() -> None:
    """Apps see Cancelled, clients a closed connection, and `serve` comes to its end."""
    app = Gated()
    async with trio.open_nursery() as nursery:
        poller = open_poller()
        await nursery.start(poller.run)
        sock = bind("127.0.0.1", 0)
        address = sock.getsockname()
        server = Http1Server(app, poller, LIMITS, lifespan=False)
        ended = trio.Event()

        async def serve(task_status: trio.TaskStatus[None]) -> None:
            await server.serve([sock], task_status=task_status)
            ended.set()

        await nursery.start(serve)
        clients = [await trio.open_tcp_stream(*address) for _ in range(3)]
        for client in clients:
            await client.send_all(GET)
        await app.running.wait()
        await trio.sleep(0.02)
        server.stop_accepting()
        assert not ended.is_set()
        server.abort()
        with trio.fail_after(PATIENCE_S):
            await ended.wait()
        assert app.cancelled == 3
        assert server.counts().connections == 0
        for client in clients:
            await trio.aclose_forcefully(client)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("sent", [HEAD_PART, POST_HELLO[:-2]], ids=["head", "body"])
async def test_abort_does_not_blame_the_client(sent: bytes) -> None:
    """Whoever was sending when we stopped was not too slow: no 408."""
    async with serving(Recorder()) as served, await served.connect() as client:
        await client.send(sent)
        await trio.sleep(0.02)
        served.server.abort()
        try:
            raw = await client.rest()
        except trio.BrokenResourceError:
            raw = b""
        assert b" 408 " not in raw


async def test_serve_ends_when_the_last_connection_does() -> None:
    """After `stop_accepting` without connections `serve` returns at once."""
    async with trio.open_nursery() as nursery:
        poller = open_poller()
        await nursery.start(poller.run)
        server = Http1Server(quick, poller, LIMITS, lifespan=False)
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as serving_nursery:
                await serving_nursery.start(server.serve, [bind("127.0.0.1", 0)])
                server.stop_accepting()
        nursery.cancel_scope.cancel()


async def test_several_listeners_one_app() -> None:
    """One server on two ports: both serve, both stop."""
    async with trio.open_nursery() as nursery:
        poller = open_poller()
        await nursery.start(poller.run)
        server = Http1Server(quick, poller, LIMITS, lifespan=False)
        listeners = [bind("127.0.0.1", 0), bind("127.0.0.1", 0)]
        addresses = [listener.getsockname() for listener in listeners]
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as serving_nursery:
                await serving_nursery.start(server.serve, listeners)
                for address in addresses:
                    stream = await trio.open_tcp_stream(*address)
                    async with stream:
                        await stream.send_all(GET)
                        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
                server.stop_accepting()
        nursery.cancel_scope.cancel()


def test_an_address_in_use_is_named() -> None:
    """The error says which address, so that one knows what to change."""
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"cannot listen on 127\.0\.0\.1 port {port}"):
            bind("127.0.0.1", port)
