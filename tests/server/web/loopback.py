"""A small HTTP server on 127.0.0.1 that does what a test says, byte by byte if need be."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import h11
import trio


@dataclass
class Asked:
    """A request as it came in, and the stream to answer on."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    stream: trio.SocketStream
    closed: trio.Event

    def json(self) -> Any:
        return json.loads(self.body)

    async def answer(
        self,
        status: int = 200,
        body: bytes | str = b"",
        headers: dict[str, str] | None = None,
    ) -> None:
        """A whole answer with Content-Length."""
        data = body.encode() if isinstance(body, str) else body
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(data)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        await self.stream.send_all("\r\n".join([*lines, "", ""]).encode() + data)

    async def answer_json(self, value: Any, status: int = 200, **headers: str) -> None:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        await self.answer(status, json.dumps(value), {"Content-Type": "application/json"} | named)

    async def start(self, headers: dict[str, str], status: int = 200) -> None:
        """The head of an answer that ends when the connection does."""
        lines = [f"HTTP/1.1 {status} X", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        await self.stream.send_all("\r\n".join([*lines, "", ""]).encode())


Handler = Callable[[Asked], Awaitable[None]]


@dataclass
class Loopback:
    """A server that runs. `asked` is what came in, `connections` how many were taken."""

    port: int
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def loopback(handler: Handler) -> AsyncIterator[Loopback]:
    """Serve while the block lasts; each request goes to `handler`."""
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server = Loopback(listeners[0].socket.getsockname()[1])

        async def connection(stream: trio.SocketStream) -> None:
            server.connections += 1
            with trio.CancelScope():
                try:
                    await _converse(stream, handler, server)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return

        nursery.start_soon(trio.serve_listeners, connection, listeners)  # noqa: ASYNC113
        yield server
        nursery.cancel_scope.cancel()


async def _converse(stream: trio.SocketStream, handler: Handler, server: Loopback) -> None:
    http = h11.Connection(h11.SERVER)
    while True:
        request = await _event(http, stream)
        if not isinstance(request, h11.Request):
            return
        body = b""
        while isinstance(part := await _event(http, stream), h11.Data):
            body += part.data
        asked = Asked(
            method=request.method.decode(),
            path=request.target.decode(),
            headers={name.decode(): value.decode() for name, value in request.headers},
            body=body,
            stream=stream,
            closed=trio.Event(),
        )
        server.asked.append(asked)
        await handler(asked)
        # The handler wrote the answer itself: h11 is told so.
        http = h11.Connection(h11.SERVER)


async def _event(http: h11.Connection, stream: trio.SocketStream) -> object:
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(await stream.receive_some(65536))
    return event


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what the other end of a socket, or a thread, is about to do."""
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.001)


async def gone(asked: Asked) -> None:
    """Wait until the client has closed the connection."""
    while await asked.stream.receive_some(1024):
        pass
