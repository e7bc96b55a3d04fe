"""One client connection over TLS: the handshake, the reading, every wait bounded, the end.

It does for our two protocols what Hypercorn's own `TCPServer` does for its, because that one writes
in a shield without a deadline, does not close after a failed handshake, lets one connection's
error end the server, and measures a client's silence also while the client rightly says nothing.
"""

from __future__ import annotations

import logging
import math
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.typing import TaskGroup

from server.edge.connection import Address
from server.edge.request import Refusal
from server.edge.tls_exchange import Terms, TlsExchange
from server.edge.tls_protocols import Http1, Http2

__all__ = ["TlsConnection"]

log = logging.getLogger("triolet.edge")

_RECEIVE_BYTES: Final = 65_536
_GOODBYE_S: Final = 1.0
_LINGER_BYTES: Final = 1_048_576
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_PEER_FAULTS: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class _Transport(trio.abc.Stream):
    """A TCP socket whose every write has a deadline: below TLS, so that TLS's own have it too."""

    def __init__(self, sock: trio.socket.SocketType, write_s: float) -> None:
        self.sock = sock
        self._stream = trio.SocketStream(sock)
        self._write_s = write_s
        self.linger = False
        """Whether to read what still comes: closing over unread bytes resets, and the client may
        never see the last answer."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with trio.move_on_after(self._write_s) as scope:
            await self._stream.send_all(data)
        if scope.cancelled_caught:
            self.cut()
            raise trio.BrokenResourceError(f"the client took nothing for {self._write_s:g} s")

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        try:
            if self.linger:
                await self._linger()
        except _PEER_FAULTS as exc:
            log.debug("a client left before the last word: %s", exc)
        finally:
            self.sock.close()
        await trio.lowlevel.checkpoint()

    async def _linger(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)
        left = _LINGER_BYTES
        while left > 0:
            data = await self.sock.recv(_RECEIVE_BYTES)
            if not data:
                return
            left -= len(data)

    def cut(self) -> None:
        """Close at once with a reset; whoever waits on the socket is told."""
        if self.sock.fileno() >= 0:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self.sock.close()


class _Tasks:
    """Hypercorn's `TaskGroup`, with our exchange between its protocols and the app."""

    def __init__(self, nursery: trio.Nursery, terms: Terms) -> None:
        self._nursery = nursery
        self._terms = terms

    async def spawn_app(self, app: Any, config: Any, scope: Any, send: Any) -> Any:
        """Run the app for the request in `scope`; returns what takes the messages for it."""
        exchange = TlsExchange(self._terms, scope, send)
        self._nursery.start_soon(exchange.run)
        return exchange.put

    def spawn(self, func: Callable[..., Awaitable[Any]], *args: Any) -> None:
        self._nursery.start_soon(func, *args)


class TlsConnection:
    """Serves one client. `serve` runs until the connection is closed."""

    def __init__(self, terms: Terms, sock: socket.socket, address: Any) -> None:
        self.client = _address(address)
        self._terms = terms
        self._transport = _Transport(trio.socket.from_stdlib_socket(sock), terms.limits.write_s)
        self._stream = trio.SSLStream(self._transport, terms.ssl, server_side=True)
        self._scope = trio.CancelScope()
        self._reading = trio.CancelScope()
        self._writing = trio.Lock()
        self._unsent = bytearray()
        self._broken = False
        self._idle = True
        self._in_head = False

    async def serve(self) -> None:
        """Serve until either side is done. Never raises but for cancellation."""
        try:
            with self._scope:
                await self._serve()
        except* _PEER_FAULTS as errors:
            log.debug("connection of %s broke: %s", self.client, errors.exceptions)
        except* Exception:
            log.exception("connection of %s failed: this is a bug, please report it", self.client)
        finally:
            self._transport.cut()

    def close_when_idle(self) -> None:
        """Take no further request: close now if none is being served, else after it."""
        if self._idle:
            self._stop_reading("server is shutting down")

    def abort(self) -> None:
        """End whatever is going on, at once; the socket with it, as writes are shielded."""
        self._scope.cancel("server is shutting down")
        self._transport.cut()

    async def _serve(self) -> None:
        with trio.move_on_after(self._terms.limits.head_s) as handshake:
            await self._stream.do_handshake()
        if handshake.cancelled_caught:
            log.debug("client %s did not finish its TLS handshake in time", self.client)
            return
        async with trio.open_nursery() as nursery:
            protocol = self._make_protocol(nursery)
            await protocol.initiate()
            await self._read(protocol)
            if self._in_head:
                limit = self._terms.limits.head_s
                await protocol.refuse(
                    Refusal(408, f"the head did not come within limits.head_s ({limit:g} s)")
                )
            await protocol.handle(Closed())
            await self._close(protocol)

    def _make_protocol(self, nursery: trio.Nursery) -> Http1 | Http2:
        tasks = cast(TaskGroup, _Tasks(nursery, self._terms))
        kind = Http2 if self._stream.selected_alpn_protocol() == "h2" else Http1
        server = _address(self._transport.sock.getsockname())
        return kind(self._terms, tasks, self.client, server, self._obey)

    async def _read(self, protocol: Http1 | Http2) -> None:
        """Give the protocol what the client sends, until either of them has had enough."""
        limits = self._terms.limits
        self._expect_within(limits.head_s)
        with self._reading:
            while data := await self._receive():
                await protocol.handle(RawData(data))
                if self._idle and not self._in_head and protocol.in_head:
                    self._in_head = True
                    self._expect_within(limits.head_s)
            self._in_head = False

    async def _receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(_RECEIVE_BYTES))
        except _PEER_FAULTS as exc:
            log.debug("client %s left: %r", self.client, exc)
            return b""

    def _stop_reading(self, reason: str) -> None:
        self._in_head = False
        self._reading.cancel(reason)

    def _expect_within(self, seconds: float) -> None:
        self._reading.deadline = trio.current_time() + seconds

    async def _obey(self, event: Event) -> None:
        """What a protocol asks of its connection."""
        if isinstance(event, RawData):
            await self._write(event.data)
        elif isinstance(event, Closed):
            self._stop_reading("the protocol is done")
        elif isinstance(event, Updated):
            self._became(idle=event.idle)

    def _became(self, *, idle: bool) -> None:
        self._idle, self._in_head = idle, False
        if not idle:
            self._expect_within(math.inf)
        elif self._terms.draining:
            self._stop_reading("server is shutting down")
        else:
            self._expect_within(self._terms.limits.keep_alive_s)

    async def _write(self, data: bytes) -> None:
        """Send bytes in the order of the calls.

        Shielded, as a part of HTTP/2's one stream of bytes would be lost to all its exchanges if
        one of them were cancelled here; the deadline is the transport's.
        """
        self._unsent += data
        with trio.CancelScope(shield=True):
            async with self._writing:
                data, self._unsent = bytes(self._unsent), bytearray()
                if not data or self._broken:
                    return
                try:
                    await self._stream.send_all(data)
                except _PEER_FAULTS as exc:
                    log.debug("client %s cannot be written to: %r", self.client, exc)
                    self._broken = True
                    self._stop_reading("the client cannot be written to")

    async def _close(self, protocol: Http1 | Http2) -> None:
        if protocol.unfinished:
            self._transport.cut()  # no polite end: the client shall see that something is missing
            return
        self._transport.linger = protocol.unread
        with trio.move_on_after(_GOODBYE_S, shield=True):
            await self._stream.aclose()


def _address(address: Any) -> Address:
    return (address[0], address[1]) if isinstance(address, tuple) else None
