"""Running an app: inputs, cache, conversation, limits, other apps as tools."""

from __future__ import annotations

import threading
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from server.running.calls import AppCalls
from server.running.conversation import MOST_MESSAGES, Conversation
from server.running.runs import Running
from server.workflow.app import App, GraphSpec
from server.workflow.capacity import Capacity, Load
from server.workflow.engine import Stop
from server.workflow.events import Event, NodeFinished, RunFinished
from server.workflow.graph import Graph, compile_graph
from server.workflow.inputs import InputError
from server.workflow.limits import Limits
from server.workflow.node import NodeRun, Result, Run
from server.workflow.reading import GraphError
from server.workflow.services import ServiceFailed, ToolFailed, Usage
from server.workflow.values import File
from tests.server.running.exports import (
    Model,
    answer,
    app_of,
    chat,
    echo_workflow,
    end,
    export,
    llm,
    node,
    running,
    start,
    variable,
)
from tests.server.workflow.fakes import FakeRun, services
from tests.server.workflow.graphs import TYPES, Wait, go, graph


class Kept:
    """A sink that keeps its events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def put(self, event: Event) -> None:
        self.events.append(event)

    async def drain(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_a_workflow_gives_out_its_outputs() -> None:
    """Inputs that are not declared are dropped, and the events end with the run."""
    sink = Kept()
    result = await running().run_app(
        app_of(echo_workflow()), {"q": "hello", "other": 1}, sink=sink, run_id="r-1"
    )
    assert (result.status, result.outputs) == ("succeeded", {"result": "hello"})
    last = sink.events[-1]
    assert isinstance(last, RunFinished)
    assert last.run_id == "r-1"


async def test_inputs_that_are_not_taken_are_refused_before_anything_runs() -> None:
    """By the name of the input."""
    with pytest.raises(InputError, match="q is required in input form"):
        await running().run_app(app_of(echo_workflow()), {})


async def test_an_event_begins_a_run() -> None:
    """An app that begins with a trigger declares no inputs: its fields are those of the event."""
    event = node("event", "trigger-plugin", provider_id="a/chat", event_name="message")
    app = app_of(export(event, end(result=["event", "message", "text"])))
    result = await running().run_app(app, {"message": {"text": "hello"}})
    assert (result.status, result.outputs) == ("succeeded", {"result": "hello"})


async def test_a_graph_is_compiled_once() -> None:
    """By the digest of its app; an app without one is compiled each time."""
    made, app = running(), app_of(echo_workflow())
    assert made.graph_of(app) is made.graph_of(app_of(echo_workflow()))
    nameless = msgspec.structs.replace(app, digest="")
    assert made.graph_of(nameless) is not made.graph_of(nameless)


async def test_the_cache_of_graphs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was used longest ago goes first."""
    monkeypatch.setattr("server.running.runs._GRAPHS", 2)
    made, app = running(), app_of(echo_workflow())
    one, two, three = (msgspec.structs.replace(app, digest=digest) for digest in "abc")
    first, second = made.graph_of(one), made.graph_of(two)
    assert made.graph_of(one) is first
    made.graph_of(three)
    assert made.graph_of(one) is first
    assert made.graph_of(two) is not second


async def test_an_app_that_cannot_be_compiled_is_refused() -> None:
    """With the place."""
    app = App(id="a", name="a", mode="workflow", graph=GraphSpec((), ()))
    with pytest.raises(GraphError, match="no start node"):
        await running().run_app(app, {})


async def test_a_conversation_goes_on() -> None:
    """The second turn sees the first one, and its number."""
    model = Model(lambda call: f"answer to {call.messages[-1]['content']}")
    made, app, conversation = running(model), app_of(chat()), Conversation(id="c")
    await made.run_app(app, {}, query="one", conversation=conversation)
    assert conversation.history == (
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "answer to one "},
    )
    await made.run_app(app, {}, query="two", conversation=conversation)
    texts = [message["content"] for message in model.seen[1].messages]
    assert texts[-3:] == ["one", "answer to one ", "two"]
    assert conversation.turns == 2


async def test_conversation_variables_are_kept() -> None:
    """As the last run left them, and in sight of the next."""
    counter = {"name": "n", "value_type": "string", "value": "0"}
    text = export(
        start(), answer("{{#conversation.n#}}-{{#sys.dialogue_count#}}"), mode="advanced-chat",
        conversation_variables=[counter],
    )  # fmt: skip
    made, app, conversation = running(), app_of(text), Conversation(id="c")
    first = await made.run_app(app, {}, query="x", conversation=conversation)
    assert first.outputs["answer"] == "0-1"
    assert conversation.variables == {"n": "0"}
    conversation.variables = {"n": "7"}
    second = await made.run_app(app, {}, query="x", conversation=conversation)
    assert second.outputs["answer"] == "7-2"


