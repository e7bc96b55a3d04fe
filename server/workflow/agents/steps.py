"""What clients see of an agent at work: rounds, and in each its thought and its calls of tools.

Each step is told when it begins and again under the same id as it goes on. The data of a round is
enough for Dify's `agent_thought` event: position, thought, tool, tool_labels, tool_input,
observation, message_files.
"""

from __future__ import annotations

import uuid
from typing import Any, Literal

import msgspec
import trio

from server.workflow.events import AgentLog
from server.workflow.node import NodeRun
from server.workflow.services import Usage

__all__ = ["Step", "Steps"]


class Step:
    """One entry of the log."""

    def __init__(
        self,
        steps: Steps,
        label: str,
        data: dict[str, Any],
        *,
        parent: Step | None = None,
        provider: str = "",
    ) -> None:
        self._steps = steps
        self._id = str(uuid.uuid4())
        self._label = label
        self._parent = parent
        self._provider = provider
        self._started = trio.current_time()
        self.data = data
        self._tell("start", {"started_at": self._started, "provider": provider})

    def step(self, label: str, data: dict[str, Any], provider: str = "") -> Step:
        """Begin a step within this one."""
        return Step(self._steps, label, data, parent=self, provider=provider)

    def update(self, **data: Any) -> None:
        """Tell what is known by now."""
        self.data = self.data | data
        self._tell("start", {"started_at": self._started, "provider": self._provider})

    def done(self, usage: Usage | None = None, **data: Any) -> None:
        """It ended well."""
        self.data = self.data | data
        self._end("success", None, usage)

    def failed(self, error: str, usage: Usage | None = None, **data: Any) -> None:
        self.data = self.data | data
        self._end("error", error, usage)

    def _end(
        self, status: Literal["success", "error"], error: str | None, usage: Usage | None
    ) -> None:
        now = trio.current_time()
        metadata = {
            "started_at": self._started,
            "finished_at": now,
            "elapsed_time": now - self._started,
            "provider": self._provider,
            "total_tokens": usage.total_tokens if usage else 0,
            "total_price": 0,
            "currency": "USD",
        }
        self._tell(status, metadata, error)

    def _tell(
        self,
        status: Literal["start", "success", "error"],
        metadata: dict[str, Any],
        error: str | None = None,
    ) -> None:
        self._steps.tell(
            _Log(
                id=self._id,
                label=self._label,
                status=status,
                parent_id=self._parent._id if self._parent else None,
                error=error,
                data=self.data,
                metadata=metadata,
            )
        )


class _Log(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    label: str
    status: Literal["start", "success", "error"]
    parent_id: str | None
    error: str | None
    data: dict[str, Any]
    metadata: dict[str, Any]


class Steps:
    """The log of one run of an agent."""

    def __init__(self, run: NodeRun) -> None:
        self._run = run
        self._logs: dict[str, _Log] = {}

    def round(self, number: int) -> Step:
        """Begin a round; `number` counts from 1."""
        return Step(self, f"ROUND {number}", {"position": number})

    def tell(self, log: _Log) -> None:
        """Put an entry, and keep it as the latest of its id."""
        self._logs[log.id] = log
        self._run.tell(
            AgentLog,
            id=log.id,
            label=log.label,
            status=log.status,
            parent_id=log.parent_id,
            error=log.error,
            data=log.data,
            metadata=log.metadata,
        )

    def latest(self, node_id: str) -> list[dict[str, Any]]:
        """All entries as they stand, in the order in which they began: part of `json`."""
        return [msgspec.structs.asdict(log) | {"node_id": node_id} for log in self._logs.values()]
