"""HTTP/1.1 towards replicas: one connection, and the kept connections of one replica.

llhttp parses; a connection is used again only after an answer that ended cleanly. A kept
connection on which anything happens (the replica closes it, or says something unasked) is dropped
at that moment, not when the next request finds out.
"""

from __future__ import annotations

from typing import Final

import httptools
import trio

from balancer.errors import (
    AnswerInvalid,
    AnswerLost,
    AttemptFailed,
    ConnectFailed,
    ConnectionLost,
)
from balancer.wire.connect import Dialer, Origin
from balancer.wire.transport import Transport

__all__ = ["Connection", "ConnectionPool", "Head", "request_head"]

Headers = list[tuple[bytes, bytes]]

_HEAD_BYTES: Final = 262_144
"""The longest response head taken from a replica; engines send a few hundred bytes."""


class Head:
    """Status and headers of an answer; header names in lower case, in the order they came."""

    __slots__ = ("headers", "status")

    def __init__(self, status: int, headers: Headers) -> None:
        self.status = status
        self.headers = headers

    def get(self, name: bytes) -> bytes | None:
        """The first header of that (lower-case) name."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    @property
    def length(self) -> int | None:
        """The body's length where the head gives it."""
        value = self.get(b"content-length")
        return int(value) if value is not None else None


def request_head(method: str, target: bytes, headers: list[bytes]) -> bytes:
    """The bytes of a request's head; `headers` are whole lines without their ends."""
    return b"\r\n".join((b"%b %b HTTP/1.1" % (method.encode(), target), *headers, b"", b""))


class Connection:
    """One connection to one replica, for one exchange at a time.

    Order of calls: `send`, `head`, then `pull` or `read` until they return `b""`.
    """

    __slots__ = (
        "_broken",
        "_framed",
        "_head",
        "_head_bytes",
        "_headers",
        "_keep",
        "_parser",
        "_pieces",
        "_stray",
        "complete",
        "name",
        "transport",
        "used",
    )

    def __init__(self, transport: Transport, name: str) -> None:
        self.transport = transport
        self.name = name
        self.used = 0
        self._pieces: list[bytes] = []
        self._parser = httptools.HttpResponseParser(_Callbacks(self))
        self._reset()

    def _reset(self) -> None:
        self._headers: Headers = []
        self._head: Head | None = None
        self._head_bytes = 0
        self._framed = False
        self._keep = False
        self._stray = False
        self._broken: AnswerInvalid | None = None
        self.complete = False
        self._pieces.clear()

    async def send(self, request: bytes, body: bytes = b"") -> None:
        """Send a request. Raises `AnswerLost` if the replica is gone."""
        self._reset()
        self.used += 1
        try:
            # One write for the usual request; a large body is not copied for that.
            if len(body) <= 65_536:
                await self.transport.send_all(request + body)
            else:
                await self.transport.send_all(request)
                await self.transport.send_all(body)
        except ConnectionLost as exc:
            await self._find_early_answer(self._lost(str(exc)))

    async def _find_early_answer(self, failure: AnswerLost) -> None:
        """A replica may refuse a request (413, 401) and close before it has read all of it."""
        try:
            await self.head()
        except AttemptFailed:
            raise failure from None

    async def head(self) -> Head:
        """The answer's head. Raises `AnswerLost`, `AnswerInvalid`; set a deadline."""
        while self._head is None:
            self._feed(await self._receive())
        return self._head

    async def read(self) -> bytes:
        """The next bytes of the body; `b""` once it has ended. Set a deadline."""
        while True:
            data = self.pull()
            if data is not None:
                return data
            self._feed(await self._receive())

    def pull(self) -> bytes | None:
        """Body bytes that are here now; `b""` once it has ended; None if there is nothing yet."""
        while not self._pieces:
            if self.complete:
                return b""
            if self._broken is not None:
                raise self._broken
            try:
                data = self.transport.receive_nowait()
            except ConnectionLost as exc:
                raise self._lost(str(exc)) from exc
            if data is None:
                return None
            self._feed(data)
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return body

    async def _receive(self) -> bytes:
        try:
            return await self.transport.receive()
        except ConnectionLost as exc:
            raise self._lost(str(exc)) from exc

    def _feed(self, data: bytes) -> None:
        if not data:
            self._end_of_stream()
            return
        if self._head is None:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES:
                raise AnswerInvalid(self.name, f"a response head of over {_HEAD_BYTES} bytes")
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            raise AnswerInvalid(self.name, "switched protocols unasked") from exc
        except httptools.HttpParserError as exc:
            if self.complete:
                # A whole answer, then nonsense: the answer counts, the connection does not.
                self._stray = True
                return
            broken = AnswerInvalid(self.name, f"not HTTP: {exc}")
            if not self._pieces:
                raise broken from exc
            self._broken = broken  # what came before it is handed out first

    def _end_of_stream(self) -> None:
        if self._head is None:
            raise self._lost("closed the connection before an answer")
        if self._framed:
            raise AnswerLost(self.name, "closed the connection before the end of its answer")
        self.complete = True

    def _lost(self, why: str) -> AnswerLost:
        stale = self.used > 1 and self._head_bytes == 0
        return AnswerLost(self.name, why, stale=stale)

    @property
    def delimited_by_close(self) -> bool:
        """Whether only the connection's end tells where the body ends."""
        return self._head is not None and not self._framed

    @property
    def reusable(self) -> bool:
        """Whether the answer ended cleanly and both sides want to go on."""
        return self.complete and self._keep and not self._stray and not self.transport.hung_up

    def close(self) -> None:
        """Close it; it is of no use any more."""
        self.transport.close()
        self._parser = _NO_PARSER  # which knows us: without the circle we are freed at once


