"""What a node is to the engine, and what the engine is to a node.

A node is compiled once from its export and shared by all runs: it holds no state of a run. Nodes
that only compute are `Inline`: the engine calls them as functions. The others are coroutines in a
task of the run's nursery, inside the limiter of their kind of work; cancelling the run cancels
them, and what they hold they release on the way out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

import msgspec

from server.workflow.app import App, NodeSpec
from server.workflow.events import OfNode
from server.workflow.reading import GraphError, Reader
from server.workflow.services import Message, Services, Usage
from server.workflow.template import Segment
from server.workflow.values import Value
from server.workflow.variables import Selector, Variables

__all__ = [
    "FAIL_BRANCH",
    "SOURCE",
    "GraphError",
    "Inline",
    "Node",
    "NodeError",
    "NodeRun",
    "Result",
    "Run",
    "Task",
    "Work",
]

SOURCE = "source"
"""The handle of nodes that do not branch."""

FAIL_BRANCH = "fail-branch"
"""The handle that a failure follows where `error_strategy` says so."""

Work: TypeAlias = Literal["none", "model", "io", "cpu", "people"]
"""The limiter that a node's task stands in. "none": containers, whose nodes have their own.
"people": no limiter; a run in which all that goes on is such nodes is paused."""


class NodeError(Exception):
    """A node failed. Its message reaches the client and, by `fail-branch`, the workflow; `type` is
    what Dify calls `error_type`, such as "HTTPResponseCodeError"."""

    def __init__(
        self,
        message: str,
        type: str = "NodeError",
        *,
        inputs: dict[str, Value] | None = None,
        process_data: dict[str, Value] | None = None,
        outputs: dict[str, Value] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.type = type
        self.inputs = inputs or {}
        self.process_data = process_data or {}
        self.outputs = outputs or {}


class Result(msgspec.Struct, kw_only=True):
    """What a node gave out. `handle` chooses the edges of a branch."""

    outputs: dict[str, Value] = {}
    inputs: dict[str, Value] = {}
    process_data: dict[str, Value] = {}
    metadata: dict[str, Value] = {}
    handle: str = SOURCE
    usage: Usage | None = None
    shown: dict[str, Value] | None = None
    """The outputs that clients see, if others than the variables."""


class Run(msgspec.Struct, kw_only=True):
    """What is the same for all nodes of one run."""

    id: str
    app: App
    services: Services
    user: str = ""
    conversation_id: str = ""
    query: str = ""
    history: tuple[Message, ...] = ()
    """The conversation so far, oldest first; user and assistant messages in turn."""
    tier: str = "interactive"
    deadline: float | None = None
    """Of `trio.current_time`, for admission; None if there is none."""
    depth: int = 0
    """How many workflows called one another to get here."""
    started_at: float = 0.0
    """Unix time, in seconds."""


class NodeRun(Protocol):
    """One run of one node, as the node sees it."""

    @property
    def id(self) -> str:
        """Of this execution: unique, and the same over its retries."""

    @property
    def node_id(self) -> str:
        """Of the node, as the export has it."""

    @property
    def variables(self) -> Variables:
        """Those in sight: inside an iteration, the round's layer."""

    @property
    def run(self) -> Run: ...

    def stream(self, name: str, text: str) -> None:
        """A piece of the output `name`, for the answer that shows it. Synchronous; never lost."""

    def close(self, name: str) -> None:
        """The stream of `name` is whole. The engine closes what a node left open."""

    async def drain(self) -> None:
        """Wait until who reads the run can take more. A node that streams awaits it after each
        batch of `stream`: it is what a slow client slows down, down to the replica."""

    def leave_slot(self) -> None:
        """Give the slot of its kind of work back now, once, if it holds one: before it waits for
        nodes of another run, which may need that very slot. Synchronous."""

    def in_slot(self, work: Work) -> AbstractAsyncContextManager[NodeRun]:
        """A slot of this kind of work, waited for, around a part of what a node does that holds
        none itself, such as an agent's call of a tool. What is entered is the run to hand on: its
        `leave_slot` gives this slot back."""

    def spend(self, usage: Usage) -> None:
        """Count tokens that a run of another app used for this node, however it ended."""

    def write(self, selector: Selector, value: Value) -> None:
        """Set a conversation variable or a loop variable at once (assigner)."""

    def tell(self, kind: type[OfNode], **fields: Any) -> None:
        """Put an event of this node, such as `AgentLog`; the engine fills in whose it is."""


class Node:
    """The base of all nodes. `__init__` reads the export's data once; a wrong one is a GraphError
    that names its place."""

    type: ClassVar[str]
    """As exports name it, such as "if-else"."""
    work: ClassVar[Work] = "none"
    branches: ClassVar[bool] = False
    """Whether its outgoing edges are chosen by its result."""
    retries: ClassVar[bool] = False
    """Whether `retry_config` counts: for llm, code, http-request and tool, as in Dify."""

    shows: Sequence[Segment] | None = None
    """The text that clients read while the run goes on, for nodes that make up its answer: an
    answer's template, an end node's selectors with a line break between them. Outputs of the run
    are what such nodes gave out."""

    def __init__(self, spec: NodeSpec) -> None:
        self.id = spec.id
        self.title = spec.title
        self.spec = spec
        self.read(Reader(spec.data, f"{spec.place}.data" if spec.place else spec.id))

    def read(self, data: Reader) -> None:
        """Take what the node needs out of its data. Raises `GraphError`."""

    def reads(self) -> Iterable[Selector]:
        """The variables that it uses, for the import's report; not of its children."""
        return ()

    def streams(self) -> Iterable[str]:
        """The outputs that it may stream."""
        return ()

    def writes(self) -> Iterable[Selector]:
        """The variables of other nodes that it sets (assigner)."""
        return ()


class Inline(Node):
    """A node that only computes, in well under a millisecond."""

    def evaluate(self, run: NodeRun) -> Result:
        """Raises `NodeError`."""
        raise NotImplementedError


class Task(Node):
    """A node that waits for something."""

    def at_once(self, run: NodeRun) -> Result | None:
        """The result if it can be had as an `Inline` node's: without waiting, in well under 10 ms.
        None says that `execute` must be awaited. Raises `NodeError`."""
        return None

    async def execute(self, run: NodeRun) -> Result:
        """Raises `NodeError`. Every wait in it can be cancelled."""
        raise NotImplementedError
