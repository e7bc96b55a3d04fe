"""Agents inside runs: their text reaches the answer, and a stop ends all that they do."""

from __future__ import annotations

from typing import Any

import trio
import trio.testing

from server.knowledge.bases import KnowledgeBases
from server.workflow.capacity import Capacity, Load
from server.workflow.engine import Stop
from server.workflow.events import AgentLog, Chunk, NodeFinished
from server.workflow.node import Run
from server.workflow.services import ToolCall, ToolOutput
from tests.server.workflow.agents.tool_fakes import FakeTool, FakeTools
from tests.server.workflow.fakes import app, services
from tests.server.workflow.graphs import answer, go, graph
from tests.server.workflow.scripted_models import Says, ScriptedModels

AGENT: dict[str, Any] = {
    "type": "agent",
    "agent_strategy_name": "function_calling",
    "agent_parameters": {
        "model": {"type": "constant", "value": {"provider": "p", "model": "m"}},
        "tools": {"type": "constant", "value": [{"provider_name": "t", "tool_name": "now"}]},
        "query": {"type": "constant", "value": "{{#start.q#}}"},
        "context": {"type": "variable", "value": ["kb", "result"]},
        "instruction": {"type": "constant", "value": "Help."},
    },
}
KNOWLEDGE = {
    "type": "knowledge-retrieval",
    "query_variable_selector": ["start", "q"],
    "dataset_ids": ["pets"],
}
CALL = Says(tool_calls=(ToolCall("c", "now", '{"q": "x"}'),))


def a_run(models: ScriptedModels, tool: FakeTool) -> Run:
    bases = KnowledgeBases()
    bases.add("pets", "cats", "Cats purr.")
    given = services(models=models, tools=FakeTools(tool), knowledge=bases)
    return Run(id="run", app=app(), services=given)


async def test_knowledge_and_agent_in_a_chat() -> None:
    """The passages reach the model; its text is streamed between the answer's own words."""
    compiled = graph(
        {
            "start": {"type": "start", "variables": [{"variable": "q", "type": "paragraph"}]},
            "kb": KNOWLEDGE,
            "a": AGENT,
            "out": answer("<{{#a.text#}}>"),
        },
        "start > kb > a > out",
    )
    models = ScriptedModels(CALL, Says(pieces=["Cats ", "purr."]))
    result, sink = await go(
        compiled, {"q": "Do cats purr?"}, run=a_run(models, FakeTool("now", "12:00"))
    )
    assert (result.status, result.outputs["answer"]) == ("succeeded", "<Cats purr.>")
    assert [chunk.text for chunk in sink.of(Chunk)] == ["<", "Cats ", "purr.", ">"]
    assert "Cats purr." in models.calls[0].messages[0]["content"]
    assert {log.node_id for log in sink.of(AgentLog)} == {"a"}
    (finished,) = [one for one in sink.of(NodeFinished) if one.node_id == "a"]
    assert finished.metadata["total_tokens"] == 30
    assert finished.metadata["retriever_resources"][0]["document_name"] == "cats"


async def test_stop_ends_an_agent_at_its_tool() -> None:
    """The tool is cancelled, the run ends as stopped, and no task is left."""
    ended = trio.Event()

    async def hang(arguments: dict[str, Any]) -> ToolOutput:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()
        raise AssertionError

    compiled = graph({"a": AGENT, "out": answer("{{#a.text#}}")}, "start > a > out")
    stop = Stop()
    results = []

    async def run_it() -> None:
        run = a_run(ScriptedModels(CALL), FakeTool("now", hang))
        results.append((await go(compiled, run=run, stop=stop))[0])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_it)
        await trio.testing.wait_all_tasks_blocked()
        stop()
    assert ended.is_set()
    assert results[0].status == "stopped"


async def test_calls_of_tools_stand_in_slots(autojump_clock: trio.testing.MockClock) -> None:
    """Of the tier's `io`: with one slot, those of several runs come one after the other; models are
    called meanwhile, and all slots are given back."""
    inside, most = 0, 0

    async def look(arguments: dict[str, Any]) -> ToolOutput:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await trio.sleep(1)
        inside -= 1
        return ToolOutput(text="12:00")

    compiled = graph({"a": AGENT, "out": answer("{{#a.text#}}")}, "start > a > out")
    capacity = Capacity({("interactive", "io"): 1})

    async def run_it() -> None:
        models = ScriptedModels(CALL, Says(pieces=["ok"]))
        result, _ = await go(compiled, run=a_run(models, FakeTool("now", look)), capacity=capacity)
        assert result.status == "succeeded"

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(run_it)
    assert (most, trio.current_time()) == (1, 3)
    assert capacity.load()["interactive", "io"] == Load(slots=1, used=0, waiting=0)
