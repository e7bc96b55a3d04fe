"""Reads a stream from the poller's callback: no task is woken for a chunk.

So a chunk's arrival time is taken when its bytes are read, and a client with a thousand streams
spends its time on them and not in the scheduler.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from balancer.errors import BalancerError
from balancer.wire.http1 import Connection
from bench.load.chunks import BadAnswer, StreamNotes

__all__ = ["StreamReader"]

# After this many receives in one call others get their turn.
_RECEIVES: Final = 8

_AFTER_DONE_S: Final = 0.5
"""The body's end comes with `[DONE]` or right after it. It is only of use to the connection."""


class StreamReader:
    """Feeds one answer's body to its notes, until its end. `run` once."""

    __slots__ = ("_connection", "_ended", "_failure", "_more", "_notes", "_now", "_task")

    def __init__(
        self, connection: Connection, notes: StreamNotes, now: Callable[[], float]
    ) -> None:
        self._connection = connection
        self._notes = notes
        self._now = now
        self._task: trio.lowlevel.Task | None = None
        self._ended = False
        self._more = False
        self._failure: BaseException | None = None

    async def run(self) -> None:
        """Returns when the body has ended, or after `[DONE]` does not end.

        Raises `AnswerLost`, `AnswerInvalid`, `BadAnswer`; set a deadline.
        """
        transport = self._connection.transport
        try:
            self._advance()
            while not self._ended:
                if self._failure is not None:
                    raise self._failure
                if self._more:
                    await trio.lowlevel.checkpoint()
                    self._advance()
                    continue
                transport.on_readable = self._arrived
                if not self._notes.done:
                    await self._park()
                    continue
                with trio.move_on_after(_AFTER_DONE_S) as scope:
                    await self._park()
                if scope.cancelled_caught:
                    return
        finally:
            transport.on_readable = None

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
        if self._more or self._ended or self._notes.done or self._failure is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

    def _advance(self) -> None:
        """Read what is there. Sets `_ended`, `_more` or `_failure` if the task must act."""
        self._more = False
        try:
            for _ in range(_RECEIVES):
                data = self._connection.pull()
                if data is None:
                    return
                if not data:
                    self._ended = True
                    return
                self._notes.feed(data, self._now())
            self._more = True
        except (BalancerError, BadAnswer) as exc:
            self._failure = exc
