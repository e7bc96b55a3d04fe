"""What iterations and loops have in common: rounds, what they tell of them, what they add up."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import trio

from server.workflow.events import (
    Chunk,
    ContainerFinished,
    ContainerStarted,
    NodeStatus,
    RoundStarted,
)
from server.workflow.frame import Frame
from server.workflow.level import Emit, Level
from server.workflow.node import NodeError, Task
from server.workflow.node_run import EngineNodeRun
from server.workflow.progress import Progress
from server.workflow.services import Usage
from server.workflow.topology import Graph
from server.workflow.values import Value
from server.workflow.variables import Variables

__all__ = ["Container", "Rounds", "Turns"]


class Container(Task):
    """A node with others inside. Only the engine can run it: it needs a `EngineNodeRun`."""

    body: Graph
    """What is inside; set by who compiles the graph."""


class Rounds:
    """The rounds of one run of a container. A context manager: however it is left, everybody who
    heard of its beginning hears of its end."""

    __slots__ = (
        "_body",
        "_done",
        "_durations",
        "_inputs",
        "_root",
        "_run",
        "_started",
        "_usage",
        "steps",
    )

    def __init__(self, run: EngineNodeRun, body: Graph, inputs: dict[str, Value], length: int):
        self._run = run
        self._body = body
        self._root = body.root_of(None)
        self._inputs = inputs
        self._started = trio.current_time()
        self._usage = Usage()
        self._durations: dict[str, float] = {}
        self._done = False
        self.steps = 0
        run.tell(ContainerStarted, inputs=inputs, length=length, at=self._unix(self._started))

    def announce(self, index: int) -> None:
        """This round begins."""
        self._run.tell(RoundStarted, index=index, at=self._unix(trio.current_time()))

    async def go(self, index: int, variables: Variables, emit: Emit | None = None) -> Level:
        """Run one round; its `error` says whether it failed."""
        progress = self._run.level.progress
        began, steps = trio.current_time(), progress.steps
        outer = self._run.level
        within = (*outer.within, (self._run.vertex.id, index))
        level = Level(progress, self._body, self._root, variables, within, emit or outer.emit)
        await Frame(level).go()
        self._durations[str(index)] = trio.current_time() - began
        self._usage += level.usage
        if progress.steps == steps:
            progress.step()
        await progress.breathe()
        if progress.ended is not None:
            await trio.lowlevel.checkpoint()  # cancelled: there is no further round
        return level

    def done(
        self, outputs: dict[str, Value], *, event: dict[str, Any], **metadata: Value
    ) -> dict[str, Value]:
        """It succeeded. `event` is what only its last event says besides; returns the metadata of
        its node."""
        found = self._metadata() | metadata
        self._finish("succeeded", outputs, None, found | event)
        return found

    def __enter__(self) -> Rounds:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._run.level.usage += self._usage
        if self._done:
            return
        if isinstance(error, NodeError):
            metadata = self._metadata() | {"completed_reason": "error"}
            self._finish("failed", error.outputs, error.message, metadata)
        else:
            self._finish("stopped", {}, "Stopped.", self._metadata())

    def _metadata(self) -> dict[str, Value]:
        return {
            "total_tokens": self._usage.total_tokens,
            "total_price": "0",
            "currency": "USD",
            f"{self._run.vertex.type}_duration_map": self._durations,
        }

    def _finish(
        self,
        status: NodeStatus,
        outputs: dict[str, Value],
        error: str | None,
        metadata: dict[str, Value],
    ) -> None:
        self._done = True
        now = trio.current_time()
        self._run.tell(
            ContainerFinished,
            status=status,
            outputs=outputs,
            error=error,
            steps=self.steps,
            elapsed_s=now - self._started,
            metadata=metadata,
            inputs=self._inputs,
            started_at=self._unix(self._started),
            at=self._unix(now),
        )

    def _unix(self, now: float) -> float:
        return self._run.level.progress.unix(now)


class Turns:
    """Text of rounds that run at once, shown one round after the other in the order of their
    numbers: what a later one shows waits until those before it are over."""

    __slots__ = ("_chars", "_level", "_now", "_over", "_waiting")

    def __init__(self, level: Level) -> None:
        self._level = level
        self._now = 0
        self._waiting: dict[int, list[Chunk]] = {}
        self._chars = 0
        self._over: dict[int, Level] = {}

    def of(self, index: int) -> Emit:
        """Where a round shows its text."""

        def emit(chunk: Chunk) -> None:
            if index == self._now:
                self._level.emit(chunk)
            else:
                self._wait(index, chunk)

        return emit

    def _wait(self, index: int, chunk: Chunk) -> None:
        progress: Progress = self._level.progress
        self._chars += len(chunk.text)
        if self._chars > progress.limits.buffered_chars:
            most = progress.limits.buffered_chars
            progress.abort("failed", f"more than {most} characters of text wait to be shown")
        self._waiting.setdefault(index, []).append(chunk)

    def over(self, index: int, level: Level) -> None:
        """A round has ended; what it showed counts when its turn comes."""
        self._over[index] = level
        while (ended := self._over.pop(self._now, None)) is not None:
            self._level.merge(ended.outputs)
            self._now += 1
            for chunk in self._waiting.pop(self._now, ()):
                self._chars -= len(chunk.text)
                self._level.emit(chunk)
