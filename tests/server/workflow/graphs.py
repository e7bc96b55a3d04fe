"""Graphs of nodes that do what a test says, and a sink that remembers."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar

import trio
import trio.testing

from server.workflow import engine
from server.workflow.app import App, EdgeSpec, GraphSpec, NodeSpec
from server.workflow.capacity import Capacity
from server.workflow.engine import RunResult
from server.workflow.events import (
    Chunk,
    ContainerFinished,
    Event,
    InputRequired,
    InputTaken,
    NodeFinished,
    OfNode,
    RoundStarted,
    RunFinished,
)
from server.workflow.graph import Graph, compile_graph
from server.workflow.limits import Limits
from server.workflow.node import Inline, Node, NodeError, NodeRun, Result, Run, Task, Work
from server.workflow.nodes import make_node
from server.workflow.reading import Reader
from server.workflow.services import Usage
from server.workflow.variables import MISSING, Selector
from tests.server.workflow.fakes import app, services


class Say(Inline):
    """Gives out `out`; `copy` names variables that it reads. `takes` is how long it computes."""

    type: ClassVar[str] = "say"

    def read(self, data: Reader) -> None:
        self.out: dict[str, Any] = data.value("out", {})
        self.copy: dict[str, list[str]] = data.value("copy", {})

    def evaluate(self, run: NodeRun) -> Result:
        if "takes" in self.spec.data:
            clock = trio.lowlevel.current_clock()
            assert isinstance(clock, trio.testing.MockClock)
            clock.jump(self.spec.data["takes"])
        copied = {name: run.variables.get(where) for name, where in self.copy.items()}
        for name, value in copied.items():
            copied[name] = "MISSING" if value is MISSING else value
        return Result(outputs=self.out | copied)


class Raise(Task):
    """Raises what its data give."""

    type: ClassVar[str] = "raise"

    async def execute(self, run: NodeRun) -> Result:
        await trio.lowlevel.checkpoint()
        raise self.spec.data["error"]


class Pick(Inline):
    """A branch: follows the handle `pick`, or the one that a variable names."""

    type: ClassVar[str] = "pick"
    branches: ClassVar[bool] = True

    def evaluate(self, run: NodeRun) -> Result:
        data = self.spec.data
        handle = run.variables.get(data["by"]) if "by" in data else data["pick"]
        return Result(handle=handle, outputs={"picked": handle})


class Boom(Inline):
    """Fails; with `bug`, by an exception of ours."""

    type: ClassVar[str] = "boom"

    def evaluate(self, run: NodeRun) -> Result:
        if self.spec.data.get("bug"):
            raise ZeroDivisionError("a bug")
        raise NodeError("boom", "BoomError", inputs={"in": 1})


class Put(Inline):
    """Sets variables at once (an assigner): `set` maps "node.name" to a value, `add` to a number
    that is added."""

    type: ClassVar[str] = "put"

    def read(self, data: Reader) -> None:
        self.set: dict[str, Any] = data.value("set", {})
        self.add: dict[str, Any] = data.value("add", {})

    def evaluate(self, run: NodeRun) -> Result:
        for selector, value in self.set.items():
            copied = run.variables.get(value) if isinstance(value, list) else value
            run.write(selector.split("."), copied)
        for selector, value in self.add.items():
            where = selector.split(".")
            run.write(where, run.variables.get(where) + value)
        return Result()

    def writes(self) -> list[Selector]:
        return [selector.split(".") for selector in (*self.set, *self.add)]


class Wait(Task):
    """Waits `s` seconds, streams `pieces` (each after `gap` seconds), gives out `out`. It fails the
    first `fails` times; `seen` counts its tries, `inside` those that are in it now."""

    type: ClassVar[str] = "wait"
    work: ClassVar[Work] = "io"
    retries: ClassVar[bool] = True
    tries: ClassVar[dict[str, int]] = {}

    def read(self, data: Reader) -> None:
        self.fails = data.whole("fails", 0)
        self.pieces: list[str] = data.items("pieces")

    def streams(self) -> list[str]:
        return ["text"]

    async def execute(self, run: NodeRun) -> Result:
        data = self.spec.data
        count = Wait.tries[self.id] = Wait.tries.get(self.id, 0) + 1
        seconds = data.get("s", 0)
        if isinstance(seconds, list):
            seconds = run.variables.get(seconds)
        await trio.sleep(seconds)
        for piece in self.pieces:
            run.stream("text", piece)
            await run.drain()
            await trio.sleep(data.get("gap", 0))
        if count <= self.fails:
            raise NodeError(f"try {count} failed", "WaitError")
        out = {"text": "".join(self.pieces)} if self.pieces else {}
        usage = Usage(prompt_tokens=1, completion_tokens=2) if data.get("usage") else None
        return Result(outputs=out | data.get("out", {}), usage=usage)


class Soon(Task):
    """Gives out how it was run: "at once", or "later" where `wait` is set."""

    type: ClassVar[str] = "soon"
    work: ClassVar[Work] = "cpu"
    retries: ClassVar[bool] = True

    def at_once(self, run: NodeRun) -> Result | None:
        if self.spec.data.get("fails"):
            raise NodeError("no")
        return None if self.spec.data.get("wait") else Result(outputs={"x": "at once"})

    async def execute(self, run: NodeRun) -> Result:
        await trio.sleep(1)
        return Result(outputs={"x": "later"})


class FailIf(Task):
    """Waits, and fails where the item is what `bad` says."""

    type: ClassVar[str] = "fail-if"
    work: ClassVar[Work] = "model"

    async def execute(self, run: NodeRun) -> Result:
        item = run.variables.get(self.spec.data["item"])
        await trio.sleep(self.spec.data.get("s", 0))
        if item == self.spec.data["bad"]:
            raise NodeError(f"{item} is bad", "BadItem")
        return Result(outputs={"text": item})


class Ask(Task):
    """Asks a person, who answers after `s` seconds."""

    type: ClassVar[str] = "ask"
    work: ClassVar[Work] = "people"
    branches: ClassVar[bool] = True

    async def execute(self, run: NodeRun) -> Result:
        run.tell(InputRequired, token="t", form={}, expires_at=0.0)
        await trio.sleep(self.spec.data.get("s", 1))
        if self.spec.data.get("breaks"):
            raise NodeError("gone", "Gone")
        run.tell(InputTaken, token="t", action="yes", values={})
        return Result(handle="yes")


TYPES: dict[str, type[Node]] = {
    each.type: each for each in (Say, Raise, Pick, Boom, Put, Wait, Soon, FailIf, Ask)
}


def make(spec: NodeSpec) -> Node:
    found = TYPES.get(spec.type)
    return found(spec) if found else make_node(spec)


def spec(nodes: Mapping[str, Mapping[str, Any]], *edges: str) -> GraphSpec:
    """Nodes by id, with `type` (default "say") and perhaps `parent`; "start" is there by itself.
    Edges are chains: "start > pick:yes > end"."""
    specs = [] if "start" in nodes else [NodeSpec(id="start", type="start", title="start")]
    for id, data in nodes.items():
        kind, parent = data.get("type", "say"), data.get("parent")
        specs.append(
            NodeSpec(id=id, type=kind, title=id, data=dict(data), parent=parent, place=f"at.{id}")
        )
    found: list[EdgeSpec] = []
    for chain in edges:
        ends = [part.strip() for part in chain.split(">")]
        for source, target in pairwise(ends):
            name, _, handle = source.partition(":")
            found.append(EdgeSpec(name, target.partition(":")[0], handle or "source"))
    return GraphSpec(tuple(specs), tuple(found))


def graph(nodes: Mapping[str, Mapping[str, Any]], *edges: str) -> Graph:
    Wait.tries.clear()
    return compile_graph(spec(nodes, *edges), "workflow", make)


def answer(text: str, **data: Any) -> dict[str, Any]:
    return {"type": "answer", "answer": text, **data}


def end(**outputs: str) -> dict[str, Any]:
    """An end node that gives out each name from "node.name"."""
    return {
        "type": "end",
        "outputs": [
            {"variable": name, "value_selector": where.split(".")}
            for name, where in outputs.items()
        ],
    }


class Recorder:
    """A sink that keeps all events."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.drained = 0

    def put(self, event: Event) -> None:
        self.events.append(event)

    async def drain(self) -> None:
        self.drained += 1

    @property
    def text(self) -> str:
        """All that was shown, in order."""
        return "".join(event.text for event in self.events if isinstance(event, Chunk))

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def last(self) -> RunFinished:
        assert isinstance(self.events[-1], RunFinished)
        assert len(self.of(RunFinished)) == 1
        return self.events[-1]

    @property
    def trace(self) -> list[str]:
        """Each event in a few letters: "+a", "-a", "-a!failed", "a'text'", "a#0"."""
        return [_short(event) for event in self.events]

    @property
    def order(self) -> str:
        return " ".join(self.trace)


