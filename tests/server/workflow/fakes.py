"""A run as one node sees it, and services that do what a test says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from server.workflow.app import App, GraphSpec, NodeSpec
from server.workflow.events import OfNode
from server.workflow.node import Inline, Node, Result, Run, Task, Work
from server.workflow.nodes import make_node
from server.workflow.services import Services, Usage
from server.workflow.values import Value
from server.workflow.variables import Selector, Variables


class Absent:
    """Stands for a service that a test does not give: using it fails by its name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        raise AssertionError(f"this test has no {self._name} (asked for {attribute!r})")


def services(**given: Any) -> Services:
    """The services that a test gives; all others are absent."""
    fields = Services.__struct_fields__
    return Services(**{name: given.get(name, Absent(name)) for name in fields})


def app(mode: Any = "workflow", **fields: Any) -> App:
    return App(**{"id": "app", "name": "app", "mode": mode, "graph": GraphSpec((), ())} | fields)


class FakeRun:
    """A `NodeRun` that keeps what the node did: `streamed`, `closed`, `told`, `written`."""

    def __init__(
        self,
        variables: Mapping[str, Mapping[str, Value]] | None = None,
        *,
        run: Run | None = None,
        **given: Any,
    ) -> None:
        self.id = "node-run"
        self.node_id = "node"
        self.variables = Variables()
        for node_id, outputs in (variables or {}).items():
            self.variables.add(node_id, outputs)
        self.run = run or Run(id="run", app=app(), services=services(**given))
        self.streamed: list[tuple[str, str]] = []
        self.closed: list[str] = []
        self.told: list[tuple[type[OfNode], dict[str, Any]]] = []
        self.written: list[tuple[tuple[str, ...], Value]] = []
        self.drained = 0
        self.slots_left = 0
        self.slots_taken: list[Work] = []
        self.spent = Usage()

    def stream(self, name: str, text: str) -> None:
        self.streamed.append((name, text))

    def close(self, name: str) -> None:
        self.closed.append(name)

    async def drain(self) -> None:
        self.drained += 1

    def leave_slot(self) -> None:
        self.slots_left += 1

    @asynccontextmanager
    async def in_slot(self, work: Work) -> AsyncIterator[FakeRun]:
        self.slots_taken.append(work)
        yield self

    def spend(self, usage: Usage) -> None:
        self.spent += usage

    def write(self, selector: Selector, value: Value) -> None:
        self.written.append((tuple(selector), value))
        self.variables.set(selector[0], selector[1], value)

    def tell(self, kind: type[OfNode], **fields: Any) -> None:
        self.told.append((kind, fields))


def node(type: str, data: dict[str, Any] | None = None, id: str = "node") -> Node:
    """A node of this type, compiled from its data."""
    return make_node(NodeSpec(id=id, type=type, title=type, data={"type": type} | (data or {})))


async def execute(node: Node, run: FakeRun) -> Result:
    """Run it as the engine would."""
    if isinstance(node, Inline):
        return node.evaluate(run)
    assert isinstance(node, Task)
    return await node.execute(run)
