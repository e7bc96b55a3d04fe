"""One try at one replica: connect, send, and wait for the first event that carries something."""

from __future__ import annotations

from types import TracebackType
from typing import Final

import trio

from balancer.errors import (
    AnswerInvalid,
    AnswerLost,
    AttemptFailed,
    BalancerError,
    Overdue,
    Phase,
    ReplicaLost,
    ReplicaRefused,
    StreamCut,
)
from balancer.lease import Lease, ReclaimReason
from balancer.payload import payload_of
from balancer.pool import Pool
from balancer.request import Limits, Request
from balancer.wire.http1 import Connection, Head
from balancer.wire.openai import answer_error
from balancer.wire.sse import ByteTap, EventTap, Tap, TapOverflow, is_comment

__all__ = ["HELD_BYTES", "Attempt", "PutBack"]

HELD_BYTES: Final = 1_048_576
"""A JSON answer up to this size is taken whole before the client sees its head."""

_HOLD_BYTES: Final = 65_536
"""So much of a stream that carries nothing is held back."""

_SAME_TIME_S: Final = 0.005

_JSON: Final = [(b"content-type", b"application/json")]


class PutBack(BalancerError):
    """The request lost its place to another, and waits in line again."""

    kind = "put_back"


class Attempt:
    """A lease in use. `with` it, inside `scope`: at its end the connection is kept or closed, the
    lease is told what became of it, and released.

    `trial_s` is its shorter limit if the replica is on trial. `scope` is what `reclaim` cancels and
    whose deadline is moved: nobody else's work may be in it.
    """

    __slots__ = (
        "_pool",
        "answered",
        "connection",
        "due_at",
        "failure",
        "first",
        "first_at",
        "head",
        "lease",
        "limits",
        "phase",
        "reclaimed",
        "replica",
        "request",
        "scope",
        "sent_at",
        "tap",
        "trial_s",
    )

    head: Head
    tap: Tap

    def __init__(
        self,
        pool: Pool,
        lease: Lease,
        request: Request,
        limits: Limits,
        scope: trio.CancelScope,
        *,
        trial_s: float | None = None,
    ) -> None:
        self._pool = pool
        self.lease = lease
        self.replica = lease.replica
        self.request = request
        self.limits = limits
        self.scope = scope
        self.trial_s = trial_s
        self.phase: Phase = "first_byte"
        self.connection: Connection | None = None
        self.first = b""
        """The bytes to send to the client first: up to the end of what `start` saw."""
        self.sent_at: float | None = None
        self.due_at = limits.total_at
        """When its first event must be here."""
        self.first_at: float | None = None
        self.answered = False
        """Whether something came that carries something."""
        self.reclaimed: ReclaimReason | None = None
        self.failure: BalancerError | None = None
        """Set by who runs it beside another."""
        lease.on_reclaim = self.reclaim

    def reclaim(self, reason: ReclaimReason) -> None:
        """Leave that replica: what it does is stopped by closing the connection."""
        self.reclaimed = reason
        self.scope.cancel(reason)

    def __enter__(self) -> Attempt:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        exc: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        if exc is None:
            self.close()
        else:
            self.give_up(exc)

    def give_up(self, exc: BaseException) -> None:
        """Close it for a reason."""
        self._blame(exc)
        self.close()

    def close(self) -> None:
        """Keep or close the connection, release the lease."""
        self._let_go()
        self.lease.on_reclaim = None
        self.lease.release()

    def _let_go(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            self.replica.connections.give_back(connection)

    def _blame(self, exc: BaseException) -> None:
        """Tell the lease of a failure that may be the replica's."""
        failure: BaseException | None = exc
        if isinstance(exc, trio.Cancelled):
            failure = self.overdue() if self.scope.deadline <= trio.current_time() else None
        if isinstance(failure, (AttemptFailed, StreamCut, Overdue)):
            if not self.answered:
                self.lease.failed(failure)
            elif not isinstance(failure, Overdue) or failure.phase == "idle":
                self.lease.cut()

    def overdue(self) -> Overdue | ReplicaLost:
        """The limit that has passed."""
        limits = self.limits
        if trio.current_time() >= limits.total_at:
            return Overdue("total", limits.total_s)
        if self.phase == "idle":
            return Overdue("idle", limits.idle_s)
        if self.trial_s is not None:
            why = f"on trial after failures, it did not begin to answer within {self.trial_s:g} s"
            return ReplicaLost(self.replica.name, why)
        return Overdue("first_byte", limits.first_byte_s)

    def why_cancelled(self) -> BalancerError:
        """What its scope was cancelled for, if by none of its callers."""
        if self.reclaimed == "put_back":
            return PutBack("its place went to a request of a higher tier")
        if self.reclaimed is not None:
            return ReplicaLost(self.replica.name, "found lost before it answered")
        return self.overdue()

    async def start(self) -> None:
        """Go on until there is something for the client: the first event that carries something,
        or what came while the hold lasted (then `answered` is false). Raises `AttemptFailed`.

        A kept connection that proves dead is replaced, at no cost to anybody.
        """
        try:
            await self._ask(fresh=False)
        except AnswerLost as exc:
            if not exc.stale:
                raise
            self._let_go()
            await self._ask(fresh=True)

    async def _ask(self, *, fresh: bool) -> None:
        replica, request = self.replica, self.request
        if fresh or not replica.connections.idle:
            self.scope.deadline = self.limits.total_at  # connect_s bounds what comes now
        connection = await replica.connections.take(self.limits.connect_s, fresh=fresh)
        self.connection = connection
        self._expect_answer()
        await connection.send(request.head_for(replica), request.body)
        head = self.head = await connection.head()
        if head.status >= 400:
            body = await _read_held(connection)
            raise ReplicaRefused(replica.name, head.status, head.headers, body)
        content_type = head.get(b"content-type") or b""
        if content_type.startswith(b"text/event-stream"):
            await self._first_event(connection)
        else:
            await self._whole_or_first(connection, content_type)

    def _expect_answer(self) -> None:
        limits = self.limits
        now = self.sent_at = trio.current_time()
        limit_s = limits.first_byte_s if self.trial_s is None else self.trial_s
        due_at = self.due_at = min(limits.total_at, now + limit_s)
        # Moving a deadline takes 2 µs. For a first try on a kept connection it stands already, but
        # for the microseconds since.
        if not 0 <= due_at - self.scope.deadline < _SAME_TIME_S:
            self.scope.deadline = due_at

    async def _whole_or_first(self, connection: Connection, content_type: bytes) -> None:
        self.tap = ByteTap()
        if not content_type.startswith(b"application/json"):
            # Audio, say, that is made while it is played: nothing to wait for.
            self.first = await connection.read()
        else:
            body = self.first = await _read_held(connection)
            status = answer_error(body)
            if status is not None:
                raise ReplicaRefused(self.replica.name, status, self.head.headers, body)
        await self._note_begun(self.first)

    async def _first_event(self, connection: Connection) -> None:
        tap = self.tap = EventTap()
        try:
            while not self.first:
                data = await connection.read()
                if not data:
                    raise AnswerInvalid(self.replica.name, "ended its stream without an event")
                passed = tap.feed(data)
                if is_comment(passed):
                    # Keep-alives of a wait that the client did not see; there may be many.
                    await trio.lowlevel.checkpoint()
                else:
                    self.first = passed
            payload = payload_of(self.first)
            if payload is None:
                payload = await self._hold(connection, tap)
        except TapOverflow as exc:
            raise AnswerInvalid(self.replica.name, str(exc)) from exc
        status = None if payload is None else answer_error(payload)
        if status is not None:
            raise ReplicaRefused(self.replica.name, status, _JSON, payload or b"")
        await self._note_begun(payload)

    async def _hold(self, connection: Connection, tap: EventTap) -> bytes | None:
        """Wait some more for an event that carries something: its data, None if none came."""
        with trio.move_on_after(self.limits.hold_s):
            while len(self.first) < _HOLD_BYTES:
                data = await connection.read()
                if not data:
                    if not tap.pending:
                        why = "ended its stream without an answer"
                        raise AnswerInvalid(self.replica.name, why)
                    break
                passed = tap.feed(data)
                self.first += passed
                payload = payload_of(passed)
                if payload is not None:
                    return payload
        return None

    async def _note_begun(self, payload: bytes | None) -> None:
        """It goes to the client now, and stays with this replica."""
        if self.reclaimed is not None:  # in the very step in which the answer arrived
            await trio.lowlevel.checkpoint()
        self.lease.on_reclaim = None
        if payload is not None:
            self.note_answered()

    def note_answered(self) -> None:
        """Something is here that carries something."""
        self.answered = True
        self.phase = "idle"
        self.first_at = trio.current_time()
        self.lease.answered()
        self._learn(self.first_at)

    def _learn(self, now: float) -> None:
        if self.sent_at is None or not isinstance(self.tap, EventTap):
            return
        waited_s = now - self.sent_at
        self._pool.patience.waited(waited_s)
        if self._pool.hedge is not None:
            self._pool.hedge.waited(waited_s, self.expected_s)

    @property
    def expected_s(self) -> float:
        """How long the policy expects this to take; 1 where it expects nothing."""
        explanation = self.lease.explanation
        return (explanation is not None and explanation.predicted_ttft_s) or 1.0

    def note_payload(self, payload: bytes) -> None:
        """The same for one that came after the client saw the head: it may be an error."""
        status = answer_error(payload)
        if status is None:
            self.note_answered()
        else:
            self.phase = "idle"
            self.lease.failed(ReplicaRefused(self.replica.name, status, _JSON, payload))


async def _read_held(connection: Connection) -> bytes:
    """The whole body, or its first `HELD_BYTES` and a little."""
    body = await connection.read()
    while not connection.complete and len(body) < HELD_BYTES:
        body += await connection.read()
    return body
