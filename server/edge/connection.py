"""One client connection: requests in order, one exchange at a time, every wait bounded.

One Trio task serves it and runs the app. The connection has one cancel scope, whose deadline is
moved from phase to phase (head, body, write); when it passes, or when something in a request
is refused, the scope is cancelled and whatever ran for this client ends. That the client left is
noticed by the poller, also while nothing is being read or written.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

import trio

from balancer.errors import ConnectionLost
from balancer.wire.transport import Transport
from server.edge.exchange import ASGIApp, Exchange
from server.edge.request import HeadLimits, Incoming, Refusal, RequestParser
from server.edge.response import simple_response

__all__ = ["Address", "ClientConnection", "EdgeLimits", "Renderer"]

Address = tuple[str, int] | None
Renderer = Callable[[Refusal], tuple[list[tuple[bytes, bytes]], bytes]]
"""Headers and body of the answer to a request that never reaches an app."""

log = logging.getLogger("triolet.edge")

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_READS_IN_A_ROW: Final = 8
_LINGER_S: Final = 1.0
_LINGER_BYTES: Final = 1_048_576


class EdgeLimits(NamedTuple):
    """Bounds of the HTTP/1.1 server; see `docs/reference/config.md`, `limits`."""

    head: HeadLimits = HeadLimits()
    connections: int = 10_000
    head_s: float = 10.0
    body_s: float = 60.0
    keep_alive_s: float = 75.0
    write_s: float = 30.0


class ClientConnection:
    """Serves one client. `serve` runs until the connection is closed."""

    def __init__(
        self,
        transport: Transport,
        app: ASGIApp,
        limits: EdgeLimits,
        *,
        render: Renderer,
        client: Address,
        server: Address,
        state: dict[str, Any],
    ) -> None:
        self.transport = transport
        self.client = client
        self.server = server
        self.state = state
        self._app = app
        self._limits = limits
        self._render = render
        self._parser = RequestParser(limits.head)
        self._scope = trio.CancelScope()
        self._phase: Literal["idle", "head", "body", "app"] = "idle"
        self.idle_until = math.inf
        """When waiting for a request ends; the server looks at it now and then, because setting
        and clearing the scope's deadline for it took 4 µs of every request."""
        self._write_deadline = math.inf
        self._read_deadline = math.inf
        self._exchange: Exchange | None = None
        self._refusal: Refusal | None = None
        self.last = False
        """Whether the connection ends with the exchange that is going on."""
        self._body_left_s = 0.0
        self._body_reads = 0
        self._method = "GET"
        self._unread = False
        self._unsent: bytes | memoryview = b""
        transport.on_hang_up = self._hung_up

    @property
    def gone(self) -> bool:
        """Whether the client closed its side. One that only half-closed counts as gone too."""
        return self.transport.hung_up

    async def serve(self) -> None:
        """Serve requests until either side is done. Never raises but for cancellation."""
        try:
            with self._scope:
                await self._serve_all()
            await self._conclude()
        except ConnectionLost:
            log.debug("client %s left", self.client)
        except Exception:
            log.exception("connection of %s failed: this is a bug, please report it", self.client)
        finally:
            aborted = self._exchange is not None or self._write_deadline < math.inf
            self.transport.close(reset=aborted)
            self._parser.close()
            self._exchange = None

    def close_when_idle(self) -> None:
        """Take no further request: close now if none is being served or coming in, else after."""
        self.last = True
        parser = self._parser
        coming = parser.ready or parser.in_head or self.transport.maybe_readable
        if self._exchange is None and not coming:
            self._scope.cancel("server is shutting down")

    def close_idle(self) -> None:
        """`idle_until` has passed."""
        self._scope.cancel("idle for too long")

    def abort(self) -> None:
        """End whatever is going on, at once."""
        self._scope.cancel("server is shutting down")

    async def _serve_all(self) -> None:
        first = True
        while await self._request_is_here(first=first):
            first = False
            await self._serve_one(self._parser.ready.popleft())
            if self.last:
                return
            if self._parser.ready:
                # A client that sends without end must not keep the others from their turn.
                await trio.lowlevel.checkpoint()
        self._refusal = self._parser.refusal

    async def _request_is_here(self, *, first: bool) -> bool:
        """Wait for a request's head. False: there will be none."""
        parser = self._parser
        if parser.ready or parser.refusal is not None:
            return bool(parser.ready)
        self._phase = "idle"
        limits = self._limits
        self.idle_until = trio.current_time() + (limits.head_s if first else limits.keep_alive_s)
        while not parser.ready and parser.refusal is None:
            if parser.in_head and self._phase == "idle":
                self._phase = "head"
                self.idle_until = math.inf
                self._read_by(limits.head_s)
            data = await self.transport.receive()
            if not data:
                return False
            parser.feed(data)
        if self._phase == "head":
            self._read_by(math.inf)
        self.idle_until = math.inf
        self._phase = "app"
        return bool(parser.ready)

    async def _serve_one(self, incoming: Incoming) -> None:
        exchange = Exchange(self, incoming, incoming.keep_alive and not self.last)
        self._exchange = exchange
        self._method = incoming.method
        try:
            await self._app(exchange.scope(), exchange.receive, exchange.send)
        except Exception as exc:
            if not _is_lost_connection(exc):
                log.exception(
                    "%s %r failed", incoming.method, incoming.target.decode("ascii", "replace")
                )
            elif not exchange.gone:
                raise ConnectionLost("the client left") from exc
        finally:
            exchange.finished()
        if exchange.ended:
            if self._unsent:
                await self.write(b"")
            self._exchange = None
        elif not exchange.started and not exchange.gone:
            self._exchange = None
            self._refusal = Refusal(500, "the server failed to answer this request")
        self._unread = not incoming.complete
        if not exchange.ended or not exchange.keep_alive or self._unread:
            self.last = True

    def fate(self) -> tuple[int, str]:
        """Why the app was cancelled: the status the client is told (0: none) and an outcome."""
        refusal = self._refusal or self._too_slow()
        if refusal is not None:
            return refusal.status, "refused"
        if trio.current_time() >= self._write_deadline:
            return 0, "client_stalled"
        return 0, "aborted"

    async def read_body(self, incoming: Incoming) -> None:
        """Wait for more of the body. Returns with none of it when the client is gone."""
        if self._phase != "body":
            self._phase = "body"
            self._body_left_s = self._limits.body_s
            if incoming.expects_continue and not incoming.body_bytes and not self._answering:
                await self.write(_CONTINUE)
        # Only the waiting for the client counts, not what the app does in between.
        since = trio.current_time()
        self._read_by(self._body_left_s)
        while not incoming.pieces and not incoming.complete:
            if self._parser.refusal is not None:
                self._refusal = self._parser.refusal
                self._scope.cancel("the request was refused")
                await trio.lowlevel.checkpoint()
            data = await self._receive_body()
            if not data:
                self._hung_up()
                break
            self._parser.feed(data)
            self._body_reads += 1
            if self._body_reads % _READS_IN_A_ROW == 0:
                # A fast upload is always readable: others must get their turn.
                await trio.lowlevel.checkpoint()
        self._body_left_s -= trio.current_time() - since
        self._read_by(math.inf)
        if incoming.complete or self.gone:
            self._phase = "app"

    @property
    def _answering(self) -> bool:
        return self._exchange is not None and self._exchange.started

    async def _receive_body(self) -> bytes:
        try:
            return await self.transport.receive()
        except ConnectionLost:
            return b""  # to an app a reset is a client that left, as any other

    async def write(self, data: bytes | memoryview) -> None:
        """Send bytes; a client that takes none of them for `write_s` loses its connection.

        If this is cancelled, what was not sent goes before whatever is written next: no byte of a
        response is left out because somebody lost patience with a slow client.
        """
        if self._unsent:
            data = b"".join((self._unsent, data))
        elif not data:
            return
        sent = self.transport.send_nowait(data)
        if sent == len(data) and not self._unsent:
            return
        while sent < len(data):
            data = self._unsent = memoryview(data)[sent:]
            self._write_by(self._limits.write_s)
            await self.transport.wait_writable()
            sent = self.transport.send_nowait(data)
        self._unsent = b""
        self._write_by(math.inf)

    def write_nowait(self, data: bytes) -> bool:
        """Send what the socket takes; False if there is a rest, for `write(b"")` to send."""
        sent = self.transport.send_nowait(data)
        if sent == len(data):
            return True
        self._unsent = memoryview(data)[sent:]
        return False

    def _read_by(self, seconds: float) -> None:
        self._read_deadline = trio.current_time() + seconds
        self._scope.deadline = min(self._read_deadline, self._write_deadline)

    def _write_by(self, seconds: float) -> None:
        self._write_deadline = trio.current_time() + seconds
        self._scope.deadline = min(self._read_deadline, self._write_deadline)

    def _hung_up(self) -> None:
        if self._exchange is not None:
            self._exchange.client_gone()

    async def _conclude(self) -> None:
        """After the scope: tell the client what was wrong, if it can still be told."""
        if self._scope.cancelled_caught and self._refusal is None:
            self._refusal = self._too_slow()
        if self._exchange is not None and self._exchange.started:
            return
        answer = self._answer_to_refusal()
        if answer or self._unread:
            with trio.move_on_after(_LINGER_S):
                await self.transport.send_all(answer)
                await self._linger()

    def _answer_to_refusal(self) -> bytes:
        if self._refusal is None:
            return b""
        status, message = self._refusal
        if self._exchange is None and status != 500:
            # No app has seen this request, so no access log knows of it.
            log.info("request of %s refused with %d: %s", self.client, status, message)
        self._exchange = None
        headers, body = self._render(self._refusal)
        return simple_response(status, headers, body, method=self._method)

    def _too_slow(self) -> Refusal | None:
        limits = self._limits
        if trio.current_time() < self._read_deadline:
            return None
        if self._phase == "head":
            return Refusal(408, f"the head did not come within limits.head_s ({limits.head_s:g} s)")
        if self._phase == "body":
            return Refusal(408, f"the body did not come within limits.body_s ({limits.body_s:g} s)")
        return None

    async def _linger(self) -> None:
        """Read what still comes: closing over unread bytes resets, and the answer may be lost."""
        self.transport.finish_sending()
        left = _LINGER_BYTES
        while left > 0:
            data = await self.transport.receive()
            if not data:
                return
            left -= len(data)


def _is_lost_connection(exc: BaseException) -> bool:
    """Whether an app failed of nothing but that its client left."""
    if isinstance(exc, BaseExceptionGroup):
        return all(_is_lost_connection(inner) for inner in exc.exceptions)
    # Starlette raises an exception of its own in that case, from within the handling of ours.
    return isinstance(exc, ConnectionLost) or type(exc).__name__ == "ClientDisconnect"