ASSIGNED = node(
    "set", "assigner", version="2",
    items=[{"variable_selector": ["conversation", "n"], "operation": "set",
            "input_type": "constant", "value": "7"}],
)  # fmt: skip
NUMBER = {"name": "n", "value_type": "string", "value": "0"}


async def test_what_a_run_assigned_is_kept_however_it_ends() -> None:
    """It fails, is stopped or cut off after the assignment; nothing was said, but that holds."""
    model, made = Model(), running()
    text = export(start(), ASSIGNED, llm(), answer("x"), mode="advanced-chat",
                  conversation_variables=[NUMBER])  # fmt: skip
    app = app_of(text)

    def breaks(call: Any) -> str:
        raise ServiceFailed("no", "No")

    failing = Conversation(id="c")
    result = await running(Model(breaks)).run_app(app, {}, query="x", conversation=failing)
    assert (result.status, failing.variables, failing.turns) == ("failed", {"n": "7"}, 0)
    model.hangs = True
    made = running(model)
    for ends in ("stop", "cancel"):
        conversation, stop = Conversation(id="c"), Stop()
        async with trio.open_nursery() as nursery:

            async def turn(conversation: Conversation = conversation, stop: Stop = stop) -> None:
                await made.run_app(app, {}, query="x", conversation=conversation, stop=stop)

            nursery.start_soon(turn)
            await trio.testing.wait_all_tasks_blocked()
            stop() if ends == "stop" else nursery.cancel_scope.cancel()
        assert (conversation.variables, conversation.turns) == ({"n": "7"}, 0)


async def test_a_turn_that_failed_leaves_the_conversation_as_it_was() -> None:
    """Nobody said anything then."""

    def breaks(call: Any) -> str:
        raise RuntimeError("a bug")

    conversation = Conversation(id="c")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("server.workflow.frame._log.exception", lambda *_: None, raising=False)
        result = await running(Model(breaks)).run_app(
            app_of(chat()), {}, query="x", conversation=conversation
        )
    assert result.status == "failed"
    assert (conversation.turns, conversation.history) == (0, ())


def test_a_conversation_keeps_the_newest_messages() -> None:
    """A bounded number of them, in whole turns."""
    conversation = Conversation(id="c")
    for number in range(MOST_MESSAGES):
        conversation.said(f"q{number}", "a", {})
    assert len(conversation.history) == MOST_MESSAGES
    assert conversation.history[0]["role"] == "user"
    assert conversation.turns == MOST_MESSAGES


async def test_stop_ends_the_run_at_once() -> None:
    """The model's call is cancelled."""
    model, stop = Model(), Stop()
    model.hangs = True
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:

            async def press() -> None:
                await trio.testing.wait_all_tasks_blocked()
                stop()

            nursery.start_soon(press)
            app = app_of(chat())
            result = await running(model).run_app(app, {}, query="x", stop=stop)
    assert (result.status, model.gone) == ("stopped", 1)


async def test_uploaded_files_are_found_by_their_ids() -> None:
    """Of a file input as clients give it."""
    file = File(type="document", transfer_method="local_file", name="a.txt", related_id="f1")
    text = export(
        start(variable("doc", "file", allowed_file_types=["document"])),
        end(name=["start", "doc", "name"]),
    )
    found = {"f1": file}
    made = Running(services(), Capacity(), Limits(), upload=found.get)
    given = {"type": "document", "transfer_method": "local_file", "upload_file_id": "f1"}
    result = await made.run_app(app_of(text), {"doc": given})
    assert result.outputs == {"name": "a.txt"}


async def test_limits_are_those_it_was_made_with() -> None:
    """A run of three steps where two are allowed."""
    made = Running(services(models=Model()), Capacity(), Limits(steps=2))
    text = export(start(variable("q")), llm("{{#start.q#}}"), end(t=["llm", "text"]))
    result = await made.run_app(app_of(text), {"q": "x"})
    assert (result.status, result.error) == ("failed", "Maximum execution steps exceeded: 3 > 2")


# Apps as tools


def calls(*apps: App, limits: Limits = Limits()) -> AppCalls:  # noqa: B008
    made = AppCalls({app.name: app for app in apps}.get)
    made.running = Running(services(), Capacity(), limits)
    return made


def caller(depth: int = 0) -> FakeRun:
    above = app_of(echo_workflow())
    return FakeRun(run=Run(id="above", app=above, services=services(), user="u", depth=depth))


