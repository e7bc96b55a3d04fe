"""The server for https://: any ASGI 3 app over TLS, HTTP/1.1 and HTTP/2, spoken by Hypercorn.

Only Hypercorn's protocols are used. Its own `serve` ends with the first connection that fails in an
unforeseen way, waits without bound for clients that do not read, and cuts streams by default.
"""

from __future__ import annotations

import logging
import socket
import ssl
import sys
from functools import partial
from typing import Any, Final

import trio
from hypercorn.config import Config
from hypercorn.trio.worker_context import EventWrapper, WorkerContext

from server.edge.accept import accept
from server.edge.connection import EdgeLimits, Renderer
from server.edge.exchange import ASGIApp
from server.edge.http1 import render_plainly
from server.edge.request import Refusal
from server.edge.tls_connection import TlsConnection
from server.edge.tls_exchange import Terms
from server.observe.metrics import EdgeCounts

__all__ = ["TlsServer"]

log = logging.getLogger("triolet.edge")

# Forward secrecy and no cipher that HTTP/2 forbids under TLS 1.2; TLS 1.3 has no other kind.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"


class TlsServer:
    """Serves one ASGI app on any number of listening sockets.

    `serve` accepts until `stop_accepting` and returns when the last connection is done.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: EdgeLimits = EdgeLimits(),  # noqa: B008 - immutable
        *,
        cert: str,
        key: str,
        render: Renderer = render_plainly,
    ) -> None:
        """`cert` and `key` are PEM files. Raises OSError, naming them, if they are of no use."""
        self._limits = limits
        self._render = render
        self._stopping = _Switch()
        self._terms = Terms(
            app,
            limits,
            self._render_counted,
            _hypercorn_config(limits),
            _context(self._stopping),
            _ssl_context(cert, key),
        )
        self._accepted = 0
        self._turned_away = 0
        self._refused: dict[int, int] = {}
        self._connections: set[TlsConnection] = set()
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
        """Accept on `listeners`, which it owns, and serve every connection to its end."""
        async with trio.open_nursery() as nursery:
            with self._accepting:
                async with trio.open_nursery() as acceptors:
                    for listener in listeners:
                        acceptors.start_soon(accept, listener, partial(self._take, nursery))
                    task_status.started()

    def stop_accepting(self) -> None:
        """Close the listeners, and connections as they become idle."""
        self._stopping.turn_on()
        self._accepting.cancel("server is shutting down")
        for connection in tuple(self._connections):
            connection.close_when_idle()

    def abort(self) -> None:
        """End every connection at once."""
        for connection in tuple(self._connections):
            connection.abort()

    def _take(self, nursery: trio.Nursery, sock: socket.socket, address: Any) -> None:
        if len(self._connections) >= self._limits.connections:
            # An answer would cost a handshake: just what a full server should not spend.
            self._turned_away += 1
            sock.close()
            return
        self._accepted += 1
        connection = TlsConnection(self._terms, sock, address)
        self._connections.add(connection)
        nursery.start_soon(self._serve_connection, connection)

    async def _serve_connection(self, connection: TlsConnection) -> None:
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)

    def _render_counted(self, refusal: Refusal) -> tuple[list[tuple[bytes, bytes]], bytes]:
        self._refused[refusal.status] = self._refused.get(refusal.status, 0) + 1
        return self._render(refusal)


class _Switch(EventWrapper):
    """Hypercorn's event, that a plain call can set."""

    def turn_on(self) -> None:
        self._event.set()


def _context(stopping: Any) -> WorkerContext:
    context = WorkerContext(None)
    context.terminated = stopping
    return context


def _hypercorn_config(limits: EdgeLimits) -> Config:
    """Everything in it that reaches the protocols; the times are ours, see `TlsConnection`."""
    config = Config()
    config.accesslog = None
    config.errorlog = None
    config.include_date_header = False
    config.include_server_header = False
    config.h11_max_incomplete_size = limits.head.header_bytes
    config.h2_max_header_list_size = limits.head.header_bytes
    config.keep_alive_max_requests = sys.maxsize
    return config


def _ssl_context(cert: str, key: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        # Without a password an encrypted key would be asked for on the terminal.
        context.load_cert_chain(cert, key, password="")
    except OSError as exc:
        why = exc.reason if isinstance(exc, ssl.SSLError) else exc.strerror
        raise OSError(
            f"cannot serve TLS with the certificate {cert} and the key {key}: {why} "
            "(both must be PEM files, the key not encrypted and of that certificate)"
        ) from exc
    return context
