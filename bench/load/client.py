"""One measured request: sent, read, and written down. Never repeated when it fails."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple

import msgspec
import trio

from balancer.errors import AnswerInvalid, AnswerLost, ConnectFailed
from balancer.wire.connect import Dialer, Origin
from balancer.wire.http1 import Connection, ConnectionPool, Head
from bench.load.chunks import BadAnswer, Count, StreamNotes, error_text, read_whole
from bench.load.conversation import Message
from bench.load.plan import Plan
from bench.load.record import Record
from bench.load.stream import StreamReader
from bench.workload.text import count_tokens

__all__ = ["Ask", "LoadClient"]

_ERROR_BYTES: Final = 65_536
_ERROR_S: Final = 1.0
"""An error's body is waited for so long: the status alone says that the request failed."""
_ANSWER_BYTES: Final = 67_108_864
_FOUND_CLOSED_S: Final = 0.05
"""A connection that was closed before it was used says so within a round trip."""
_QUEUE: Final = re.compile(rb"(?:^|[,\s])queue\s*;[^,]*?dur=(\d{1,9}(?:\.\d+)?)(?!\d)")
_REPLICA_HEADERS: Final = (
    b"x-triolet-replica",
    b"x-gateway-destination-endpoint-served",  # the Gateway API's inference extension, llm-d
    b"x-litellm-model-api-base",
)


class Ask(NamedTuple):
    """What one request says, apart from what all say."""

    prompt: Sequence[Message] | str
    max_tokens: int
    session_id: str
    target: int
    cancel_after_s: float | None = None
    """Give it up so long after its sending; None: never."""


class _Target(NamedTuple):
    connections: ConnectionPool
    head: bytes
    """The request's head up to what differs from request to request."""


class _Request(NamedTuple):
    connections: ConnectionPool
    head: bytes
    body: bytes
    usage: bool
    """Whether it asks for usage in the stream."""
    limit_s: float


class _FoundClosed(Exception):
    """A kept connection had been closed by the target before the request came."""


class _UsageRefused(Exception):
    """The target does not know `stream_options`."""


