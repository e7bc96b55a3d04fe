"""One request and its response on an HTTP/1.1 connection, as an ASGI app sees them.

Besides ASGI's own `receive` and `send`, the object stands in the scope at
`scope["extensions"]["triolet"]` and lets an app that knows it be told, by a plain call, that the
client is gone (`on_gone`), and write body bytes without a task switch (`write_nowait`, `drain`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import httptools
import trio

from server.edge.request import Incoming
from server.edge.response import FramingError, ResponseFramer

if TYPE_CHECKING:
    from server.edge.connection import ClientConnection

__all__ = ["EXTENSION", "ASGIApp", "Exchange", "Message", "Receive", "Scope", "Send"]

EXTENSION: Final = "triolet"

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_ASGI: Final = {"version": "3.0", "spec_version": "2.4"}


class Exchange:
    """ASGI's three arguments for one request. `sink` of the relay pump besides."""

    __slots__ = (
        "_body_given",
        "_connection",
        "_framer",
        "_head",
        "_incoming",
        "_over",
        "gone",
        "on_gone",
        "started",
    )

    def __init__(self, connection: ClientConnection, incoming: Incoming, keep_alive: bool) -> None:
        self._connection = connection
        self._incoming = incoming
        self._framer = ResponseFramer(
            method=incoming.method, version=incoming.version, keep_alive=keep_alive
        )
        self._head: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self._body_given = False
        self._over: trio.Event | None = None
        self.gone = connection.gone
        self.on_gone: Callable[[], None] | None = None
        """Called once, synchronously, when the client leaves before the end of the response."""
        self.started = False

    @property
    def ended(self) -> bool:
        """Whether the whole response was handed to the socket."""
        return self._framer.ended

    @property
    def keep_alive(self) -> bool:
        return self._framer.keep_alive

    def scope(self) -> dict[str, Any]:
        """The connection scope of ASGI (HTTP, spec 2.4)."""
        incoming, connection = self._incoming, self._connection
        path, _, query = _origin_form(incoming.target).partition(b"?")
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": incoming.version,
            "method": incoming.method,
            "scheme": "http",
            "path": unquote(path.decode("ascii")) if b"%" in path else path.decode("ascii"),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": incoming.headers,
            "client": connection.client,
            "server": connection.server,
            "state": connection.state.copy(),
            "extensions": {EXTENSION: self},
        }

    async def receive(self) -> Message:
        """ASGI's receive: the body as it comes, then `http.disconnect` once it is over."""
        incoming = self._incoming
        if not self._body_given:
            if not incoming.pieces and not incoming.complete:
                await self._connection.read_body(incoming)
            if incoming.pieces or incoming.complete:
                self._body_given = incoming.complete
                return {
                    "type": "http.request",
                    "body": incoming.take_body(),
                    "more_body": not incoming.complete,
                }
        await self._wait_over()
        return {"type": "http.disconnect"}

    async def _wait_over(self) -> None:
        if self.gone or self.ended:
            await trio.lowlevel.checkpoint()
            return
        if self._over is None:
            self._over = trio.Event()
        await self._over.wait()

    def client_gone(self) -> None:
        """The connection noticed that the client left."""
        if self.gone or self.ended:
            return
        self.gone = True
        self.finished()
        if self.on_gone is not None:
            self.on_gone()

    def fate(self) -> tuple[int, str]:
        """For an app that is being cancelled: the status that the client is told instead (0 if
        none), and the outcome for the log: `refused`, `client_stalled` or `aborted`.
        """
        return self._connection.fate()

    def finished(self) -> None:
        """Wake whoever waits in `receive`: the response is over, one way or the other."""
        if self._over is not None:
            self._over.set()

    async def send(self, message: Message) -> None:
        """ASGI's send. Raises `ConnectionLost` (an OSError) when the client is gone."""
        kind = message["type"]
        if kind == "http.response.body":
            await self._send_body(message.get("body", b""), more=message.get("more_body", False))
        elif kind == "http.response.start":
            if self._head is not None:
                raise FramingError("the app started its response twice")
            # Held until the first body bytes are here: one write for both.
            self._head = (message["status"], list(message.get("headers", ())))
        else:
            raise FramingError(f"the app sent {kind!r}, which this server did not offer")

    async def _send_body(self, data: bytes, *, more: bool) -> None:
        if self.started:
            wire = self._framer.body(data, more=more)
        elif self._head is not None:
            if self._connection.last or not (more or self._incoming.complete):
                # Nothing is served behind this answer (a body that nobody read is in the way).
                self._framer.keep_alive = False
            wire = self._framer.start(*self._head, data, more=more)
            self.started = True
        else:
            raise FramingError("the app sent a body before its response started")
        if wire:
            await self._connection.write(wire)
        if self._framer.ended:
            self.finished()

    def write_nowait(self, data: bytes) -> bool:
        """Send body bytes in mid-response. False: call `drain` before more.

        Raises `ConnectionLost` when the client is gone.
        """
        return self._connection.write_nowait(self._framer.body(data, more=True))

    async def drain(self) -> None:
        """Wait until the client took what `write_nowait` could not send."""
        await self._connection.write(b"")
        await trio.lowlevel.checkpoint()


def _origin_form(target: bytes) -> bytes:
    """The path and query of a request target in origin, absolute (proxy) or asterisk form."""
    if target.startswith(b"/") or target == b"*":
        return target
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        return b"/"
    path = url.path or b"/"
    return path + b"?" + url.query if url.query else path
