"""HTTP/1.1 and HTTP/2 as Hypercorn speaks them, with what a server on the open network adds.

What is overridden here, and why:

- an upgrade (to WebSocket, to HTTP/2 past TLS's own negotiation) is declined;
- a head that is too heavy, or whose framing two parsers could read in two ways, is refused;
- HTTP/2 data for a stream that was answered already (KeyError in Hypercorn 0.18) is let go;
- an HTTP/2 stream that ends early, by the app's failure or the client's reset, is really ended:
  Hypercorn sends nothing, leaves its buffer behind and the app waiting on it;
- an HTTP/2 app waits while its client's window is shut: Hypercorn lets it fill the memory;
- HTTP/2 priorities are ignored, as RFC 9113 (5.3.2) allows: a client could fill the tree with them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, cast

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import h11
import trio
from hypercorn.events import Closed, Event, Updated
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import StreamClosed
from hypercorn.protocol.h2 import BUFFER_HIGH_WATER, BufferCompleteError, H2Protocol, StreamBuffer
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.typing import AppWrapper, ConnectionState, TaskGroup
from priority.priority import MissingStreamError

from server.edge.connection import Address
from server.edge.request import Refusal
from server.edge.tls_exchange import Terms, date_header

__all__ = ["Http1", "Http2"]

ToConnection = Callable[[Event], Awaitable[None]]

_H1_REFUSALS: Final = {
    400: "malformed HTTP/1.1 request",
    431: "request headers over the limit (limits.header_bytes)",
}

_LATE_BYTES: Final = 1_048_576


class Http1(H11Protocol):
    """HTTP/1.1 on one connection."""

    def __init__(
        self, terms: Terms, tasks: TaskGroup, client: Address, server: Address, send: ToConnection
    ) -> None:
        app = cast(AppWrapper, terms.app)  # never called: `tasks` runs the app
        state = ConnectionState({})
        super().__init__(app, terms.config, terms.context, tasks, state, True, client, server, send)
        self._terms = terms

    @property
    def machine(self) -> h11.Connection:
        """The state machine; Hypercorn has another in its place only after an upgrade."""
        return cast(h11.Connection, self.connection)

    @property
    def in_head(self) -> bool:
        """Whether the beginning of a head is here and its end is not."""
        return self.machine.their_state is h11.IDLE and bool(self.machine.trailing_data[0])

    @property
    def unfinished(self) -> bool:
        """Whether a response began and did not end."""
        return self.machine.our_state is h11.SEND_BODY

    @property
    def unread(self) -> bool:
        """Whether the client may still be sending what nobody reads."""
        return self.machine.their_state in (h11.SEND_BODY, h11.ERROR)

    async def refuse(self, refusal: Refusal, *, bodiless: bool = False) -> None:
        """Answer in the app's place and have the connection closed."""
        headers, body = self._terms.render(refusal)
        headers = [
            *headers,
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            date_header(),
        ]
        await self._send_h11_event(h11.Response(status_code=refusal.status, headers=headers))
        if not bodiless:
            await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())
        await self.send(Closed())

    async def _send_error_response(self, status_code: int) -> None:
        message = _H1_REFUSALS.get(status_code, _H1_REFUSALS[400])
        await self.refuse(Refusal(status_code, message))

    async def _check_protocol(self, event: h11.Request) -> None:
        """Decline what Hypercorn would accept here: h2c, and HTTP/2 with prior knowledge."""

    async def _create_stream(self, request: h11.Request) -> None:
        headers = list(request.headers)
        refusal = self._refusal(request.method, headers)
        if refusal is not None:
            await self.refuse(refusal, bodiless=request.method == b"HEAD")
            return
        kept = [(name, value) for name, value in headers if name != b"upgrade"]
        await super()._create_stream(
            h11.Request(
                method=request.method,
                target=request.target,
                headers=kept,
                http_version=request.http_version,
            )
        )

    def _refusal(self, method: bytes, headers: list[tuple[bytes, bytes]]) -> Refusal | None:
        limits = self._terms.limits.head
        weight = sum(len(name) + len(value) + 4 for name, value in headers)
        if weight > limits.header_bytes or len(headers) > limits.header_count:
            return Refusal(
                431,
                f"request headers over the limit of {limits.header_bytes} bytes in "
                f"{limits.header_count} fields (limits.header_bytes, limits.header_count)",
            )
        framing = {name for name, _ in headers} & {b"content-length", b"transfer-encoding"}
        if len(framing) == 2:
            return Refusal(400, "both Content-Length and Transfer-Encoding: which is meant?")
        if method == b"CONNECT":
            return Refusal(405, "CONNECT is not served here: this is not a forward proxy")
        return None


class _Buffer(StreamBuffer):
    """What an app sent on one stream and the client has not opened its window for.

    Hypercorn's own lets the app go on each time that little is taken, even if it is nothing.
    """

    async def push(self, data: bytes) -> None:
        if self._complete:
            raise BufferCompleteError
        self.buffer.extend(data)
        await self._is_empty.clear()
        if len(self.buffer) >= BUFFER_HIGH_WATER:
            await self._paused.clear()
            await self._paused.wait()

    async def pop(self, max_length: int) -> bytes:
        data = bytes(self.buffer[:max_length])
        del self.buffer[:max_length]
        if len(self.buffer) < BUFFER_HIGH_WATER:
            await self._paused.set()
        if not self.buffer:
            await self._is_empty.set()
        return data