class LoadClient:
    """Sends requests to the plan's targets and fills in their records.

    `now` gives the seconds since the run's start, `count` the tokens of a text.
    """

    def __init__(
        self,
        plan: Plan,
        dialer: Dialer,
        now: Callable[[], float],
        count: Count = count_tokens,
    ) -> None:
        self._plan = plan
        self._count = count
        self._now = now
        self._targets = [self._target(Origin.parse(url), dialer) for url in plan.urls]
        self._session_header = (plan.session_header or "").lower().encode()
        given = (plan.replica_header,) if plan.replica_header else ()
        self._replica_headers = (*(name.lower().encode() for name in given), *_REPLICA_HEADERS)
        self._asks_usage = plan.streaming
        self.replaced = 0
        """Kept connections that the target had closed when a request was sent on them."""
        self.notes: list[str] = []
        """What was found out about the target that the report should say."""

    def _target(self, origin: Origin, dialer: Dialer) -> _Target:
        plan = self._plan
        headers = {
            "host": origin.authority,
            "content-type": "application/json",
            "accept": "text/event-stream" if plan.streaming else "application/json",
            "user-agent": "triolet-bench",
        }
        if not plan.keep_connections:
            headers["connection"] = "close"
        headers |= {name.lower(): value for name, value in plan.headers}
        lines = [f"POST {origin.base}{plan.path} HTTP/1.1"]
        lines += (f"{name}: {value}" for name, value in headers.items())
        head = "\r\n".join((*lines, "")).encode()
        return _Target(ConnectionPool(origin, dialer, keep=plan.max_in_flight), head)

    @property
    def targets(self) -> int:
        """How many URLs there are to choose from."""
        return len(self._targets)

    def close(self) -> None:
        """Close the kept connections."""
        for target in self._targets:
            target.connections.close()

    async def ask(self, ask: Ask, record: Record) -> str | None:
        """Send one request; the answer's text, or None if it failed, as `record` then says.

        If it is cancelled from outside the record stays `unfinished`.
        """
        try:
            return await self._ask(ask, record, usage=self._asks_usage)
        except _UsageRefused:
            if self._asks_usage:
                self._asks_usage = False
                self.notes.append(
                    "the target refuses stream_options.include_usage: asked without it, so that "
                    "tokens are counted by the client"
                )
        # Not a second try: the target was asked in words it does not know.
        record.head_s = record.status = None
        return await self._ask(ask, record, usage=False)

    async def _ask(self, ask: Ask, record: Record, *, usage: bool) -> str | None:
        request = self._request(ask, record, usage=usage)
        with trio.CancelScope() as scope:
            try:
                text = await self._on_live_connection(request, record, scope)
            except BadAnswer as exc:
                self._failed(record, exc)
                return None
            record.ended_s = self._now()
            record.outcome = "ok"
            return text
        self._given_up(ask, record)
        return None

    def _request(self, ask: Ask, record: Record, *, usage: bool) -> _Request:
        target = self._targets[ask.target]
        body = self._body(ask, usage=usage)
        head = self._head(target, ask, record, len(body))
        limit_s = self._plan.request_timeout_s
        if ask.cancel_after_s is not None:
            limit_s = min(limit_s, ask.cancel_after_s)
        return _Request(target.connections, head, body, usage, limit_s)

    async def _on_live_connection(
        self, request: _Request, record: Record, scope: trio.CancelScope
    ) -> str:
        """A kept connection that the target had closed already is replaced: it never saw the
        request. How often is in `replaced`."""
        try:
            return await self._attempt(request, record, scope, fresh=False)
        except _FoundClosed:
            self.replaced += 1
        return await self._attempt(request, record, scope, fresh=True)

    async def _attempt(
        self, request: _Request, record: Record, scope: trio.CancelScope, *, fresh: bool
    ) -> str:
        connection = await self._connect(request.connections, fresh=fresh)
        record.sent_s = self._now()
        scope.deadline = trio.current_time() + request.limit_s
        keeper = request.connections if self._plan.keep_connections else None
        try:
            with _Lent(connection, keeper):
                return await self._exchange(connection, request, record)
        except AnswerLost as exc:
            if exc.stale and not fresh and self._now() - record.sent_s < _FOUND_CLOSED_S:
                raise _FoundClosed from exc
            raise BadAnswer("reset" if record.head_s is None else "cut", exc.why) from exc
        except AnswerInvalid as exc:
            raise BadAnswer("invalid", exc.why) from exc

    async def _connect(self, connections: ConnectionPool, *, fresh: bool) -> Connection:
        try:
            return await connections.take(self._plan.connect_timeout_s, fresh=fresh)
        except ConnectFailed as exc:
            raise BadAnswer("connect", exc.why) from exc

    def _failed(self, record: Record, failure: BadAnswer) -> None:
        record.ended_s = self._now()
        record.outcome = "error"
        record.error = failure.kind
        record.error_message = failure.why

    def _given_up(self, ask: Ask, record: Record) -> None:
        """The scope's own deadline passed."""
        limit_s = self._plan.request_timeout_s
        if ask.cancel_after_s is not None and ask.cancel_after_s <= limit_s:
            record.ended_s = self._now()
            record.outcome = "cancelled"
        else:
            self._failed(record, BadAnswer("timeout", f"not complete after {limit_s:g} s"))

    def _body(self, ask: Ask, *, usage: bool) -> bytes:
        plan = self._plan
        said = "prompt" if isinstance(ask.prompt, str) else "messages"
        fields: dict[str, Any] = {"model": plan.model, said: ask.prompt}
        fields[plan.max_tokens_field] = ask.max_tokens
        if plan.streaming:
            fields["stream"] = True
        if usage:
            fields["stream_options"] = {"include_usage": True}
        fields |= plan.extra_inputs
        return msgspec.json.encode(fields)

    def _head(self, target: _Target, ask: Ask, record: Record, length: int) -> bytes:
        session = ask.session_id.encode()
        own = b"%b: %b\r\n" % (self._session_header, session) if self._session_header else b""
        return (
            b"%bx-request-id: %b\r\nx-correlation-id: %b\r\nx-session-affinity: %b\r\n%b"
            b"content-length: %d\r\n\r\n"
        ) % (target.head, record.request_id.encode(), session, session, own, length)

    async def _exchange(self, connection: Connection, request: _Request, record: Record) -> str:
        await connection.send(request.head, request.body)
        answer = await connection.head()
        record.head_s = self._now()
        self._note_head(record, answer)
        if answer.status // 100 != 2:
            await self._refused(connection, answer, record, usage=request.usage)
        encoding = answer.get(b"content-encoding")
        if encoding not in (None, b"identity"):
            raise BadAnswer("invalid", f"compressed ({encoding!r}), which nobody asked for")
        if self._plan.streaming:
            return await self._stream(connection, answer, record)
        return read_whole(await _whole_body(connection), record, self._now(), self._count)

    def _note_head(self, record: Record, answer: Head) -> None:
        record.status = answer.status
        named = (answer.get(name) for name in self._replica_headers)
        replica = next((value for value in named if value), None)
        record.replica = replica.decode("latin-1") if replica else None
        timing = answer.get(b"server-timing")
        queued = _QUEUE.search(timing) if timing else None
        record.queue_s = float(queued[1]) / 1000 if queued else None

    async def _refused(
        self, connection: Connection, answer: Head, record: Record, *, usage: bool
    ) -> None:
        """Raises `BadAnswer` for an error status."""
        record.retry_after_s = _retry_after(answer.get(b"retry-after"))
        body = await _beginning(connection)
        if answer.status in (400, 422) and usage and b"stream_options" in body:
            raise _UsageRefused
        why = error_text(body) or "answered without a body"
        raise BadAnswer(f"http_{answer.status}", why)

    async def _stream(self, connection: Connection, answer: Head, record: Record) -> str:
        kind = (answer.get(b"content-type") or b"").partition(b";")[0].strip().lower()
        if kind != b"text/event-stream":
            body = await _beginning(connection)
            if b'"error"' in body[:256]:
                raise BadAnswer("in_band", error_text(body))
            shown = kind.decode("latin-1") or "nothing named"
            raise BadAnswer("invalid", f"asked for a stream of events, got {shown}")
        notes = StreamNotes(record, self._count)
        try:
            await StreamReader(connection, notes, self._now).run()
        except AnswerLost:
            if not notes.done:  # after [DONE] all was said: only the connection is of no use
                raise
        finally:
            notes.count()
        return notes.end()


