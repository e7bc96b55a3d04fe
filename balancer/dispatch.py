"""One request on its way: pick, lease, send, retry before the first event, relay, settle.

Until the first event of an answer is here the client has seen nothing, so any failure can be
repaired by another replica. From then on the answer is the client's: it is relayed as it comes,
and a failure is raised for the caller to tell the client in-band.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import trio

from balancer.errors import (
    AnswerInvalid,
    AnswerLost,
    AttemptFailed,
    ConnectFailed,
    Overdue,
    Phase,
    ReplicaRefused,
    StreamCut,
)
from balancer.policies import Outcome
from balancer.pool import Pool
from balancer.replica import Lease, Replica
from balancer.retry import backoff_s, may_retry
from balancer.wire.http1 import Connection, ConnectionPool, Head, request_head
from balancer.wire.openai import (
    Usage,
    answer_error,
    answer_usage,
    stream_done,
    stream_error,
    stream_usage,
)
from balancer.wire.pump import Pump, Sink
from balancer.wire.sse import ByteTap, EventTap, Tap, TapOverflow, data_of, events_of, is_comment

__all__ = ["CancelReason", "Client", "Dispatch", "Request", "Trace"]

_SAME_TIME_S: Final = 0.005

_SURELY_TAKEN_BYTES: Final = 16_384
"""So much fits into a socket's buffer, unless earlier answers were not read: not worth a deadline
moved for each. The limit that then ends a client's slowness is its server's, or what is left of
`first_byte_s`."""

CancelReason = Literal["client_gone", "shutdown"]

HELD_BYTES: Final = 1_048_576
"""A JSON answer up to this size is taken whole before the client sees its head."""


class Request:
    """What goes to a replica. `headers` are those to pass on, names in lower case."""

    __slots__ = ("body", "headers", "method", "target")

    def __init__(
        self, method: str, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body

    def head_for(self, replica: Replica) -> bytes:
        """The request's head as this replica gets it."""
        origin, own = replica.origin, replica.headers
        lines = [b"host: " + origin.authority.encode()]
        lines += (b"%b: %b" % header for header in self.headers if header[0] not in own)
        lines += (b"%b: %b" % header for header in own.items())
        lines.append(b"content-length: %d" % len(self.body))
        return request_head(self.method, origin.base.encode() + self.target, lines)


class Client(Protocol):
    """Who asked. Its methods raise `ConnectionLost` when it is gone."""

    @property
    def sink(self) -> Sink | None:
        """The fast way for the body, if the client's side has one."""

    async def start(self, head: Head, trace: Trace, data: bytes, *, end: bool) -> None:
        """Send the answer's head and the first bytes; `end` if there are no more."""

    async def send(self, data: bytes) -> None:
        """Send more of the body."""

    async def finish(self, data: bytes) -> None:
        """Send the last of the body."""


@dataclass(slots=True)
class Trace:
    """What happened to one request. Times are those of `trio.current_time`, in seconds."""

    started: float
    model: str
    queued_s: float = 0.0
    attempts: int = 0
    replica: str | None = None
    sent_at: float | None = None
    first_at: float | None = None
    last_at: float | None = None
    committed: bool = False
    """Whether the client was sent a head: from then on failures are told in-band."""
    stream: bool = False
    events: int = 0
    usage: Usage = field(default_factory=Usage)
    failures: list[str] = field(default_factory=list)
    """The kinds of the attempts that failed, in order."""

    @property
    def ttft_s(self) -> float | None:
        """From the request's arrival here to its first event."""
        return None if self.first_at is None else self.first_at - self.started

    @property
    def itl_s(self) -> float | None:
        """Inter-token latency as GenAI-Perf defines it: the mean gap after the first token."""
        tokens = self.usage.completion_tokens or self.events
        if not self.stream or tokens < 2 or self.last_at is None or self.first_at is None:
            return None
        return (self.last_at - self.first_at) / (tokens - 1)


@dataclass(slots=True)
class _Answer:
    """An answer whose first event is here."""

    connections: ConnectionPool
    connection: Connection
    head: Head
    tap: Tap
    first: bytes

    def __enter__(self) -> _Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self.connections.give_back(self.connection)


