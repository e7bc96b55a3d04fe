"""What a run has used up so far, whether it is over, and whether only people hold it up."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any, Final

import trio

from server.workflow.capacity import Capacity
from server.workflow.events import Event, RunFinished, RunPaused, RunResumed, RunStatus, Sink
from server.workflow.limits import Limits
from server.workflow.node import Run
from server.workflow.services import Usage

__all__ = ["Group", "Progress"]

_log: Final = logging.getLogger(__name__)

_STRETCH_S: Final = 0.001
"""After so long without a checkpoint other tasks get their turn."""


class _Delivery:
    """The sink of a run, which should raise nothing. If it does, nobody reads the run any more: it
    is stopped, and only its last event is tried again."""

    __slots__ = ("_failed", "_progress", "_put", "_sink")

    def __init__(self, sink: Sink, progress: Progress) -> None:
        self._sink = sink
        self._put: Callable[[Event], None] = sink.put
        self._progress = progress
        self._failed = False

    def put(self, event: Event) -> None:
        try:
            self._put(event)
        except Exception:
            self._give_up()

    def _put_last(self, event: Event) -> None:
        if isinstance(event, RunFinished):
            self._sink.put(event)

    async def drain(self) -> None:
        if self._failed:
            return
        try:
            await self._sink.drain()
        except Exception:
            self._give_up()

    def _give_up(self) -> None:
        if not self._failed:
            self._failed = True
            self._put = self._put_last
            _log.exception("run %s: its reader failed", self._progress.run.id)
            self._progress.abort("stopped", "Stopped: its events could not be delivered.")


class Progress:
    """Of one run, shared by all its frames."""

    __slots__ = (
        "_busy",
        "_epoch",
        "_ids",
        "_left_s",
        "_next_id",
        "_paused_at",
        "_people",
        "capacity",
        "chars",
        "ended",
        "exceptions",
        "limits",
        "run",
        "scope",
        "shown_chars",
        "since",
        "sink",
        "started",
        "steps",
        "usage",
    )

    def __init__(self, run: Run, sink: Sink, capacity: Capacity, limits: Limits) -> None:
        self.run = run
        self.sink = _Delivery(sink, self)
        self.capacity = capacity
        self.limits = limits
        self.started = trio.current_time()
        self._epoch = time.time() - self.started
        self.scope = trio.CancelScope(deadline=self.started + limits.time_s)
        self.since = self.started
        """When other tasks had their turn for the last time, so far as is known."""
        self.steps = 0
        self.exceptions = 0
        self.usage = Usage()
        self.chars = 0
        self.shown_chars = 0
        self.ended: tuple[RunStatus, str] | None = None
        """Why it was ended before its time; the first reason counts."""
        self._ids = str(uuid.uuid4())[:24]
        self._next_id = 0
        self._busy = 1
        """Tasks that do not wait for people, nor for tasks that they started."""
        self._people: dict[str, str] = {}
        """Node runs that wait for somebody, and their nodes."""
        self._left_s: float | None = None
        """While paused: what is left of its time."""
        self._paused_at = 0.0

    def unix(self, now: float) -> float:
        """Trio's time as Unix time."""
        return self._epoch + now

    def new_id(self) -> str:
        """A UUID of a node run: the run's own random part, and a number. Forty times as cheap as a
        random one each."""
        self._next_id += 1
        return f"{self._ids}{self._next_id:012x}"

    def step(self) -> int | None:
        """Count a step; its number, or None: that was one too many."""
        if self.steps >= self.limits.steps:
            most = self.limits.steps
            self.abort("failed", f"Maximum execution steps exceeded: {most + 1} > {most}")
            return None
        self.steps += 1
        return self.steps

    async def breathe(self) -> None:
        """Let other tasks have their turn, if they have not had it for a while."""
        if trio.current_time() - self.since > _STRETCH_S:
            await trio.lowlevel.checkpoint()
            self.since = trio.current_time()

    def abort(self, status: RunStatus, reason: str) -> None:
        """End the run at once. Synchronous; all that is in flight is cancelled."""
        if self.ended is None:
            self.ended = (status, reason)
            self.scope.cancel()

    # People

    def ask(self, node_run_id: str, node_id: str) -> None:
        """A node run waits for somebody from now on."""
        self._people[node_run_id] = node_id
        self.idle()

    def answered(self, node_run_id: str) -> None:
        """It goes on."""
        if self._people.pop(node_run_id, None) is None:
            return
        self._busy += 1
        if self._left_s is not None:
            now = trio.current_time()
            self.scope.deadline = now + self._left_s
            self._left_s = None
            if self.run.deadline is not None:
                self.run.deadline += now - self._paused_at
            self.sink.put(RunResumed(run_id=self.run.id, at=self.unix(now)))

    def given_up(self, node_run_id: str) -> None:
        """It was cancelled while it waited."""
        if self._people.pop(node_run_id, None) is not None:
            self._busy += 1

    def busy(self) -> None:
        """One task more has something to do."""
        self._busy += 1

    def idle(self, pause: bool = True) -> None:
        """One less. `pause`: whether the run may be found waiting for people now."""
        self._busy -= 1
        if pause and not self._busy and self._people and self.ended is None:
            self._pause()

    def _pause(self) -> None:
        now = self._paused_at = trio.current_time()
        self._left_s = max(self.scope.deadline - now, 0.0)
        self.scope.deadline = inf
        node_ids = tuple(self._people.values())
        self.sink.put(RunPaused(run_id=self.run.id, node_ids=node_ids, at=self.unix(now)))


class Group:
    """Tasks that another one started and waits for. Which of them is the last one is known, so that
    the run is never seen idle in the moment before their starter goes on."""

    __slots__ = ("_cancelled", "_live", "_nursery", "_progress")

    def __init__(self, nursery: trio.Nursery, progress: Progress) -> None:
        self._nursery = nursery
        self._progress = progress
        self._live = 0
        self._cancelled = False

    def start(self, work: Callable[..., Awaitable[None]], *args: Any) -> None:
        """The first one takes over what its starter counted for."""
        if self._live:
            self._progress.busy()
        self._live += 1
        self._nursery.start_soon(self._carry, work, args)

    async def _carry(self, work: Callable[..., Awaitable[None]], args: tuple[Any, ...]) -> None:
        try:
            await work(*args)
        except BaseException:
            self._leave(pause=False)
            raise
        self._leave(pause=not self._cancelled)

    def _leave(self, pause: bool) -> None:
        """The last one gives back what its starter counted for."""
        self._live -= 1
        if self._live:
            self._progress.idle(pause)

    def cancel(self) -> None:
        """Cancel all of them."""
        self._cancelled = True
        self._nursery.cancel_scope.cancel()
