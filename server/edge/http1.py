"""The HTTP/1.1 server for plaintext: any ASGI 3 app on raw Trio sockets and llhttp."""

from __future__ import annotations

import logging
import socket
import sys
from functools import partial
from typing import Any, Final

import trio

from balancer.wire.poller import Poller
from balancer.wire.transport import Transport
from server.edge.accept import accept
from server.edge.connection import Address, ClientConnection, EdgeLimits, Renderer
from server.edge.exchange import ASGIApp
from server.edge.lifespan import Lifespan
from server.edge.request import Refusal
from server.edge.response import simple_response
from server.observe.metrics import EdgeCounts

__all__ = ["Http1Server", "render_plainly"]

log = logging.getLogger("triolet.edge")

_TOLD_AT_ONCE: Final = 128

# What the kernel holds for a client that reads slowly. By itself it grows to megabytes, and says
# that there is room again only when a third of that is free: a slow client would look like one
# that has stopped. (Python knows the option's name from 3.12 on.)
_NOTSENT_LOWAT: Final[int | None] = getattr(
    socket, "TCP_NOTSENT_LOWAT", 25 if sys.platform == "linux" else None
)
_UNSENT_BYTES: Final = 131_072


def render_plainly(refusal: Refusal) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """A refusal as plain text."""
    return [(b"content-type", b"text/plain; charset=utf-8")], refusal.message.encode()


class Http1Server:
    """Serves one ASGI app on any number of listening sockets.

    `serve` accepts until `stop_accepting` and returns when the last connection is done.
    """

    def __init__(
        self,
        app: ASGIApp,
        poller: Poller,
        limits: EdgeLimits = EdgeLimits(),  # noqa: B008 - immutable
        *,
        render: Renderer = render_plainly,
        lifespan: bool = True,
        state: dict[str, Any] | None = None,
    ) -> None:
        """`lifespan` runs the app's; every exchange gets a copy of `state` and what that adds."""
        self._accepted = 0
        self._turned_away = 0
        self._refused: dict[int, int] = {}
        self._app = app
        self._poller = poller
        self._limits = limits
        self._render = render
        self._lifespan = Lifespan(app, state) if lifespan else None
        self._state = self._lifespan.state if self._lifespan else state or {}
        self._connections: set[ClientConnection] = set()
        self._being_told = 0
        self._accepting = trio.CancelScope()

    def counts(self) -> EdgeCounts:
        """Connections open now, and what was accepted and refused so far."""
        return EdgeCounts(
            len(self._connections), self._accepted, self._turned_away, dict(self._refused)
        )

    async def serve(
        self,
        listeners: list[socket.socket],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Start the app, accept on `listeners`, which it owns, and serve every connection to its
        end; then stop the app. Raises `LifespanFailed` if the app refuses to start.
        """
        async with trio.open_nursery() as around:
            if self._lifespan is not None:
                await self._lifespan.start(around)
            around.start_soon(self._close_idle)
            async with trio.open_nursery() as nursery:
                with self._accepting:
                    async with trio.open_nursery() as acceptors:
                        for listener in listeners:
                            acceptors.start_soon(accept, listener, partial(self._take, nursery))
                        task_status.started()
            if self._lifespan is not None:
                await self._lifespan.stop()
            around.cancel_scope.cancel("every connection is done")

    def stop_accepting(self) -> None:
        """Close the listeners, and connections as they become idle."""
        self._accepting.cancel("server is shutting down")
        for connection in tuple(self._connections):
            connection.close_when_idle()

    def abort(self) -> None:
        """End every connection at once."""
        for connection in tuple(self._connections):
            connection.abort()

    async def _close_idle(self) -> None:
        """Close connections that have been idle for too long, to within a tenth of the limit."""
        pause_s = min(1.0, min(self._limits.head_s, self._limits.keep_alive_s) / 10)
        while True:
            await trio.sleep(pause_s)
            now = trio.current_time()
            for connection in [one for one in self._connections if one.idle_until <= now]:
                connection.close_idle()

    def _take(self, nursery: trio.Nursery, sock: socket.socket, address: Any) -> None:
        sock.setblocking(False)
        if len(self._connections) >= self._limits.connections:
            self._turn_away(sock, nursery)
            return
        try:
            connection = self._admit(sock, address)
        except OSError as exc:
            log.warning("cannot serve a connection from %s: %s", address, exc)
            sock.close()
        else:
            nursery.start_soon(self._serve_connection, connection)

    def _admit(self, sock: socket.socket, address: Any) -> ClientConnection:
        """Counted from here on: many may be accepted before the first of them is served."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if _NOTSENT_LOWAT is not None:
            sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, _UNSENT_BYTES)
        connection = ClientConnection(
            Transport(sock, self._poller),
            self._app,
            self._limits,
            render=self._render_counted,
            client=_address(address),
            server=_address(sock.getsockname()),
            state=self._state,
        )
        self._accepted += 1
        self._connections.add(connection)
        return connection

    async def _serve_connection(self, connection: ClientConnection) -> None:
        try:
            if self._accepting.cancel_called:
                connection.close_when_idle()
            await connection.serve()
        finally:
            self._connections.discard(connection)

    def _render_counted(self, refusal: Refusal) -> tuple[list[tuple[bytes, bytes]], bytes]:
        self._refused[refusal.status] = self._refused.get(refusal.status, 0) + 1
        return self._render(refusal)

    def _turn_away(self, sock: socket.socket, nursery: trio.Nursery) -> None:
        """Answer 503 to one connection too many; beyond what can be told politely, just close."""
        self._turned_away += 1
        if self._being_told >= _TOLD_AT_ONCE:
            sock.close()
            return
        try:
            transport = Transport(sock, self._poller)
        except OSError as exc:
            log.debug("a client turned away could not be told: %s", exc)
            sock.close()
            return
        self._being_told += 1
        nursery.start_soon(self._say_full, transport)

    async def _say_full(self, transport: Transport) -> None:
        limit = self._limits.connections
        headers, body = self._render_counted(
            Refusal(503, f"the server is at its limit of {limit} connections (limits.connections)")
        )
        answer = simple_response(503, [*headers, (b"retry-after", b"1")], body)
        try:
            with trio.move_on_after(1.0):
                await transport.send_all(answer)
                transport.finish_sending()
                while await transport.receive():
                    pass
        except OSError as exc:
            log.debug("a client turned away did not wait for the answer: %s", exc)
        finally:
            self._being_told -= 1
            transport.close()


def _address(address: Any) -> Address:
    return (address[0], address[1]) if isinstance(address, tuple) else None