def _short(event: Event) -> str:
    kind = event.__struct_config__.tag
    if not isinstance(event, OfNode):
        return str(kind)
    where = "".join(f"{index}/" for _, index in event.within) + event.node_id
    match event:
        case Chunk():
            return f"{where}{event.text!r}"
        case NodeFinished():
            return f"-{where}" + ("" if event.status == "succeeded" else f"!{event.status}")
        case RoundStarted():
            return f"{where}#{event.index}"
        case ContainerFinished():
            return f"{where}]" + ("" if event.status == "succeeded" else f"!{event.status}")
    return {"node_started": f"+{where}", "container_started": f"{where}["}.get(
        str(kind), f"{where}~{kind}"
    )


def new_run(**fields: Any) -> Run:
    given: App = fields.pop("app", None) or app()
    return Run(id="run", app=given, services=services(), **fields)


async def go(
    compiled: Graph,
    inputs: dict[str, Any] | None = None,
    *,
    sink: Recorder | None = None,
    run: Run | None = None,
    **given: Any,
) -> tuple[RunResult, Recorder]:
    """Run it; its result and what it told."""
    sink = sink or Recorder()
    given.setdefault("capacity", Capacity())
    given.setdefault("limits", Limits())
    result = await engine.run(compiled, run or new_run(), inputs or {}, sink, **given)
    assert sink.last.status == result.status
    return result, sink
