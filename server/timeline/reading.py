"""From the events of a run to spans of time: one for each node run, one for each round. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from server.workflow.events import (
    Chunk,
    Event,
    NodeFinished,
    NodeRetried,
    NodeStarted,
    OfNode,
    ReasoningChunk,
    RoundStarted,
    RunFinished,
    RunStarted,
)

__all__ = ["Moment", "NodeSpan", "RoundSpan", "RunSpan", "Try", "read"]

Moment: TypeAlias = tuple[float, Event]
"""When an event was put, in Unix seconds, and the event."""

Within: TypeAlias = tuple[tuple[str, int], ...]
"""The containers around a node run with their rounds, outermost first."""

Status: TypeAlias = Literal["succeeded", "failed", "exception", "stopped", "running"]


class Try(NamedTuple):
    """One attempt of a node that is retried."""

    started_at: float
    ended_at: float
    failed: bool


class NodeSpan(msgspec.Struct, kw_only=True):
    """One run of one node. All times are Unix seconds."""

    id: str
    node_id: str
    type: str
    title: str
    within: Within
    predecessor_id: str | None
    ready_at: float
    """When what it waited for was done."""
    started_at: float
    ended_at: float
    queued_s: float = 0.0
    """Of that the time in which it waited for a slot, at the beginning."""
    status: Status = "running"
    tries: list[Try] = []
    first_token_at: float | None = None
    error: str | None = None
    tokens: int = 0
    critical: bool = False
    """Whether the run would have been shorter if this had been."""


class RoundSpan(msgspec.Struct, kw_only=True):
    """One round of an iteration or a loop."""

    container_id: str
    within: Within
    """Those around the container."""
    number: int
    started_at: float
    ended_at: float


class RunSpan(msgspec.Struct, kw_only=True):
    """A whole run, or as much of it as there was."""

    nodes: list[NodeSpan]
    """In the order in which they started."""
    rounds: list[RoundSpan]
    started_at: float = 0.0
    ended_at: float = 0.0
    status: str = "running"
    error: str | None = None
    tokens: int = 0


def read(moments: Iterable[Moment]) -> RunSpan:
    """What happened, by the events that told of it. What never ended ends with the last event."""
    reading = _Reading()
    for at, event in moments:
        reading.take(at, event)
    return reading.whole()


class _Reading:
    def __init__(self) -> None:
        self._run = RunSpan(nodes=[], rounds=[])
        self._nodes: dict[str, NodeSpan] = {}
        self._open_rounds: dict[tuple[str, Within], RoundSpan] = {}
        self._rounds: dict[tuple[str, Within, int], RoundSpan] = {}
        self._ended: dict[tuple[str, Within], float] = {}
        self._last_at = 0.0

    def take(self, at: float, event: Event) -> None:
        self._last_at = max(self._last_at, at)
        match event:
            case RunStarted():
                self._run.started_at = event.at
            case RunFinished():
                self._finish(event)
            case NodeStarted():
                self._start_node(event)
            case NodeFinished():
                self._finish_node(event)
            case NodeRetried():
                self._retry(event)
            case RoundStarted():
                self._start_round(event)
            case Chunk() | ReasoningChunk():
                self._token(at, event)

    def _finish(self, event: RunFinished) -> None:
        run = self._run
        run.ended_at, run.status, run.error = event.at, event.status, event.error
        run.tokens = event.total_tokens

    def _start_node(self, event: NodeStarted) -> None:
        ready_at = event.at
        if event.predecessor_id is not None:
            ready_at = self._ended.get((event.predecessor_id, event.within), event.at)
        node = NodeSpan(
            id=event.node_run_id,
            node_id=event.node_id,
            type=event.node_type,
            title=event.title,
            within=event.within,
            predecessor_id=event.predecessor_id,
            ready_at=min(ready_at, event.at),
            started_at=event.at,
            ended_at=event.at,
        )
        if self._nodes.setdefault(node.id, node) is node:
            self._run.nodes.append(node)

    def _finish_node(self, event: NodeFinished) -> None:
        node = self._nodes.get(event.node_run_id)
        if node is None:
            return
        node.status, node.error = event.status, event.error
        node.ended_at = max(event.at, node.started_at)
        if node.tries:
            began = max(node.tries[-1].ended_at, node.ended_at - event.elapsed_s)
            node.tries.append(Try(began, node.ended_at, event.status == "failed"))
        queued_s = event.metadata.get("queued_s")
        if isinstance(queued_s, float):
            node.queued_s = min(queued_s, node.ended_at - node.started_at)
        tokens = event.metadata.get("total_tokens")
        node.tokens = tokens if isinstance(tokens, int) else 0
        self._ended[node.node_id, node.within] = node.ended_at

    def _retry(self, event: NodeRetried) -> None:
        node = self._nodes.get(event.node_run_id)
        if node is None:
            return
        before = node.tries[-1].ended_at if node.tries else node.started_at
        began = min(max(before, event.at - event.elapsed_s), event.at)
        node.tries = [*node.tries, Try(began, event.at, True)]

    def _start_round(self, event: RoundStarted) -> None:
        key = (event.node_id, event.within, event.index)
        self._rounds[key] = RoundSpan(
            container_id=event.node_id,
            within=event.within,
            number=event.index,
            started_at=event.at,
            ended_at=event.at,
        )

    def _token(self, at: float, event: OfNode) -> None:
        node = self._nodes.get(event.node_run_id)
        if node is not None and node.first_token_at is None:
            node.first_token_at = at

    def whole(self) -> RunSpan:
        run = self._run
        run.started_at = run.started_at or min(
            (node.started_at for node in run.nodes), default=self._last_at
        )
        run.ended_at = max(run.ended_at or self._last_at, run.started_at)
        for node in run.nodes:
            if node.status == "running":
                node.ended_at = max(run.ended_at, node.started_at)
        run.rounds = list(self._rounds.values())
        for node in run.nodes:
            self._stretch_rounds(node)
        return run

    def _stretch_rounds(self, node: NodeSpan) -> None:
        """A round lasts until the last node inside it has ended; no event says so."""
        for depth, (container_id, number) in enumerate(node.within):
            outer = node.within[:depth]
            key = (container_id, outer, number)
            if key not in self._rounds:
                self._rounds[key] = RoundSpan(
                    container_id=container_id,
                    within=outer,
                    number=number,
                    started_at=node.started_at,
                    ended_at=node.ended_at,
                )
                self._run.rounds.append(self._rounds[key])
            found = self._rounds[key]
            found.started_at = min(found.started_at, node.started_at)
            found.ended_at = max(found.ended_at, node.ended_at)
