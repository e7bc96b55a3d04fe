"""Running one graph, or the inside of a container once.

Nodes that only compute are called as functions by whoever made them ready, in the order in which
they became ready. A node that waits goes on in the same task if it is the only thing to do; else
each one gets a task, and what it makes ready goes on in that task. Node runs are announced as they
are taken from the queue, so events come in an order that does not depend on Trio's.
"""

from __future__ import annotations

import logging
from typing import Final

import trio

from server.workflow.events import NodeRetried
from server.workflow.level import Level
from server.workflow.node import NodeError, Result, Task
from server.workflow.node_run import EngineNodeRun
from server.workflow.progress import Group
from server.workflow.services import ServiceFailed
from server.workflow.sizes import TooLarge
from server.workflow.topology import Vertex

__all__ = ["Frame"]

_LIMITED: Final = frozenset({"model", "io", "cpu"})
"""Kinds of work that take a slot."""

_TOLD_FROM_S: Final = 0.001
"""A shorter wait for a slot is nothing to tell of."""

_log: Final = logging.getLogger(__name__)


class Frame:
    """The tasks of one run of one graph."""

    __slots__ = ("_group", "_in_flight", "_level", "_progress")

    def __init__(self, level: Level) -> None:
        self._level = level
        self._progress = level.progress
        self._group: Group | None = None
        """The tasks that go on at once, while there are several."""
        self._in_flight: dict[int, EngineNodeRun] = {}
        """Nodes that wait for something, by the index of their run."""

    async def go(self) -> None:
        """Run it to its end, be it good or bad: see `Level.error`. Raises nothing but a
        cancellation."""
        self._level.begin()
        try:
            while found := await self._advance():
                if len(found) == 1:
                    await self._carry(found[0])
                else:
                    await self._carry_all(found)
        finally:
            self._stop_in_flight()
            self._level.end()

    async def _advance(self) -> list[EngineNodeRun]:
        """Run all that only computes; return the node runs that wait for something."""
        found: list[EngineNodeRun] = []
        while (run := self._level.next()) is not None:
            if self._evaluate(run):
                await self._progress.breathe()
            else:
                self._in_flight[run.index] = run
                found.append(run)
        return [] if self._level.over else found

    def _evaluate(self, run: EngineNodeRun) -> bool:
        """Run a node that only computes, or may do so; whether that was all."""
        vertex = run.vertex
        outcome: Result | NodeError | None
        try:
            if vertex.inline is not None:
                outcome = vertex.inline.evaluate(run)
            else:
                outcome = None if vertex.quick is None else vertex.quick.at_once(run)
        except Exception as error:
            outcome = _failure(error, vertex)
        if outcome is None:
            return False
        self._settle(run, outcome)
        return True

    async def _carry_all(self, found: list[EngineNodeRun]) -> None:
        async with trio.open_nursery() as nursery:
            self._group = Group(nursery, self._progress)
            for run in found:
                self._group.start(self._chain, run)
        self._group = None

    async def _chain(self, run: EngineNodeRun) -> None:
        """One task: a node that waits, and then whatever it made ready."""
        assert self._group is not None
        while True:
            await self._carry(run)
            found = await self._advance()
            if not found:
                return
            run = found[0]
            for other in found[1:]:
                self._group.start(self._chain, other)

    def _settle(self, run: EngineNodeRun, outcome: Result | NodeError) -> None:
        """A failure that ends it all cancels what is in flight."""
        self._level.settle(run, outcome, trio.current_time())
        if self._level.error is not None and self._group is not None:
            self._group.cancel()

    # Nodes that wait

    async def _carry(self, run: EngineNodeRun) -> None:
        """Run it, again where its data say so, and settle what became of it."""
        policy = run.vertex.policy
        await self._progress.sink.drain()
        tries = 0
        while True:
            began = trio.current_time()
            outcome = await self._attempt(run)
            if self._level.over:
                return
            if isinstance(outcome, Result) or tries >= policy.retries:
                del self._in_flight[run.index]
                self._settle(run, outcome)
                return
            tries += 1
            self._tell_retried(run, outcome, tries, trio.current_time() - began)
            await trio.sleep(policy.wait_s)

    async def _attempt(self, run: EngineNodeRun) -> Result | NodeError:
        """Run it once, in a slot of its kind of work."""
        task, progress = run.vertex.task, self._progress
        assert task is not None
        work = task.work
        if work not in _LIMITED:
            return await self._execute(run, task)
        slot = (progress.run.tier, work, progress.run.app.id)
        began = trio.current_time()
        await progress.capacity.acquire(*slot)
        run.slot = slot
        queued_s = trio.current_time() - began
        if queued_s > _TOLD_FROM_S:
            run.queued_s += queued_s
        try:
            return await self._execute(run, task)
        finally:
            progress.since = trio.current_time()
            run.leave_slot()

    async def _execute(self, run: EngineNodeRun, task: Task) -> Result | NodeError:
        try:
            outcome: Result | NodeError = await task.execute(run)
        except Exception as error:
            outcome = _failure(error, run.vertex)
        except BaseException as error:
            self._progress.given_up(run.id)
            rest = _without_failures(error)
            if rest is error:
                raise
            raise rest from None  # noqa: ASYNC104 - the same, without what has been told
        self._progress.answered(run.id)
        return outcome

    def _tell_retried(
        self, run: EngineNodeRun, error: NodeError, tries: int, elapsed_s: float
    ) -> None:
        self._level.tried(run)
        run.tell(
            NodeRetried,
            retry_index=tries,
            error=error.message,
            error_type=error.type,
            elapsed_s=elapsed_s,
            at=self._progress.unix(trio.current_time()),
        )

    def _stop_in_flight(self) -> None:
        """Tell of those that were cut off, in the order in which they began."""
        if not self._in_flight:
            return
        ended = self._progress.ended
        now = trio.current_time()
        for run in self._in_flight.values():
            run.tell_finished("stopped", now, error=ended[1] if ended else "Stopped.")
        self._in_flight.clear()


def _without_failures(error: BaseException) -> BaseException:
    """A node that is cancelled may fail in the same moment: tasks of its own, mostly. What ends the
    run is told by who cancelled it; only a bug goes on up."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    return error.split((NodeError, ServiceFailed, TooLarge))[1] or error


def _first(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _failure(error: Exception, vertex: Vertex) -> NodeError:
    """A node's own error, or a service's; anything else is a bug of ours. Of several that came at
    once the first one is told, unless there is a bug among them."""
    if isinstance(error, ExceptionGroup):
        bugs = error.split((NodeError, ServiceFailed))[1]
        error = _first(error if bugs is None else bugs)
    if isinstance(error, NodeError):
        return error
    if isinstance(error, ServiceFailed):
        return NodeError(error.message, error.type)
    if isinstance(error, TooLarge):
        return NodeError(str(error), "ValueTooLarge")
    _log.error("node %s (%s) failed by a bug", vertex.id, vertex.type, exc_info=error)
    return NodeError("internal error", "InternalError")
