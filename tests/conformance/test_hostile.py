"""Graphs and values that would take all memory or all time: each run ends by a clear error, within
what a run may take, and without holding the loop for long."""

from __future__ import annotations

import gc
import json
import time
from typing import Any

import pytest
import trio
import trio.testing

from server.dify.dsl import DslError, read_app
from server.running.runs import Running
from server.workflow.app import App
from server.workflow.capacity import Capacity
from server.workflow.engine import RunResult
from server.workflow.events import Chunk
from server.workflow.inputs import InputError
from server.workflow.jinja import InProcessJinja
from server.workflow.limits import Limits
from server.workflow.node import NodeRun
from server.workflow.services import (
    ChatCall,
    Completion,
    ModelFacts,
    Receiver,
    ToolOutput,
    WebRequest,
    WebResponse,
)
from tests.e2e.workflows import graphs
from tests.server.running.exports import MODEL, node
from tests.server.workflow.fakes import services
from tests.server.workflow.graphs import Recorder, go, graph

MEGABYTE = "a" * 1_000_000
NAMED = "{{#start.q#}}" * 1_000
"""A gigabyte, once the variable is filled in."""

HOLD_S = 0.25
"""What no run may hold the loop for at once, in CPU time. Most take a tenth of it; the rest is for
a machine that is slow."""

MORE = "more than 8388608 characters"


class Longest(trio.abc.Instrument):
    """The longest step of any task, in CPU time."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._began = time.thread_time()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.longest_s = max(self.longest_s, time.thread_time() - self._began)


class World:
    """Models say `said`; pages and tools must not be asked."""

    def __init__(self, said: str = "") -> None:
        self.asked = 0
        self._said = said

    async def chat(
        self, call: ChatCall, run: NodeRun, receiver: Receiver | None = None
    ) -> Completion:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        if receiver is not None:
            receiver.text(self._said)
            await receiver.drain()
        return Completion(text=self._said)

    def facts(self, model: Any, run: NodeRun) -> ModelFacts:
        return ModelFacts()

    async def send(self, request: WebRequest) -> WebResponse:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        return WebResponse(status=200, headers=[], content=b"", url=request.url)

    name = "tool"
    description = ""
    schema: dict[str, Any] = {"type": "object", "properties": {}}  # noqa: RUF012

    async def find(self, tool: Any, run: NodeRun) -> World:
        await trio.lowlevel.checkpoint()
        return self

    async def call(self, *given: Any) -> ToolOutput:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        return ToolOutput(text="")


async def attacked(
    app: App, inputs: dict[str, Any], world: World, sink: Recorder | None = None, **limits: Any
) -> RunResult:
    """Run it, watching the loop."""
    running = Running(
        services(models=world, web=world, tools=world, jinja=InProcessJinja()),
        Capacity(),
        Limits(**limits),
    )
    running.graph_of(app)
    longest = Longest()
    # What thousands of tests have left behind is not to be looked through in the middle of it.
    gc.freeze()
    trio.lowlevel.add_instrument(longest)
    await trio.lowlevel.checkpoint()
    try:
        result = await running.run_app(app, inputs, sink=sink)
        await trio.lowlevel.checkpoint()
    finally:
        trio.lowlevel.remove_instrument(longest)
        gc.unfreeze()
    assert longest.longest_s < HOLD_S
    return result


_FORM = {"type": "form-data", "data": [
    {"key": f"k{number}", "type": "text", "value": "{{#start.q#}}"} for number in range(1000)
]}  # fmt: skip
_MESSAGES = [{"role": "user", "text": "{{#start.q#}}"}] * 1000

GROWING: dict[str, dict[str, Any]] = {
    "a prompt": graphs.llm(NAMED),
    "many messages": node("llm", "llm", model=MODEL, prompt_template=_MESSAGES),
    "a context": node(
        "llm", "llm", model=MODEL, context={"enabled": True, "variable_selector": ["start", "q"]},
        prompt_template=[{"role": "user", "text": "{{#context#}}" * 1000}],
    ),
    "an address": graphs.http(f"http://host.test/{NAMED}"),
    "parameters of an address": graphs.http("http://host.test/") | {},
    "a form": node(
        "http", "http-request", method="post", url="http://host.test/", headers="", params="",
        authorization={"type": "no-auth"}, body=_FORM,
    ),
    "an argument": graphs.tool("builtin", "p", "tool", text=NAMED),
    "many arguments": graphs.tool(
        "builtin", "p", "tool", **{f"k{number}": "{{#start.q#}}" for number in range(1000)}
    ),
    "an answer": node("answer", "answer", answer=NAMED),
}  # fmt: skip
GROWING["parameters of an address"]["data"]["params"] = "\n".join(["k:{{#start.q#}}"] * 1000)


@pytest.mark.parametrize("what", GROWING)
async def test_a_gigabyte_out_of_a_megabyte(what: str) -> None:
    """A text that names a long variable a thousand times is never made, and nobody is asked."""
    world = World()
    result = await attacked(graphs.app(graphs.row(GROWING[what])), {"q": MEGABYTE}, world)
    assert result.status == "failed"
    assert MORE in (result.error or "") or "showed more than" in (result.error or "")
    assert world.asked == 0


async def test_what_a_run_shows_is_limited() -> None:
    """Rounds that show a long text again and again: the client gets so much and no more."""
    rounds = graphs.around(
        "loop", node("answer", "answer", answer="{{#start.items.text#}}"), loop_count=400,
        break_conditions=[],
    )  # fmt: skip
    sink = Recorder()
    inputs = {"items": {"text": MEGABYTE}}
    result = await attacked(graphs.app(rounds), inputs, World(), sink)
    assert result.error == "The run showed more than 8388608 characters."
    assert sum(len(chunk.text) for chunk in sink.of(Chunk)) <= 8 * 1024 * 1024


async def test_a_large_object_in_a_prompt() -> None:
    """Made into text as often as there is room for it, in one go."""
    objects = [{"a": number} for number in range(5_000)]
    form = graphs.around(
        "loop", graphs.llm("{{#start.items#}}" * 1000), loop_count=3, break_conditions=[]
    )
    world = World("x")
    result = await attacked(graphs.app(form), {"items": {"list": objects}}, world)
    assert result.status == "failed"
    assert world.asked == 0


@pytest.mark.slow
def test_rounds_of_rounds_are_bounded() -> None:
    """A hundred rounds of a hundred at once: the steps of the run end it, and all are told."""
    nodes: dict[str, Any] = {
        "outer": _iteration("inner_start", 100),
        "inner": _iteration("work", 100) | {"parent": "outer"},
        "inner_start": {"parent": "outer"},
        "work": {"type": "wait", "s": 1, "parent": "inner"},
    }
    compiled = graph(nodes, "start > outer", "inner_start > inner")

    async def run(steps: int) -> RunResult:
        result, sink = await go(
            compiled, {"list": list(range(100))}, limits=Limits(steps=steps), capacity=Capacity()
        )
        began, ended = (sum(line[0] == sign for line in sink.trace) for sign in "+-")
        assert began == ended == result.steps
        return result

    clock = trio.testing.MockClock(autojump_threshold=0)
    assert (trio.run(run, 500, clock=clock)).error == "Maximum execution steps exceeded: 501 > 500"
    clock = trio.testing.MockClock(autojump_threshold=0)
    whole = trio.run(run, 20_000, clock=clock)
    assert whole.status == "succeeded"
    assert whole.steps == 2 + 100 + 100 + 100 * 100
    assert whole.elapsed_s == pytest.approx(-(-100 * 100 // 128))


def _iteration(begin: str, parallel: int) -> dict[str, Any]:
    return {
        "type": "iteration", "start_node_id": begin, "is_parallel": True,
        "parallel_nums": parallel, "iterator_selector": ["start", "list"],
        "output_selector": [begin, "text"],
    }  # fmt: skip


def _loop(count: int) -> str:
    inner = node("t", "template-transform", template="x", variables=[])
    return graphs.around("loop", inner, loop_count=count, break_conditions=[])


INPUTS: dict[str, Any] = {
    "very many numbers": {"list": [0] * 49_000},
    "very many texts": {"list": ["a"] * 49_000},
    "very many objects": {"list": [{"a": 1}] * 24_000},
    "a long text": {"text": "a" * 8_000_000},
}


@pytest.mark.parametrize("what", INPUTS)
async def test_large_inputs(what: str) -> None:
    """They are cleaned and weighed at a few milliseconds for a megabyte."""
    result = await attacked(graphs.app(_loop(10**9)), {"items": INPUTS[what]}, World())
    assert result.error == "Maximum execution steps exceeded: 501 > 500"


async def test_too_many_items() -> None:
    """Refused by name before anything runs; a million of them are not gone over."""
    many = {"items": {"list": [{"a": 1}] * 1_000_000}}
    with pytest.raises(InputError, match=r"items in input form .* more than"):
        await attacked(graphs.app(_loop(1)), many, World())


async def test_deep_inputs() -> None:
    """The same for what is nested deeply."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InputError, match="nested more than"):
        await attacked(graphs.app(_loop(1)), {"items": {"list": deep}}, World())