class Http2(H2Protocol):
    """HTTP/2 on one connection."""

    def __init__(
        self, terms: Terms, tasks: TaskGroup, client: Address, server: Address, send: ToConnection
    ) -> None:
        app = cast(AppWrapper, terms.app)  # never called: `tasks` runs the app
        state = ConnectionState({})
        super().__init__(app, terms.config, terms.context, tasks, state, True, client, server, send)
        self._terms = terms
        self._progress = trio.Event()
        self._late: dict[int, int] = {}
        self._limit_heads()

    def _limit_heads(self) -> None:
        """Hypercorn announces its limit but does not keep it, and announces WebSockets."""
        codes, config = h2.settings.SettingCodes, self._terms.config
        self.connection.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                codes.MAX_CONCURRENT_STREAMS: config.h2_max_concurrent_streams,
                codes.MAX_HEADER_LIST_SIZE: config.h2_max_header_list_size,
            },
        )
        self.connection.decoder.max_header_list_size = config.h2_max_header_list_size

    in_head = False
    unfinished = False
    unread = False

    async def refuse(self, refusal: Refusal) -> None:
        """Only HTTP/1.1 has an answer to a head that does not come."""
        await self.send(Closed())

    async def handle(self, event: Event) -> None:
        await super().handle(event)
        if isinstance(event, Closed):
            for stream_id in list(self.stream_buffers):
                await self._drop(stream_id)
            await self._say_goodbye()

    async def _say_goodbye(self) -> None:
        with suppress(h2.exceptions.ProtocolError):  # said before, by either side
            self.connection.close_connection()
        await self._flush()

    async def _drop(self, stream_id: int) -> None:
        """Forget what was still to be sent on a stream, and free the app that waits for it."""
        buffer = self.stream_buffers.pop(stream_id, None)
        if buffer is not None:
            await buffer.close()
        with suppress(MissingStreamError):
            self.priority.remove_stream(stream_id)
        self._notify()

    def _notify(self) -> None:
        self._progress.set()
        self._progress = trio.Event()

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, StreamClosed):
            await self._end(event.stream_id)
        await super().stream_send(event)

    async def _end(self, stream_id: int) -> None:
        """See a stream off: wait until its end is sent, or reset it if it has none."""
        buffer = self.stream_buffers.get(stream_id)
        if buffer is not None and not buffer.complete:
            await self._drop(stream_id)
            self._reset(stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR)
            await self._flush()
        # Hypercorn counts the stream as done when its last data is taken from the buffer; closing
        # the connection between that and the sending of END_STREAM would cut the response.
        while stream_id in self.stream_buffers:
            await self._progress.wait()

    def _reset(self, stream_id: int, code: h2.errors.ErrorCodes) -> None:
        with suppress(h2.exceptions.ProtocolError):  # the stream or the connection is closed
            self.connection.reset_stream(stream_id, code)

    async def _send_data(self, stream_id: int) -> None:
        try:
            await super()._send_data(stream_id)
        except (KeyError, MissingStreamError):
            # Dropped while its data was being sent; its place in the tree must go with it.
            await self._drop(stream_id)
        self._notify()

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        for event in events:
            if isinstance(event, h2.events.DataReceived) and event.stream_id not in self.streams:
                self._let_go(event)
            elif isinstance(event, h2.events.RequestReceived) and self._terms.draining:
                self._reset(event.stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
            else:
                await super()._handle_events([event])
            if isinstance(event, h2.events.StreamReset):
                await self._drop(event.stream_id)
            if isinstance(event, h2.events.StreamReset | h2.events.StreamEnded):
                self._late.pop(event.stream_id, None)
            if isinstance(event, h2.events.StreamReset | h2.events.RequestReceived):
                await self.send(Updated(idle=self.idle))
        await self._flush()

    def _let_go(self, event: h2.events.DataReceived) -> None:
        """Data came for a request that has its answer: drop it, and in the end stop the client.

        Not at once: some clients take a reset, even one without error, for the loss of the answer.
        """
        stream_id, length = event.stream_id, event.flow_controlled_length
        self.connection.acknowledge_received_data(length, stream_id)
        self._late[stream_id] = self._late.get(stream_id, 0) + length
        if self._late[stream_id] > _LATE_BYTES and stream_id not in self.stream_buffers:
            self._reset(stream_id, h2.errors.ErrorCodes.NO_ERROR)
            del self._late[stream_id]

    async def _priority_updated(self, event: h2.events.PriorityUpdated) -> None:
        """Ignored."""

    async def _create_stream(self, request: h2.events.RequestReceived) -> None:
        fields = dict(request.headers)
        limits = self._terms.limits.head
        if fields[b":method"].upper() == b"CONNECT":
            self._answer(request, Refusal(405, "CONNECT is not served here"))
        elif not fields[b":path"].isascii():
            self._answer(request, Refusal(400, "the path is not ASCII"))
        elif len(request.headers) > limits.header_count:
            limit = f"the limit of {limits.header_count} (limits.header_count)"
            self._answer(request, Refusal(431, f"more request headers than {limit}"))
        else:
            await super()._create_stream(request)
            self.stream_buffers[request.stream_id] = _Buffer(self.context.event_class)

    def _answer(self, request: h2.events.RequestReceived, refusal: Refusal) -> None:
        """Answer in the app's place; a client with a shut window gets the status alone."""
        stream_id, connection = request.stream_id, self.connection
        headers, body = self._terms.render(refusal)
        whole = [(b":status", b"%d" % refusal.status), *headers, date_header()]
        connection.send_headers(stream_id, whole)
        fits = len(body) <= connection.local_flow_control_window(stream_id)
        connection.send_data(stream_id, body if fits else b"", end_stream=True)
