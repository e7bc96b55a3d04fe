"""One request and its response on a TLS connection: our ASGI, on top of Hypercorn's.

Hypercorn's own `send` never says that the client is gone, its `receive` waits without bound, and
its queue between the two can block a response for good. So the app gets these instead: the same
promises as on a plaintext connection, only without the extension that the relay uses there.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from ssl import SSLContext
from typing import Any, Final

import trio
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext

from balancer.errors import ConnectionLost
from server.edge.connection import EdgeLimits, Renderer
from server.edge.exchange import ASGIApp, Message, Scope
from server.edge.request import Refusal
from server.edge.response import FramingError

__all__ = ["Terms", "TlsExchange", "date_header"]

log = logging.getLogger("triolet.edge")

_ASGI: Final = {"version": "3.0", "spec_version": "2.4"}
_SLICE_BYTES: Final = 16_384
"""The most that is handed to Hypercorn at once: a client has `write_s` to take so much."""
_QUEUE_BYTES: Final = 262_144
"""How much of a body waits for the app before the client is left to wait."""
_NOT_OURS: Final = (b"transfer-encoding", b"keep-alive")


@dataclass(frozen=True, slots=True)
class Terms:
    """What all connections of a server have in common."""

    app: ASGIApp
    limits: EdgeLimits
    render: Renderer
    config: Config
    context: WorkerContext
    ssl: SSLContext

    @property
    def draining(self) -> bool:
        """Whether no further request is to be taken."""
        return self.context.terminated.is_set()


def date_header() -> tuple[bytes, bytes]:
    """Every response has one; Hypercorn would add its own beside the app's."""
    return (b"date", formatdate(usegmt=True).encode())


class TlsExchange:
    """Runs the app for one request. `put` takes what Hypercorn tells, `send` is Hypercorn's."""

    def __init__(
        self, terms: Terms, scope: Scope, send: Callable[[Message | None], Awaitable[None]]
    ) -> None:
        self._terms = terms
        self._scope = scope
        self._hypercorn = send
        self._pieces: list[bytes] = []
        self._queued = 0
        self._complete = False
        self._body_given = False
        self._body_by = trio.current_time() + terms.limits.body_s
        self._changed = trio.Event()
        self._patience = trio.CancelScope()
        self._refusal = Refusal(500, "the server failed to answer this request")
        self._head: Message | None = None
        self._started = False
        self._ended = False
        self._gone = False
        self._left = False
        scope["asgi"] = _ASGI
        scope["extensions"] = {}

    async def run(self) -> None:
        """Run the app and settle what it leaves unsettled. Never raises but for cancellation."""
        try:
            with self._patience:
                await self._terms.app(self._scope, self.receive, self.send)
        except* ConnectionLost:
            log.debug("client %s left", self._scope["client"])
        except* Exception:
            log.exception("%s %s failed", self._scope["method"], self._scope["path"])
        self._left = True
        self._notify()
        await self._conclude()

    async def _conclude(self) -> None:
        try:
            if not self._started and not self._gone:
                await self._answer(self._refusal)
            # Tells Hypercorn that nothing more comes; if something is missing, it breaks off.
            await self._pass_on(None)
        except ConnectionLost:
            log.debug("client %s left before the end", self._scope["client"])

    async def _answer(self, refusal: Refusal) -> None:
        headers, body = self._terms.render(refusal)
        headers = [*headers, (b"connection", b"close")]
        self._head = {"status": refusal.status, "headers": headers}
        await self._send_body(body, more=False)

    async def put(self, message: Message) -> None:
        """Take a message for `receive`. Waits while the app is behind with the body."""
        if message["type"] == "http.disconnect":
            # Hypercorn says this after a complete response too, when nobody has left.
            self._gone = self._gone or not self._ended
            self._notify()
            return
        while self._queued >= _QUEUE_BYTES and not self._over:
            await self._changed.wait()
        if message["body"] and not self._over:
            self._pieces.append(message["body"])
            self._queued += len(message["body"])
        self._complete = self._complete or not message["more_body"]
        self._notify()

    @property
    def _over(self) -> bool:
        return self._gone or self._ended or self._left

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def receive(self) -> Message:
        """ASGI's receive: the body as it comes, then `http.disconnect` once it is over."""
        if not self._body_given:
            await self._wait_for_body()
            if self._pieces or self._complete:
                return self._take_body()
        while not self._gone and not self._ended:
            await self._changed.wait()
        await trio.lowlevel.checkpoint()
        return {"type": "http.disconnect"}

    async def _wait_for_body(self) -> None:
        with trio.move_on_at(self._body_by) as scope:
            while not self._pieces and not self._complete and not self._gone:
                await self._changed.wait()
        if scope.cancelled_caught:
            limit = self._terms.limits.body_s
            self._refusal = Refusal(
                408, f"the body did not come within limits.body_s ({limit:g} s)"
            )
            self._patience.cancel("the body did not come in time")
            await trio.lowlevel.checkpoint()

    def _take_body(self) -> Message:
        body = b"".join(self._pieces)
        self._pieces.clear()
        self._queued = 0
        self._body_given = self._complete
        self._notify()
        return {"type": "http.request", "body": body, "more_body": not self._complete}

    async def send(self, message: Message) -> None:
        """ASGI's send. Raises `ConnectionLost` (an OSError) when the client is gone."""
        kind = message["type"]
        if kind == "http.response.body":
            await self._send_body(message.get("body", b""), more=message.get("more_body", False))
        elif kind == "http.response.start":
            if self._head is not None:
                raise FramingError("the app started its response twice")
            # Held until the first body bytes are here: only then is its length known, or not.
            self._head = message
        else:
            raise FramingError(f"the app sent {kind!r}, which this server did not offer")

    async def _send_body(self, data: bytes, *, more: bool) -> None:
        if self._ended:
            raise FramingError("the app sent a body after the end of its response")
        if self._head is None:
            raise FramingError("the app sent a body before its response started")
        if not self._started:
            self._started = True
            await self._pass_on(self._start(self._head, len(data), more=more))
        left = memoryview(data)
        while len(left) > _SLICE_BYTES:
            await self._pass_on(_body(left[:_SLICE_BYTES], more=True))
            left = left[_SLICE_BYTES:]
        # Set before: what Hypercorn tells while it ends the response is not the client leaving.
        self._ended = not more and not self._gone
        await self._pass_on(_body(left, more=more))
        self._notify()

    def _start(self, head: Message, length: int, *, more: bool) -> Message:
        """The response's start with the headers that a server is to add."""
        status, given = head["status"], head.get("headers", ())
        headers = [(name.lower(), value) for name, value in given]
        names = {name for name, _ in headers}
        headers = [header for header in headers if header[0] not in _NOT_OURS]
        if b"date" not in names:
            headers.append(date_header())
        if not more and b"content-length" not in names and status not in (204, 304):
            headers.append((b"content-length", b"%d" % length))
        if self._terms.draining and b"connection" not in names:
            headers.append((b"connection", b"close"))  # HTTP/2 has no such header; h2 drops it
        return {"type": "http.response.start", "status": status, "headers": headers}

    async def _pass_on(self, message: Message | None) -> None:
        # What follows may not once wait where it can be cancelled.
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._gone:
            with trio.move_on_after(self._terms.limits.write_s) as scope:
                await self._hypercorn(message)
            if scope.cancelled_caught:
                self._gone = True
                self._notify()
                # Hypercorn did not end this response: have it break off.
                await self._hypercorn(None)
        if self._gone:
            raise ConnectionLost("the client is gone")


def _body(data: memoryview, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}
