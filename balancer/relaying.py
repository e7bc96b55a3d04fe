"""The second half of an exchange: an answer that has begun, relayed to its client as it comes."""

from __future__ import annotations

from typing import Final, Protocol

import trio

from balancer.attempt import Attempt
from balancer.errors import AnswerInvalid, AnswerLost, StreamCut
from balancer.payload import payload_of
from balancer.trace import Trace
from balancer.wire.http1 import Head
from balancer.wire.openai import Usage, answer_usage, stream_done, stream_usage
from balancer.wire.pump import Pump, Sink
from balancer.wire.sse import EventTap, TapOverflow

__all__ = ["Client", "Relaying"]

_SURELY_TAKEN_BYTES: Final = 16_384
"""So much fits into a socket's buffer, unless earlier answers were not read: not worth a deadline
moved for each. The limit that then ends a client's slowness is its server's, or what is left of
`first_byte_s`."""

_USAGE_BYTES: Final = 2_048


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


class Relaying:
    """Relays what an attempt has begun; `run` once, inside the attempt and its scope.

    What the pump tells, so that `idle_s` measures the replica's silence and nothing else: moving a
    scope's deadline takes 2 µs, where a whole chunk takes 5, so it is moved rarely and with slack.
    A silence is noticed after `idle_s` at the earliest and 1.25 `idle_s` at the latest.
    """

    __slots__ = ("_attempt", "_client", "_connection", "_idle_s", "_scope", "_total_at", "_trace")

    def __init__(self, attempt: Attempt, client: Client, trace: Trace) -> None:
        assert attempt.connection is not None, "nothing has begun"
        self._attempt = attempt
        self._connection = attempt.connection
        self._client = client
        self._trace = trace
        self._scope = attempt.scope
        self._idle_s = attempt.limits.idle_s
        self._total_at = attempt.limits.total_at

    async def run(self) -> None:
        """Relay to the end. Raises `StreamCut` if the replica fails, `ConnectionLost` if the client
        is gone."""
        attempt, trace = self._attempt, self._trace
        trace.sent_at = attempt.sent_at
        trace.first_at = trace.last_at = attempt.first_at
        trace.stream = isinstance(attempt.tap, EventTap)
        trace.committed = True
        try:
            await self._relay()
        except (AnswerLost, AnswerInvalid, TapOverflow) as exc:
            raise StreamCut(attempt.replica.name, getattr(exc, "why", str(exc))) from exc
        finally:
            trace.first_at = attempt.first_at
            trace.events = attempt.tap.events
            trace.usage = _usage(attempt)
            attempt.lease.outcome = trace.outcome()

    async def _relay(self) -> None:
        attempt, connection = self._attempt, self._connection
        end = connection.complete and not attempt.tap.pending
        if not end or len(attempt.first) > _SURELY_TAKEN_BYTES:
            self.blocked()
        await self._client.start(attempt.head, self._trace, attempt.first, end=end)
        if end:
            return
        last = None
        if not attempt.answered:
            last = await self._relay_beginning()
        if last is None:
            self.passed()
            if self._client.sink is not None:
                last = await Pump(connection, attempt.tap, self._client.sink, self).run()
            else:
                last = await self._relay_slowly()
        await self._finish(last)

    async def _finish(self, last: bytes) -> None:
        connection, tap = self._connection, self._attempt.tap
        last += tap.pending
        cut_off = connection.delimited_by_close and isinstance(tap, EventTap)
        if cut_off and not stream_done(tap.recent):
            raise AnswerLost(connection.name, "closed the connection in mid-stream")
        self._trace.last_at = trio.current_time()
        self.blocked()
        await self._client.finish(last)

    async def _relay_beginning(self) -> bytes | None:
        """What comes before the first event that carries something, and that one: the limit on it
        still holds. Returns the last bytes if the answer has ended."""
        attempt, connection = self._attempt, self._connection
        while attempt.phase == "first_byte":
            self._scope.deadline = attempt.due_at
            data = await connection.read()
            passed = attempt.tap.feed(data) if data else b""
            payload = payload_of(passed)
            if payload is not None:
                attempt.note_payload(payload)
            if connection.complete:
                return passed
            if passed:
                self.blocked()
                await self._client.send(passed)
        return None

    async def _relay_slowly(self) -> bytes:
        """The rest without a sink: through a server that has only ASGI's `send`."""
        tap, connection = self._attempt.tap, self._connection
        while True:
            data = await connection.read()
            passed = tap.feed(data) if data else b""
            if connection.complete:
                return passed
            if passed:
                self.blocked()
                await self._client.send(passed)
                self.passed()

    def passed(self) -> None:
        """Something reached the client."""
        now = self._trace.last_at = trio.current_time()
        idle_s = self._idle_s
        if not now + idle_s <= self._scope.deadline <= now + 1.25 * idle_s:
            self._scope.deadline = min(self._total_at, now + 1.25 * idle_s)

    def blocked(self) -> None:
        """The client takes no more for now; its server limits how long."""
        self._scope.deadline = self._total_at


def _usage(attempt: Attempt) -> Usage:
    recent = attempt.tap.recent
    if isinstance(attempt.tap, EventTap):
        return stream_usage(recent)
    # Of an answer that came in pieces the end counts, and it may have begun in the first.
    return answer_usage(attempt.first[-_USAGE_BYTES:] + recent if recent else attempt.first)