BOMBS = {
    "brackets": "[" * 300_000,
    "objects": '{"a":' * 100_000,
    "quotes": '{"a": "' + '"\\' * 200_000,
    "commas": "{" + ",:" * 200_000,
    "fences": "```json\n" * 50_000,
    "thoughts": "<think>" * 100_000,
    "a large number": "9" * 100_000,
    "escapes": '{"a": "' + "\\u" * 150_000,
}

_EXTRACTOR = node(
    "extractor", "parameter-extractor", model=MODEL, query=["start", "q"], reasoning_mode="prompt",
    parameters=[{"name": "n", "type": "array[object]", "required": True, "description": "d"}],
)  # fmt: skip
_SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}
_STRUCTURED = graphs.llm(
    "x", structured_output_enabled=True, structured_output={"schema": _SCHEMA},
    reasoning_format="separated",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("reader", ["extractor", "llm"])
async def test_bombs_of_models(bomb: str, reader: str) -> None:
    """What is no JSON is found out beside the loop."""
    asking = _EXTRACTOR if reader == "extractor" else _STRUCTURED
    began = trio.current_time()
    result = await attacked(graphs.app(graphs.row(asking)), {"q": "x"}, World(BOMBS[bomb]))
    assert trio.current_time() - began < 5
    assert result.status in ("failed", "succeeded")
    assert result.error != "internal error"


@pytest.mark.slow
def test_a_hundred_thousand_nodes_are_refused_at_once() -> None:
    """By the reader, before any is compiled."""
    data = {"type": "answer", "answer": "x"}
    nodes = [{"id": str(number), "data": data} for number in range(100_000)]
    found = {"graph": {"nodes": nodes, "edges": []}}
    text = json.dumps({"kind": "app", "app": {"mode": "workflow"}, "workflow": found})
    began = time.thread_time()
    with pytest.raises(DslError, match="nodes"):
        read_app(text)
    assert time.thread_time() - began < 5
