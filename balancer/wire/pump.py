"""The relay pump: chunks from a replica's socket to a client's, without a task in between.

While a stream flows, its exchange is parked. The poller calls the pump for each arrival; the pump
receives, lets llhttp take the framing off, and hands whole events to the client's side. It wakes
the exchange only for what needs one: the end, an error, or a client that does not take more.
"""

from __future__ import annotations

from typing import Final, Protocol

import trio

from balancer.errors import BalancerError
from balancer.wire.http1 import Connection
from balancer.wire.sse import Tap, TapOverflow

__all__ = ["Progress", "Pump", "Sink"]

# After this many receives in one call others get their turn; the rest is for the exchange.
_RECEIVES: Final = 8


class Sink(Protocol):
    """The client's side of a stream, for the pump."""

    def write_nowait(self, data: bytes) -> bool:
        """Send body bytes. False: the socket is full; nothing more before `drain` returned.

        Raises `ConnectionLost` if the client is gone.
        """

    async def drain(self) -> None:
        """Wait until what was not taken is sent. Bounded by the sink's own write limit."""


class Progress(Protocol):
    """Whom the pump tells how it gets on; called synchronously, often."""

    def passed(self) -> None:
        """Something was passed on."""

    def blocked(self) -> None:
        """The sink is full: the pump waits for the client now, not for the replica."""


class Pump:
    """Relays the rest of one answer. `run` returns the last bytes, for the exchange to send."""

    __slots__ = ("_connection", "_failure", "_full", "_last", "_progress", "_sink", "_tap", "_task")

    def __init__(self, connection: Connection, tap: Tap, sink: Sink, progress: Progress) -> None:
        self._connection = connection
        self._tap = tap
        self._sink = sink
        self._progress = progress
        self._task: trio.lowlevel.Task | None = None
        self._last: bytes | None = None
        self._full = False
        self._failure: BaseException | None = None

    async def run(self) -> bytes:
        """Relay until the answer ends.

        Raises `ConnectionLost` if the client is gone, `AnswerLost` or `AnswerInvalid` if the
        replica failed, `TapOverflow` if an event has no end.
        """
        transport = self._connection.transport
        try:
            self._advance()
            while self._last is None:
                if self._failure is not None:
                    raise self._failure
                if self._full:
                    transport.on_readable = None
                    await self._drain()
                    self._advance()
                else:
                    transport.on_readable = self._arrived
                    await self._park()
            return self._last
        finally:
            transport.on_readable = None

    async def _drain(self) -> None:
        self._progress.blocked()
        await self._sink.drain()
        self._full = False
        self._progress.passed()

    async def _park(self) -> None:
        def abort(_: object) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)

    def _arrived(self) -> None:
        """Called by the poller."""
        if self._task is None:
            return
        self._advance()
        if self._full or self._last is not None or self._failure is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

    def _advance(self) -> None:
        """Pass on what is there. Sets `_last`, `_full` or `_failure` if the exchange must act."""
        try:
            for _ in range(_RECEIVES):
                data = self._connection.pull()
                if data is None:
                    return
                passed = self._tap.feed(data) if data else b""
                if self._connection.complete:
                    self._last = passed
                    return
                if passed:
                    self._progress.passed()
                    if not self._sink.write_nowait(passed):
                        self._full = True
                        return
            # Never starve the others for one fast stream: come back through the scheduler.
            self._full = True
        except (BalancerError, TapOverflow) as exc:
            self._failure = exc