class Dispatch:
    """Serves one request from one pool. `run` once; `cancel` at any time, from anywhere."""

    def __init__(self, pool: Pool, request: Request, client: Client, *, now: float) -> None:
        self._pool = pool
        self._request = request
        self._client = client
        limits = pool.timeouts
        self._phase: Phase = "first_byte"
        self._total_deadline = now + limits.total_s
        self._scope = trio.CancelScope(
            deadline=min(self._total_deadline, now + limits.first_byte_s)
        )
        self.cancel_reason: CancelReason | None = None
        self.trace = Trace(now, pool.model)

    def cancel(self, reason: CancelReason) -> None:
        """End it: the connection to the replica is closed at once, which stops its work."""
        if self.cancel_reason is None:
            self.cancel_reason = reason
            self._scope.cancel(reason)

    async def run(self) -> None:
        """Serve the request to its end.

        Raises `AttemptFailed` (no replica could serve it), `PoolBusy`, `Overdue`, `StreamCut`,
        or `ConnectionLost` when the client is gone; returns early, with `cancel_reason` set,
        when cancelled. `trace.committed` tells whether the client has a head already.
        """
        with self._scope:
            await self._serve()
        if self._scope.cancelled_caught and self.cancel_reason is None:
            raise self._overdue()

    def _overdue(self) -> Overdue:
        limits = self._pool.timeouts
        if trio.current_time() >= self._total_deadline:
            return Overdue("total", limits.total_s)
        return Overdue(
            self._phase, limits.first_byte_s if self._phase == "first_byte" else limits.idle_s
        )

    async def _serve(self) -> None:
        trace = self.trace
        tried: list[Replica] = []
        while True:
            # A client that left while its request was read must not cost a replica anything.
            await trio.lowlevel.checkpoint_if_cancelled()
            with await self._lease(tried) as lease:
                trace.attempts += 1
                replica = lease.replica
                trace.replica = replica.name
                try:
                    answer = await self._attempt(replica)
                except AttemptFailed as failure:
                    self._count(replica, failure)
                    if trace.attempts > self._pool.retries or not may_retry(failure):
                        raise
                else:
                    lease.answered()
                    try:
                        with answer:
                            await self._relay(replica, answer)
                    finally:
                        lease.outcome = _outcome(trace)
                    return
            tried.append(replica)
            self._scope.deadline = self._total_deadline
            now = trio.current_time()
            again = all(other in tried or not other.up(now) for other in self._pool.replicas)
            await trio.sleep(backoff_s(trace.attempts, same_replica=again))

    async def _lease(self, tried: list[Replica]) -> Lease:
        lease = self._pool.lease_nowait(tried)
        if lease is None:
            asked_at = trio.current_time()
            self._scope.deadline = self._total_deadline
            try:
                lease = await self._pool.lease(tried)
            finally:
                self.trace.queued_s += trio.current_time() - asked_at
        return lease

    def _count(self, replica: Replica, failure: AttemptFailed) -> None:
        self.trace.failures.append(failure.kind)
        if not isinstance(failure, ReplicaRefused) or failure.status >= 500:
            replica.failures += 1

    async def _attempt(self, replica: Replica) -> _Answer:
        """One try. A kept connection that proves dead is replaced, at no cost to anybody."""
        fresh = False
        while True:
            connection = await self._connect(replica, fresh=fresh)
            answer = None
            try:
                answer = await self._ask(replica, connection)
                return answer
            except AnswerLost as exc:
                if not exc.stale:
                    raise
                fresh = True
            finally:
                if answer is None:
                    replica.connections.give_back(connection)

    async def _connect(self, replica: Replica, *, fresh: bool) -> Connection:
        if fresh or not replica.connections.idle:
            self._scope.deadline = self._total_deadline  # connect_s bounds what comes now
        try:
            return await replica.connections.take(self._pool.timeouts.connect_s, fresh=fresh)
        except ConnectFailed as exc:
            cause = exc.__cause__
            if not (isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE)):
                replica.unreachable(trio.current_time())  # and not we, out of descriptors
            raise

    async def _ask(self, replica: Replica, connection: Connection) -> _Answer:
        now = trio.current_time()
        self._phase = "first_byte"
        self.trace.sent_at = now
        deadline = min(self._total_deadline, now + self._pool.timeouts.first_byte_s)
        # For a first try on a kept connection it stands already, but for the microseconds since.
        if not 0 <= deadline - self._scope.deadline < _SAME_TIME_S:
            self._scope.deadline = deadline
        await connection.send(self._request.head_for(replica), self._request.body)
        head = await connection.head()
        replica.reached()
        if head.status >= 400:
            body = await _read_held(connection)
            raise ReplicaRefused(replica.name, head.status, head.headers, body)
        if (head.get(b"content-type") or b"").startswith(b"text/event-stream"):
            return await self._first_event(replica, connection, head)
        return await self._whole_or_first(replica, connection, head)

    async def _first_event(self, replica: Replica, connection: Connection, head: Head) -> _Answer:
        tap, first = EventTap(), b""
        try:
            while not first:
                data = await connection.read()
                if not data:
                    raise AnswerInvalid(replica.name, "ended its stream without an event")
                passed = tap.feed(data)
                if is_comment(passed):
                    # Keep-alives of a wait that the client did not see; there may be many.
                    await trio.lowlevel.checkpoint()
                else:
                    first = passed
        except TapOverflow as exc:
            raise AnswerInvalid(replica.name, str(exc)) from exc
        status = stream_error(first)
        if status is not None:
            raise ReplicaRefused(replica.name, status, _JSON, _first_data(first))
        return _Answer(replica.connections, connection, head, tap, first)

    async def _whole_or_first(
        self, replica: Replica, connection: Connection, head: Head
    ) -> _Answer:
        if not (head.get(b"content-type") or b"").startswith(b"application/json"):
            # Audio, say, that is made while it is played: nothing to wait for.
            first = await connection.read()
            return _Answer(replica.connections, connection, head, ByteTap(), first)
        body = await _read_held(connection)
        status = answer_error(body)
        if status is not None:
            raise ReplicaRefused(replica.name, status, head.headers, body)
        return _Answer(replica.connections, connection, head, ByteTap(), body)

    async def _relay(self, replica: Replica, answer: _Answer) -> None:
        trace, tap, connection = self.trace, answer.tap, answer.connection
        trace.first_at = trace.last_at = trio.current_time()
        trace.stream = isinstance(tap, EventTap)
        trace.committed = True
        self._phase = "idle"
        end = connection.complete and not tap.pending
        try:
            if not end or len(answer.first) > _SURELY_TAKEN_BYTES:
                self.blocked()
            await self._client.start(answer.head, trace, answer.first, end=end)
            if not end:
                self.passed()
                await self._relay_rest(connection, tap)
        except (AnswerLost, AnswerInvalid, TapOverflow) as exc:
            replica.failures += 1
            raise StreamCut(replica.name, getattr(exc, "why", str(exc))) from exc
        finally:
            trace.events = tap.events
            trace.usage = _usage(answer)

    async def _relay_rest(self, connection: Connection, tap: Tap) -> None:
        client = self._client
        if client.sink is not None:
            last = await Pump(connection, tap, client.sink, self).run()
        else:
            last = await self._relay_slowly(connection, tap)
        last += tap.pending
        cut_off = connection.delimited_by_close and isinstance(tap, EventTap)
        if cut_off and not stream_done(tap.recent):
            raise AnswerLost(connection.name, "closed the connection in mid-stream")
        self.trace.last_at = trio.current_time()
        self.blocked()
        await client.finish(last)

    async def _relay_slowly(self, connection: Connection, tap: Tap) -> bytes:
        """The same without a sink: through a server that has only ASGI's `send`."""
        while True:
            data = await connection.read()
            passed = tap.feed(data) if data else b""
            if connection.complete:
                return passed
            if passed:
                self.blocked()
                await self._client.send(passed)
                self.passed()

    # What the pump tells, so that `idle_s` measures the replica's silence and nothing else. Moving
    # a scope's deadline takes 2 µs, where a whole chunk takes 5, so it is moved rarely and with
    # slack: a silence is noticed after idle_s at the earliest and 1.25 idle_s at the latest.

    def passed(self) -> None:
        """Something reached the client."""
        now = self.trace.last_at = trio.current_time()
        idle_s = self._pool.timeouts.idle_s
        if not now + idle_s <= self._scope.deadline <= now + 1.25 * idle_s:
            self._scope.deadline = min(self._total_deadline, now + 1.25 * idle_s)

    def blocked(self) -> None:
        """The client takes no more for now; its server limits how long."""
        self._scope.deadline = self._total_deadline


def _outcome(trace: Trace) -> Outcome:
    usage = trace.usage
    first_s = trace.first_at
    return Outcome(
        True,
        None if first_s is None or trace.sent_at is None else first_s - trace.sent_at,
        trace.itl_s,
        usage.prompt_tokens,
        usage.cached_tokens,
        usage.completion_tokens,
    )


_JSON: Final = [(b"content-type", b"application/json")]


def _first_data(events: bytes) -> bytes:
    return next((data for data in map(data_of, events_of(events)) if data), b"")


def _usage(answer: _Answer) -> Usage:
    recent = answer.tap.recent
    if isinstance(answer.tap, EventTap):
        return stream_usage(recent)
    # Of an answer that came in pieces the end counts, and it may have begun in the first.
    return answer_usage(answer.first[-_USAGE_BYTES:] + recent if recent else answer.first)


_USAGE_BYTES: Final = 2_048


async def _read_held(connection: Connection) -> bytes:
    """The whole body, or its first `HELD_BYTES` and a little."""
    body = await connection.read()
    while not connection.complete and len(body) < HELD_BYTES:
        body += await connection.read()
    return body
