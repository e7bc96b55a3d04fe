"""Model calls over real sockets on 127.0.0.1: what a replica sees of them."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import trio

from balancer.catalog import Catalog
from balancer.pool import Pool
from balancer.replica import Replica
from balancer.wire.connect import Origin, TcpDialer
from balancer.wire.poller import open_poller
from server.pool_models import PoolModels
from server.workflow.model_names import ModelNames
from server.workflow.services import ModelFailed, ToolCall, Usage
from tests.balancer.relays import First
from tests.balancer.scripted import STREAM_HEAD, chunk
from tests.server.pool_models.calls import (
    DONE,
    Heard,
    call_of,
    delta,
    run_of,
    sent,
    stop,
    usage,
)
from tests.server.pool_models.test_answer import call_delta

Handler = Callable[[trio.SocketStream], Awaitable[None]]
BODY = b"".join(
    (
        delta(content="Grüße"),
        call_delta(0, "c", name="f", arguments='{"a":'),
        call_delta(0, arguments=' "ü"}'),
        stop("tool_calls"),
        usage(8, 3, cached=4),
        DONE,
    )
)
LAST = b"0\r\n\r\n"


async def request_of(stream: trio.SocketStream) -> bytes:
    """One whole request."""
    request = b""
    while True:
        request += await stream.receive_some()
        head, found, body = request.partition(b"\r\n\r\n")
        if found and len(body) == int(head.lower().partition(b"content-length: ")[2].split()[0]):
            return request


@asynccontextmanager
async def serving(*handlers: Handler) -> AsyncIterator[PoolModels]:
    """Models of one pool, with a replica for each handler."""
    async with trio.open_nursery() as nursery:
        poller = open_poller()
        await nursery.start(poller.run)
        replicas = []
        for handler in handlers:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, handler, [listener])  # noqa: ASYNC113
            port = listener.socket.getsockname()[1]
            origin = Origin.parse(f"http://127.0.0.1:{port}")
            replicas.append(Replica(origin, TcpDialer(poller)))
        pool = Pool("m", replicas, First())
        yield PoolModels(Catalog([pool]), ModelNames({"*": "m"}))
        assert pool.statistics().in_flight == 0
        for replica in replicas:
            replica.close()
        nursery.cancel_scope.cancel("the test is over")


@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_in_pieces_of_any_size(size: int) -> None:
    """However the network cuts the bytes: the same text, calls and usage."""
    requests = []

    async def handle(stream: trio.SocketStream) -> None:
        requests.append(await request_of(stream))
        answer = STREAM_HEAD + b"".join(
            chunk(BODY[at : at + size]) for at in range(0, len(BODY), size)
        )
        for at in range(0, len(answer + LAST), size):
            await stream.send_all((answer + LAST)[at : at + size])

    async with serving(handle) as models:
        heard = Heard()
        found = await models.chat(call_of(), run_of(), heard)
    assert heard.pieces == [("text", "Grüße")]
    assert found.tool_calls == (ToolCall("c", "f", '{"a": "ü"}'),)
    assert found.usage == Usage(8, 3, 4)
    assert sent(requests[0])["messages"] == [{"role": "user", "content": "Hello?"}]


async def test_cancelling() -> None:
    """The replica sees its connection close, in mid-stream and before anything came."""
    for begins in (False, True):
        asked, gone = trio.Event(), trio.Event()

        async def handle(
            stream: trio.SocketStream,
            begins: bool = begins,
            asked: trio.Event = asked,
            gone: trio.Event = gone,
        ) -> None:
            await request_of(stream)
            if begins:
                await stream.send_all(STREAM_HEAD + chunk(delta(content="Go")))
            asked.set()
            with suppress(trio.BrokenResourceError):
                assert await stream.receive_some() == b""
            gone.set()

        async with serving(handle) as models, trio.open_nursery() as nursery:
            nursery.start_soon(models.chat, call_of(), run_of())
            with trio.fail_after(5):
                await asked.wait()
                nursery.cancel_scope.cancel("the run was stopped")
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                    await gone.wait()
        assert gone.is_set()


def reset(stream: trio.SocketStream) -> None:
    """Break the connection off."""
    linger = struct.pack("ii", 1, 0)
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    stream.socket.close()


async def test_another_replica() -> None:
    """One that breaks off before it answers costs the run nothing but time."""
    tries = []

    async def breaks(stream: trio.SocketStream) -> None:
        await request_of(stream)
        tries.append("breaks")
        reset(stream)

    async def answers(stream: trio.SocketStream) -> None:
        await request_of(stream)
        tries.append("answers")
        await stream.send_all(STREAM_HEAD + chunk(BODY) + LAST)

    async with serving(breaks, answers) as models:
        assert (await models.chat(call_of(), run_of())).text == "Grüße"
    assert tries == ["breaks", "answers"]


async def test_cut_in_mid_stream() -> None:
    """What came is there, and the error says that it broke off."""

    async def handle(stream: trio.SocketStream) -> None:
        await request_of(stream)
        await stream.send_all(STREAM_HEAD + chunk(delta(content="Go")))
        await heard_some.wait()
        reset(stream)

    heard_some = trio.Event()

    class Signals(Heard):
        async def drain(self) -> None:
            heard_some.set()

    async with serving(handle) as models:
        heard = Signals()
        with pytest.raises(ModelFailed, match="broke off"):
            await models.chat(call_of(), run_of(), heard)
    assert heard.pieces == [("text", "Go")]
