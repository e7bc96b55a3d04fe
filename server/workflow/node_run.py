"""One run of one node, and what is told of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import copy
from typing import TYPE_CHECKING, Any, Final

from server.workflow.events import (
    AgentLog,
    InputRequired,
    InputTaken,
    NodeFinished,
    NodeStarted,
    NodeStatus,
    OfNode,
    ReasoningChunk,
    VariableSet,
)
from server.workflow.node import Result, Run, Work
from server.workflow.services import Usage
from server.workflow.texts import writable
from server.workflow.topology import Vertex
from server.workflow.values import Value
from server.workflow.variables import Selector, Variables

if TYPE_CHECKING:
    from server.workflow.level import Level

__all__ = ["EngineNodeRun"]

_NOTHING: Final = Result()


class EngineNodeRun:
    """`node.NodeRun`, with what the engine knows of it."""

    __slots__ = (
        *("id", "index", "level", "predecessor", "queued_s", "slot", "spent", "started", "vertex"),
        "whole",
    )

    def __init__(
        self,
        level: Level,
        vertex: Vertex,
        id: str,
        index: int,
        predecessor: str | None,
        started: float,
    ) -> None:
        self.level = level
        self.vertex = vertex
        self.id = id
        self.index = index
        self.predecessor = predecessor
        self.started = started
        self.slot: tuple[str, Work, str] | None = None
        """The tier, kind of work and app of the slot that it holds."""
        self.queued_s = 0.0
        """How long it waited for its slots."""
        self.spent: Usage | None = None
        """What runs that it called have used."""
        self.whole: EngineNodeRun | None = None
        """Whose part it is, of `in_slot`; None: it is none."""

    # What nodes use

    @property
    def node_id(self) -> str:
        return self.vertex.id

    @property
    def variables(self) -> Variables:
        return self.level.variables

    @property
    def run(self) -> Run:
        return self.level.progress.run

    def stream(self, name: str, text: str) -> None:
        if text and name in self.vertex.streams:
            self.level.take(self.vertex, name, text)

    def close(self, name: str) -> None:
        if name in self.vertex.streams:
            self.level.close(self.vertex, name)

    async def drain(self) -> None:
        await self.level.progress.sink.drain()

    def leave_slot(self) -> None:
        if self.slot is not None:
            self.level.progress.capacity.release(*self.slot)
            self.slot = None

    @asynccontextmanager
    async def in_slot(self, work: Work) -> AsyncIterator[EngineNodeRun]:
        progress, part = self.level.progress, copy(self)
        part.whole = self.whole or self
        slot = (progress.run.tier, work, progress.run.app.id)
        await progress.capacity.acquire(*slot)
        part.slot = slot
        try:
            yield part
        finally:
            part.leave_slot()

    def spend(self, usage: Usage) -> None:
        level, whole = self.level, self.whole or self
        level.usage += usage
        level.progress.usage += usage
        whole.spent = usage if whole.spent is None else whole.spent + usage

    def write(self, selector: Selector, value: Value) -> None:
        node_id, name = selector[0], selector[1]
        value = self.level.weigh({name: value})[name]
        self.level.variables.set(node_id, name, value)
        if node_id == "conversation":
            self.tell(VariableSet, selector=tuple(selector), value=value)

    def tell(self, kind: type[OfNode], **fields: Any) -> None:
        progress = self.level.progress
        if kind is InputTaken:
            progress.answered(self.id)
        elif kind is AgentLog or kind is ReasoningChunk:
            fields = writable(fields)
        vertex = self.vertex
        progress.sink.put(
            kind(
                node_run_id=self.id,
                node_id=vertex.id,
                node_type=vertex.type,
                title=vertex.title,
                within=self.level.within,
                **fields,
            )
        )
        if kind is InputRequired:
            progress.ask(self.id, vertex.id)

    # What the engine tells of it; written out, since there are two for each node run

    def tell_started(self) -> None:
        level, vertex = self.level, self.vertex
        level.progress.sink.put(
            NodeStarted(
                node_run_id=self.id,
                node_id=vertex.id,
                node_type=vertex.type,
                title=vertex.title,
                within=level.within,
                index=self.index,
                predecessor_id=self.predecessor,
                at=level.progress.unix(self.started),
            )
        )

    def tell_finished(
        self,
        status: NodeStatus,
        now: float,
        result: Result = _NOTHING,
        outputs: dict[str, Value] | None = None,
        error: str | None = None,
        error_type: str | None = None,
    ) -> None:
        level, vertex = self.level, self.vertex
        progress = level.progress
        progress.sink.put(
            NodeFinished(
                node_run_id=self.id,
                node_id=vertex.id,
                node_type=vertex.type,
                title=vertex.title,
                within=level.within,
                index=self.index,
                predecessor_id=self.predecessor,
                status=status,
                inputs=result.inputs,
                process_data=result.process_data,
                outputs={} if outputs is None else outputs,
                error=error,
                error_type=error_type,
                handle=result.handle,
                elapsed_s=now - self.started,
                metadata=self._metadata(result),
                started_at=progress.unix(self.started),
                at=progress.unix(now),
            )
        )

    def _metadata(self, result: Result) -> dict[str, Value]:
        found, usage = result.metadata, result.usage
        if self.spent is not None:
            usage = self.spent if usage is None else usage + self.spent
        if usage is not None and "total_tokens" not in found:
            found = {"total_tokens": usage.total_tokens, **found}
        if self.queued_s:
            found = {**found, "queued_s": self.queued_s}
        return found
