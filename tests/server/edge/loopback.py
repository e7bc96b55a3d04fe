"""An ASGI app on the HTTP/1.1 server on loopback, and clients that speak raw bytes to it."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

import h11
import trio

from balancer.wire.poller import Poller, open_poller
from server.edge.accept import bind
from server.edge.connection import EdgeLimits
from server.edge.exchange import ASGIApp, Receive, Scope, Send
from server.edge.http1 import Http1Server
from server.edge.request import HeadLimits

PATIENCE_S: Final = 5.0
"""How long a client waits for what must come: a test that hangs says where."""

LIMITS: Final = EdgeLimits(
    head=HeadLimits(header_bytes=4096, header_count=20, body_bytes=100_000),
    connections=100,
    head_s=PATIENCE_S,
    body_s=PATIENCE_S,
    keep_alive_s=PATIENCE_S,
    write_s=PATIENCE_S,
)

GET: Final = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD: Final = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
POST_HELLO: Final = b"POST /sized HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
POST_CHUNKED: Final = (
    b"POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nhel\r\n2;why=not\r\nlo\r\n0\r\nX-Trailer: ignored\r\n\r\n"
)


@dataclass
class Answer:
    """One response as a strict client parser (h11) reads it."""

    status: int
    version: str
    headers: list[tuple[bytes, bytes]]
    body: bytes
    informational: list[int]

    def header(self, name: bytes) -> bytes | None:
        """The one value of a header, None if it is not there."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) <= 1, f"{name!r} came {len(values)} times"
        return values[0] if values else None


class Client:
    """One client connection. A context manager: leaves at the end."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._unread = b""

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, *_: type[BaseException] | BaseException | TracebackType | None
    ) -> None:
        self.leave()

    def leave(self, *, reset: bool = False) -> None:
        """Close; with a TCP reset if asked for."""
        if reset:
            linger = struct.pack("ii", 1, 0)
            self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.stream.socket.close()

    async def send(self, *pieces: bytes) -> None:
        """Send each piece as a segment of its own, as far as that can be had."""
        with trio.fail_after(PATIENCE_S):
            for piece in pieces:
                await self.stream.send_all(piece)

    async def _some(self) -> bytes:
        with trio.fail_after(PATIENCE_S):
            return await self.stream.receive_some(262_144)

    async def answer(self, method: str = "GET") -> Answer:
        """Read one response to a request of that method."""
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
        parser.send(h11.EndOfMessage())
        if self._unread:
            parser.receive_data(self._unread)
        answer, body = Answer(0, "", [], b"", []), bytearray()
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                parser.receive_data(await self._some())
            elif isinstance(event, h11.InformationalResponse):
                answer.informational.append(event.status_code)
            elif isinstance(event, h11.Response):
                answer.status, answer.headers = event.status_code, list(event.headers)
                answer.version = event.http_version.decode()
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self._unread = parser.trailing_data[0]
                answer.body = bytes(body)
                return answer
            else:
                raise AssertionError(f"the connection ended instead: {event!r}, {answer!r}")

    async def read_until(self, mark: bytes) -> bytes:
        """Raw bytes up to and with `mark`; what follows is kept."""
        while mark not in self._unread:
            data = await self._some()
            assert data, f"the connection ended after {self._unread!r}"
            self._unread += data
        end = self._unread.index(mark) + len(mark)
        found, self._unread = self._unread[:end], self._unread[end:]
        return found

    async def rest(self) -> bytes:
        """Raw bytes to the end. Raises `trio.BrokenResourceError` if that is a reset."""
        found, self._unread = self._unread, b""
        while data := await self._some():
            found += data
        return found

    async def until_reset(self) -> bytes:
        """Raw bytes up to the reset that must come: a clean end fails."""
        found = b""
        try:
            while data := await self._some():
                found += data
        except trio.BrokenResourceError:
            return found
        raise AssertionError(f"a clean end and no reset, after {found[-200:]!r}")

    async def silent(self, seconds: float) -> bool:
        """Whether nothing comes, and the connection stays open, for that long."""
        if self._unread:
            return False
        with trio.move_on_after(seconds) as scope:
            self._unread = await self.stream.receive_some(65_536)
        return scope.cancelled_caught


@dataclass
class Served:
    """A server that runs."""

    server: Http1Server
    port: int

    async def connect(self, *, receive_buffer: int | None = None) -> Client:
        """A client; with a small window if it is not going to read."""
        sock = trio.socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await sock.connect(("127.0.0.1", self.port))
        return Client(trio.SocketStream(sock))

    async def ask(self, *pieces: bytes) -> bytes:
        """Send this on a connection of its own and read until the server closes it."""
        async with await self.connect() as client:
            await client.send(*pieces)
            return await client.rest()

    async def until_empty(self) -> None:
        """Wait for the last connection to be over."""
        with trio.fail_after(PATIENCE_S):
            while self.server.counts().connections:  # noqa: ASYNC110 - there is no event for it
                await trio.sleep(0.005)


@asynccontextmanager
async def serving(
    app: ASGIApp,
    limits: EdgeLimits = LIMITS,
    *,
    state: dict[str, Any] | None = None,
    lifespan: bool = False,
    poller: Poller | None = None,
    listener: socket.socket | None = None,
) -> AsyncIterator[Served]:
    """Serve `app` on a port of its own until the block ends; with `lifespan`, to a clean end."""
    async with trio.open_nursery() as nursery:
        poller = poller or open_poller()
        await nursery.start(poller.run)
        sock = listener or bind("127.0.0.1", 0)
        server = Http1Server(app, poller, limits, state=state, lifespan=lifespan)
        port = sock.getsockname()[1]
        over = trio.Event()

        async def serve(task_status: trio.TaskStatus[None]) -> None:
            await server.serve([sock], task_status=task_status)
            over.set()

        await nursery.start(serve)
        yield Served(server, port)
        if lifespan:
            server.stop_accepting()
            with trio.fail_after(5):
                await over.wait()
        nursery.cancel_scope.cancel("the test is over")


@dataclass
class Seen:
    """One request as it reached the app."""

    method: str
    path: str
    query: bytes
    headers: list[tuple[bytes, bytes]]
    version: str
    body: bytes = b""
    pieces: int = 0
    complete: bool = False


@dataclass
class Recorder:
    """An app that notes what reaches it, reads the body, and answers with it."""

    seen: list[Seen] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        seen = Seen(
            scope["method"],
            scope["path"],
            scope["query_string"],
            list(scope["headers"]),
            scope["http_version"],
        )
        self.seen.append(seen)
        while not seen.complete:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            seen.body += message["body"]
            seen.pieces += 1
            seen.complete = not message["more_body"]
        await answer(send, 200, seen.body)

    @property
    def paths(self) -> list[str]:
        return [seen.path for seen in self.seen]


async def answer(
    send: Send,
    status: int,
    body: bytes,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> None:
    """A whole answer in two messages."""
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


async def quick(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that answers with the path and does not read the body."""
    await answer(send, 200, scope["path"].encode())