class _Lent:
    """A connection for one exchange: kept afterwards if it may be, else closed."""

    __slots__ = ("_connection", "_keeper")

    def __init__(self, connection: Connection, keeper: ConnectionPool | None) -> None:
        self._connection = connection
        self._keeper = keeper

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        if self._keeper is None:
            self._connection.close()
        else:
            self._keeper.give_back(self._connection)


async def _whole_body(connection: Connection) -> bytes:
    body = bytearray()
    while data := await connection.read():
        body += data
        if len(body) > _ANSWER_BYTES:
            raise BadAnswer("invalid", f"more than {_ANSWER_BYTES} bytes")
    return bytes(body)


async def _beginning(connection: Connection) -> bytes:
    """What comes soon of a body that only tells of an error, whether or not it comes whole."""
    body = bytearray()
    with trio.move_on_after(_ERROR_S), suppress(AnswerLost, AnswerInvalid):
        while len(body) < _ERROR_BYTES and (data := await connection.read()):
            body += data
    return bytes(body)


def _retry_after(value: bytes | None) -> float | None:
    """Seconds: HTTP has them as a number or as a date."""
    if value is None:
        return None
    text = value.decode("latin-1").strip()
    try:
        return float(text) if text.replace(".", "", 1).isdecimal() else _seconds_until(text)
    except ValueError:
        return None


def _seconds_until(date: str) -> float:
    return max(0.0, parsedate_to_datetime(date).timestamp() - time.time())