_NO_PARSER: Final = httptools.HttpResponseParser(object())


class _Callbacks:
    """What llhttp calls. Apart from `Connection` so that its names stay out of that interface."""

    __slots__ = ("_connection", "on_body")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # The list's own method: no Python frame per chunk.
        self.on_body = connection._pieces.append

    def on_message_begin(self) -> None:
        if self._connection.complete:
            # Stops the parser: nothing of a second answer may get into this one.
            raise AnswerInvalid(self._connection.name, "sent an answer that nobody asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        connection = self._connection
        if connection._head is None:
            connection._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        connection = self._connection
        status = connection._parser.get_status_code()
        if connection.complete or status < 200:
            return
        head = connection._head = Head(status, connection._headers)
        connection._framed = status in (204, 304) or any(
            name in (b"content-length", b"transfer-encoding") for name, _ in head.headers
        )

    def on_message_complete(self) -> None:
        connection = self._connection
        if connection._head is None:  # 100 Continue, 103 Early Hints: the answer is to follow
            connection._headers = []
            return
        connection._keep = connection._parser.should_keep_alive()
        connection.complete = True


class ConnectionPool:
    """The kept connections of one replica; the latest used is taken first.

    Opens as many as are asked for: the caller's lease bounds them. Keeps at most `keep`.
    """

    def __init__(self, origin: Origin, dialer: Dialer, *, keep: int = 1024) -> None:
        self.origin = origin
        self._dialer = dialer
        self._keep = keep
        self._idle: list[Connection] = []
        self._closed = False

    async def take(self, connect_s: float, *, fresh: bool = False) -> Connection:
        """A connection nobody uses; a new one if `fresh` or if none is kept.

        Raises `ConnectFailed` when it cannot be made within `connect_s`.
        """
        while self._idle and not fresh:
            connection = self._idle.pop()
            connection.transport.on_readable = None
            if not connection.transport.closed:
                return connection
        with trio.move_on_after(connect_s):
            return Connection(await self._dialer.dial(self.origin), str(self.origin))
        raise ConnectFailed(str(self.origin), f"no connection within connect_s ({connect_s:g} s)")

    def give_back(self, connection: Connection) -> None:
        """Keep it if it may be used again, else close it. Never waits."""
        keep = not self._closed and connection.reusable and len(self._idle) < self._keep
        if not keep or not _is_quiet(connection):
            connection.close()
            return
        connection.transport.on_readable = lambda: self._stirred(connection)
        self._idle.append(connection)

    def _stirred(self, connection: Connection) -> None:
        """Something happened on a kept connection: a close, or bytes nobody asked for."""
        if not _is_quiet(connection):
            connection.close()
            self._idle.remove(connection)

    def close(self) -> None:
        """Close the kept ones now, and those in use when they are given back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    @property
    def idle(self) -> int:
        """How many are kept."""
        return len(self._idle)


def _is_quiet(connection: Connection) -> bool:
    try:
        return connection.transport.receive_nowait() is None
    except ConnectionLost:
        return False