async def test_tokens_of_an_app_that_is_a_tool_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the node that called it and for its run, whether the app succeeded or not."""
    made = AppCalls({"test": app_of(echo_workflow())}.get)
    made.running = Running(services(), Capacity(), Limits())

    class Call(Wait):
        async def execute(self, run: NodeRun) -> Result:
            async with run.in_slot("io") as part:
                return Result(outputs=await made.run("test", {"q": "x"}, part), usage=Usage(1, 1))

    monkeypatch.setitem(TYPES, "call", Call)
    outer = graph({"c": {"type": "call"}}, "start > c")
    for fails, total in ((0, 5), (1, 3)):
        nodes = {"w": {"type": "wait", "usage": True}, "f": {"type": "wait", "fails": fails}}
        inner = graph(nodes, "start > w > f")
        monkeypatch.setattr(made.running, "graph_of", lambda app, inner=inner: inner)
        result, sink = await go(outer)
        assert result.usage.total_tokens == total
        assert sink.last.total_tokens == total
        [finished] = [one for one in sink.of(NodeFinished) if one.node_id == "c"]
        assert finished.metadata["total_tokens"] == total


async def test_an_app_runs_as_a_tool() -> None:
    """One level deeper, and gives its outputs."""
    made = calls(app_of(echo_workflow()))
    assert await made.run("test", {"q": "deep"}, caller()) == {"result": "deep"}


async def test_runs_that_call_runs_do_not_hold_the_slots_they_need(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tool of any type may be bound to a workflow, so its node stands in a slot; with as many
    callers as slots all get through, and all slots are back."""
    app = app_of(echo_workflow())
    inner = graph({"w": {"type": "wait", "s": 1}}, "start > w")
    capacity = Capacity({("interactive", "io"): 2}, share=1)
    made = AppCalls({"test": app}.get)
    made.running = Running(services(), capacity, Limits(time_s=60))
    monkeypatch.setattr(made.running, "graph_of", lambda app: inner)

    class Call(Wait):
        async def execute(self, run: NodeRun) -> Result:
            return Result(outputs=await made.run("test", {"q": "x"}, run))

    monkeypatch.setitem(TYPES, "call", Call)
    outer, ended = graph({"c": {"type": "call"}}, "start > c"), []

    async def one() -> None:
        result, _ = await go(outer, capacity=capacity, limits=Limits(time_s=60))
        ended.append(result.status)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(one)
    assert ended == ["succeeded"] * 3
    assert capacity.load()["interactive", "io"] == Load(slots=2, used=0, waiting=0)


async def test_an_app_that_asks_a_person_is_no_tool(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails at once: nobody would see the form, and the caller would wait for its limit."""
    made = calls(app_of(echo_workflow()))
    asking = graph({"p": {"type": "ask", "s": 100_000}}, "start > p")
    monkeypatch.setattr(made.running, "graph_of", lambda app: asking)
    with pytest.raises(ToolFailed, match="test: p asks a person"):
        await made.run("test", {"q": "x"}, caller())
    assert trio.current_time() < 1


async def test_a_large_graph_is_compiled_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, in a thread; a small one at once."""
    threads: list[bool] = []

    def compiling(*given: Any) -> Graph:
        threads.append(threading.current_thread() is threading.main_thread())
        return compile_graph(*given)

    monkeypatch.setattr("server.running.runs.compile_graph", compiling)
    ends = [node(f"e{number}", "end", outputs=[]) for number in range(101)]
    large = app_of(export(start(), *ends))
    made = running()
    for app in (large, large, app_of(echo_workflow())):
        await made.run_app(app, {"q": "x"} if app is not large else {})
    assert threads == [False, True]


@pytest.mark.parametrize(
    ("app_id", "inputs", "depth", "message"),
    [
        ("nobody", {}, 0, "there is no app 'nobody' here"),
        ("test", {}, 0, "test: q is required"),
        ("test", {"q": "x"}, 5, "Max workflow call depth 5 reached"),
    ],
)
async def test_an_app_that_cannot_run_as_a_tool_says_why(
    app_id: str, inputs: dict[str, Any], depth: int, message: str
) -> None:
    """As a failure of the tool."""
    with pytest.raises(ToolFailed, match=message):
        await calls(app_of(echo_workflow())).run(app_id, inputs, caller(depth))


async def test_without_a_folder_there_are_no_apps_to_call() -> None:
    """Nothing is looked up."""
    assert AppCalls().app("x") is None


@pytest.mark.parametrize(("depth", "passes"), [(6, True), (7, False)])
async def test_apps_call_one_another_as_deep_as_configured(depth: int, passes: bool) -> None:
    """And no deeper, in Dify's words."""
    made = calls(app_of(echo_workflow()), limits=Limits(depth=7))
    if passes:
        assert await made.run("test", {"q": "x"}, caller(depth)) == {"result": "x"}
    else:
        with pytest.raises(ToolFailed, match=r"^Max workflow call depth 7 reached\.$"):
            await made.run("test", {"q": "x"}, caller(depth))
