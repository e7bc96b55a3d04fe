"""What a run tells while it goes on. Each event is made once and written once.

They hold what the engine knows, by its own names; `server.dify` and the APIs translate. Times are
Unix seconds, durations seconds. The dicts are those of the run: read them, never change them.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol, TypeAlias

import msgspec

from server.workflow.values import Value

__all__ = [
    "AgentLog",
    "Chunk",
    "ContainerFinished",
    "ContainerStarted",
    "Event",
    "InputRequired",
    "InputTaken",
    "NodeFinished",
    "NodeRetried",
    "NodeStarted",
    "NodeStatus",
    "OfNode",
    "ReasoningChunk",
    "RoundStarted",
    "RunFinished",
    "RunPaused",
    "RunResumed",
    "RunStarted",
    "RunStatus",
    "Sink",
    "VariableSet",
]

RunStatus: TypeAlias = Literal["succeeded", "failed", "stopped", "partial-succeeded"]
NodeStatus: TypeAlias = Literal["succeeded", "failed", "exception", "stopped"]


class Event(msgspec.Struct, kw_only=True, tag_field="event"):
    """The base of all; JSON names them in the field `event`."""


class RunStarted(Event, kw_only=True, tag="run_started"):
    run_id: str
    inputs: dict[str, Value]
    at: float


class RunFinished(Event, kw_only=True, tag="run_finished"):
    """The last event of every run, whatever became of it."""

    run_id: str
    status: RunStatus
    outputs: dict[str, Value]
    error: str | None
    elapsed_s: float
    total_tokens: int
    total_steps: int
    exceptions_count: int
    at: float


class RunPaused(Event, kw_only=True, tag="run_paused"):
    """Nothing can go on before somebody answers; `reasons` names the nodes that wait."""

    run_id: str
    node_ids: tuple[str, ...]
    at: float


class RunResumed(Event, kw_only=True, tag="run_resumed"):
    run_id: str
    at: float


class OfNode(Event, kw_only=True):
    """What belongs to one run of one node. `node_run_id` is this execution's; `within` names the
    containers around it with their rounds, outermost first: (("iteration_1", 0),)."""

    node_run_id: str
    node_id: str
    node_type: str
    title: str
    within: tuple[tuple[str, int], ...] = ()


class NodeStarted(OfNode, kw_only=True, tag="node_started"):
    index: int
    """Which of the run's node runs it is, from 1."""
    predecessor_id: str | None
    at: float


class NodeFinished(OfNode, kw_only=True, tag="node_finished"):
    index: int
    predecessor_id: str | None
    status: NodeStatus
    inputs: dict[str, Value]
    process_data: dict[str, Value]
    outputs: dict[str, Value]
    error: str | None
    error_type: str | None
    handle: str
    elapsed_s: float
    metadata: dict[str, Value]
    """total_tokens, total_price, currency, and what the node adds; queued_s, if it waited for a
    slot for more than a millisecond."""
    started_at: float
    at: float


class NodeRetried(OfNode, kw_only=True, tag="node_retried"):
    """A try failed and there will be another."""

    retry_index: int
    """From 1."""
    error: str
    error_type: str
    elapsed_s: float
    at: float


class Chunk(OfNode, kw_only=True, tag="chunk"):
    """A piece of an answer (or of what an end node shows), in the order in which it is to be read.

    `selector` names where it comes from: (node, "text"), or (answer's id, "answer") for its own
    text; `answer_id` is the answer or end node whose text it belongs to.
    """

    selector: tuple[str, ...]
    text: str
    answer_id: str


class ReasoningChunk(OfNode, kw_only=True, tag="reasoning_chunk"):
    text: str
    final: bool = False


class ContainerStarted(OfNode, kw_only=True, tag="container_started"):
    """An iteration or a loop begins; its NodeStarted came before."""

    inputs: dict[str, Value]
    length: int
    """Rounds of an iteration, at most of a loop."""
    at: float


class RoundStarted(OfNode, kw_only=True, tag="round_started"):
    index: int
    at: float


class ContainerFinished(OfNode, kw_only=True, tag="container_finished"):
    """Its NodeFinished follows."""

    status: NodeStatus
    outputs: dict[str, Value]
    error: str | None
    steps: int
    elapsed_s: float
    metadata: dict[str, Value]
    inputs: dict[str, Value]
    started_at: float
    at: float


class VariableSet(OfNode, kw_only=True, tag="variable_set"):
    """A conversation variable has a new value, to be kept with the conversation."""

    selector: tuple[str, ...]
    value: Value


class AgentLog(OfNode, kw_only=True, tag="agent_log"):
    """A step of an agent: a round, a thought, a call of a tool. Sent again under the same id as it
    goes on."""

    id: str
    label: str
    status: Literal["start", "success", "error"]
    parent_id: str | None = None
    error: str | None = None
    data: dict[str, Any] = {}
    metadata: dict[str, Any] = {}


class InputRequired(OfNode, kw_only=True, tag="input_required"):
    """A person is asked. `token` is what the answer is sent with."""

    token: str
    form: dict[str, Any]
    expires_at: float


class InputTaken(OfNode, kw_only=True, tag="input_taken"):
    """They answered, or did not in time (`action` is "__timeout")."""

    token: str
    action: str
    values: dict[str, Value]


class Sink(Protocol):
    """Who reads a run. Neither method may raise: an exception (a cancellation is none) is logged
    and ends the run as "stopped", and of its events only `RunFinished` is put after it."""

    def put(self, event: Event) -> None:
        """Take an event. Synchronous, so that nothing is lost or out of order."""

    async def drain(self) -> None:
        """Return when more can be taken. Cancellable; may write out what was put."""
