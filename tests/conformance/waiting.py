"""A graph for each kind of node that waits, and a world in which every service waits some times.

`World.inside` names the calls that go on: after a run, whatever became of it, there is none.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio
import yaml

from server.workflow.app import App, ModelRef, ToolRef
from server.workflow.events import Event, InputRequired
from server.workflow.forms import FormBook
from server.workflow.jinja import InProcessJinja, TieredJinja
from server.workflow.node import NodeRun
from server.workflow.services import (
    ChatCall,
    Completion,
    ModelFacts,
    Passage,
    Query,
    Receiver,
    Services,
    Tool,
    ToolCall,
    ToolFailed,
    ToolOutput,
    Usage,
    WebRequest,
    WebResponse,
)
from server.workflow.values import File
from tests.conformance.scripted import text_of
from tests.server.running.exports import (
    MODEL,
    answer,
    app_of,
    end,
    export,
    llm,
    node,
    start,
    variable,
)

__all__ = ["INPUTS", "KINDS", "Client", "World", "app_for"]


class World:
    """All services."""

    def __init__(self) -> None:
        self.inside: Counter[str] = Counter()
        self.calls = 0
        self.forms = FormBook()

    @contextmanager
    def within(self, what: str) -> Iterator[None]:
        self.calls += 1
        self.inside[what] += 1
        try:
            yield
        finally:
            self.inside[what] -= 1
            if not self.inside[what]:
                del self.inside[what]

    async def wait(self, what: str, times: int = 3) -> None:
        with self.within(what):
            for _ in range(times):
                await trio.sleep(1)

    @property
    def services(self) -> Services:
        return Services(
            models=_Models(self),
            web=_Web(self),
            code=_Code(self),
            jinja=TieredJinja(InProcessJinja(), _Renderer(self)),
            documents=_Documents(self),
            files=_Files(self),
            tools=_Tools(self),
            knowledge=_Knowledge(self),
            forms=self.forms,
        )


class _Part:
    def __init__(self, world: World) -> None:
        self._world = world


class _Models(_Part):
    def facts(self, model: ModelRef, run: NodeRun) -> ModelFacts:
        return ModelFacts(context_tokens=8_000)

    async def chat(
        self, call: ChatCall, run: NodeRun, receiver: Receiver | None = None
    ) -> Completion:
        with self._world.within("model"):
            for _ in range(3):
                await trio.sleep(1)
            wants_tool = call.tools and not any(one["role"] == "tool" for one in call.messages)
            if wants_tool and "agent" in run.node_id:
                name = call.tools[0]["function"]["name"]
                return Completion(tool_calls=(ToolCall("c", name, "{}"),), usage=Usage(1, 1))
            text = _said(call, run)
            for piece in (text[:5], text[5:]) if receiver is not None else ():
                assert receiver is not None
                receiver.text(piece)
                await receiver.drain()
                await trio.sleep(1)
        return Completion(text=text, finish_reason="stop", usage=Usage(3, 4))


def _said(call: ChatCall, run: NodeRun) -> str:
    asked = "\n".join(text_of(one["content"]) for one in call.messages if one.get("content"))
    if run.node_id == "classifier":
        return json.dumps({"category_id": "1", "category_name": "one"})
    if run.node_id == "extractor":
        return json.dumps({"name": "x"})
    if run.node_id == "knowledge":
        return json.dumps({"conditions": []})
    if run.node_id == "react_agent" and "Observation: found" not in asked:
        return 'Thought: look\nAction: {"action": "look", "action_input": {}}'
    if run.node_id == "react_agent":
        return 'Thought: done\nAction: {"action": "Final Answer", "action_input": "yes"}'
    return "<think>so</think>an answer in some words"


class _Web(_Part):
    async def send(self, request: WebRequest) -> WebResponse:
        await self._world.wait("web")
        kind = "image/png" if request.url.endswith(".png") else "text/plain"
        return WebResponse(
            status=200, headers=[("content-type", kind)], content=b"page", url=request.url
        )


class _Code(_Part):
    async def run(self, language: str, source: str, arguments: dict[str, Any]) -> Any:
        await self._world.wait("code")
        return {"result": "made"}


class _Renderer(_Part):
    async def render(self, source: str, values: dict[str, Any]) -> str:
        await self._world.wait("template")
        return "rendered"


class _Documents(_Part):
    async def text_of(self, content: bytes, name: str, mime_type: str | None) -> str:
        await self._world.wait("document")
        return "text"


class _Files(_Part):
    async def read(self, file: File, most_bytes: int) -> bytes:
        await self._world.wait("file", 1)
        return b"content"

    def keep(self, content: bytes, *, name: str, mime_type: str) -> File:
        return File(type="image", transfer_method="tool_file", name=name, related_id="kept")


class _Tool(_Part):
    description = "looks"
    schema: dict[str, Any] = {"type": "object", "properties": {}}  # noqa: RUF012

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world)
        self.name = name

    async def call(
        self, arguments: dict[str, Any], settings: dict[str, Any], run: NodeRun
    ) -> ToolOutput:
        await self._world.wait("tool")
        if self.name == "broken":
            raise ToolFailed("it is broken", "ToolInvokeError")
        return ToolOutput(text="found")


class _Tools(_Part):
    async def find(self, tool: ToolRef, run: NodeRun) -> _Tool:
        await self._world.wait("finding", 1)
        return _Tool(self._world, tool.name)

    async def all_of(self, provider: ToolRef, run: NodeRun) -> list[Tool]:
        return [await self.find(provider, run)]

    async def mcp_tools(self, servers: Any, run: NodeRun, *, trusted: bool = False) -> list[Tool]:
        return []


class _Knowledge(_Part):
    async def retrieve(self, query: Query, run: NodeRun) -> list[Passage]:
        await self._world.wait("knowledge")
        return [Passage(content="a passage", score=1.0, dataset_id="base")]

    async def fields(self, dataset_ids: Any, run: NodeRun) -> dict[str, str]:
        await self._world.wait("fields", 1)
        return {"year": "2020"}


class Client:
    """Reads slowly, and answers whatever form it is shown after a while."""

    def __init__(self, world: World, nursery: trio.Nursery) -> None:
        self.events: list[Event] = []
        self._world = world
        self._nursery = nursery
        self.answering = 0
        """Tasks of its own that are left."""

    def put(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, InputRequired):
            self.answering += 1
            self._nursery.start_soon(self._answer, event.token)

    async def drain(self) -> None:
        await trio.sleep(0.1)

    async def _answer(self, token: str) -> None:
        try:
            await trio.sleep(5)
            if len(self._world.forms):
                form = self._world.forms.form(token)
                values = {each["output_variable_name"]: "x" for each in form.inputs}
                self._world.forms.submit(token, form.actions[0]["id"], values)
        finally:
            self.answering -= 1

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


# The graphs

_FILE = {"variable": "f", "label": "f", "type": "file", "required": False}
_RETRY = {"retry_enabled": True, "max_retries": 2, "retry_interval": 700}


def _tool(name: str, tool: str, **more: Any) -> dict[str, Any]:
    return node(
        name, "tool", provider_id="p", provider_type="builtin", tool_name=tool,
        tool_parameters={}, tool_configurations={}, **more,
    )  # fmt: skip


def _http(name: str, **more: Any) -> dict[str, Any]:
    return node(
        name, "http-request", method="get", url="http://host.test/a.txt", headers="", params="",
        authorization={"type": "no-auth"}, body={"type": "none", "data": []}, **more,
    )  # fmt: skip


def _agent(name: str, strategy: str) -> dict[str, Any]:
    tools = [{"provider_name": "p", "tool_name": "look", "type": "builtin", "enabled": True}]
    given = {"model": MODEL, "query": "q", "instruction": "i", "tools": tools}
    parameters = {key: {"type": "constant", "value": value} for key, value in given.items()}
    return node(name, "agent", agent_strategy_name=strategy, agent_parameters=parameters)


def _inside(container: str, *inner: dict[str, Any]) -> list[dict[str, Any]]:
    for one in inner:
        one["parentId"] = container
    return list(inner)


_COSTLY = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}"
_START = start(variable("q"), _FILE)


def _row(*nodes: dict[str, Any], out: list[str] | None = None) -> str:
    outs = {"out": out} if out else {}
    return export(_START, *nodes, end(**outs))


def _iteration(parallel: bool) -> str:
    container = node(
        "it", "iteration", start_node_id="begin", is_parallel=parallel, parallel_nums=2,
        iterator_selector=["start", "items"], output_selector=["inner", "body"],
    )  # fmt: skip
    inner = _inside("it", node("begin", "iteration-start"), _http("inner"))
    return _nested(container, inner)


def _loop() -> str:
    container = node("lo", "loop", start_node_id="begin", loop_count=3, break_conditions=[])
    return _nested(container, _inside("lo", node("begin", "loop-start"), _http("inner")))


def _nested(container: dict[str, Any], inner: list[dict[str, Any]]) -> str:
    text = export(start(variable("items", "json_object")), container, end())
    found = yaml.safe_load(text)
    graph = found["workflow"]["graph"]
    graph["nodes"] += inner
    graph["edges"].append({"source": "begin", "target": "inner", "sourceHandle": "source"})
    made: str = yaml.safe_dump(found)
    return made


def _parallel() -> str:
    """Several that wait at once, joined: the first failure cancels the others."""
    found = yaml.safe_load(
        export(
            _START, llm("{{#start.q#}}"), end(a=["llm", "text"], b=["web", "body"], c=["form", "x"])
        )
    )
    graph = found["workflow"]["graph"]
    graph["nodes"] += [_http("web"), _FORM, _tool("look", "look")]
    for one, handle in (("web", "source"), ("form", "go"), ("look", "source")):
        graph["edges"].append({"source": "start", "target": one, "sourceHandle": "source"})
        graph["edges"].append({"source": one, "target": "end", "sourceHandle": handle})
    made: str = yaml.safe_dump(found)
    return made


_FORM = node(
    "form", "human-input", form_content="Well?", inputs=[], timeout=1, timeout_unit="hour",
    user_actions=[{"id": "go", "title": "Go"}],
)  # fmt: skip


def _branched(text: str, source: str, handle: str) -> str:
    """An export whose edges leave a node by that handle."""
    found = yaml.safe_load(text)
    for edge in found["workflow"]["graph"]["edges"]:
        if edge["source"] == source:
            edge["sourceHandle"] = handle
    made: str = yaml.safe_dump(found)
    return made


_BODY = {"variable": "q", "value_selector": ["start", "q"]}
_CLASSIFIER = node(
    "classifier", "question-classifier", model=MODEL, query_variable_selector=["start", "q"],
    classes=[{"id": "1", "name": "one"}, {"id": "2", "name": "two"}],
)  # fmt: skip
_EXTRACTOR = node(
    "extractor", "parameter-extractor", model=MODEL, query=["start", "q"], reasoning_mode="prompt",
    parameters=[{"name": "name", "type": "string", "required": True, "description": "d"}],
)  # fmt: skip
_CODE = node(
    "code", "code", code_language="python3", code="def main(): return {}", variables=[],
    outputs={"result": {"type": "string"}},
)  # fmt: skip
_KNOWLEDGE = node(
    "knowledge", "knowledge-retrieval", query_variable_selector=["start", "q"],
    dataset_ids=["base"], retrieval_mode="multiple", metadata_filtering_mode="automatic",
    metadata_model_config=MODEL,
)  # fmt: skip

KINDS: dict[str, str] = {
    "llm": _row(llm("{{#start.q#}}"), out=["llm", "text"]),
    "llm in a chat": export(start(), llm(), answer("A {{#llm.text#}}"), mode="advanced-chat"),
    "question-classifier": _branched(_row(_CLASSIFIER), "classifier", "1"),
    "parameter-extractor": _row(_EXTRACTOR),
    "code": _row(_CODE),
    "template-transform": _row(
        node("template", "template-transform", template=_COSTLY, variables=[_BODY])
    ),
    "document-extractor": _row(
        node("document", "document-extractor", variable_selector=["start", "f"])
    ),
    "http-request": _row(_http("web")),
    "tool": _row(_tool("look", "look")),
    "tool that is tried again": _row(_tool("look", "broken", retry_config=_RETRY)),
    "agent that calls functions": _row(_agent("agent", "function_calling"), out=["agent", "text"]),
    "agent that reasons": _row(_agent("react_agent", "react"), out=["react_agent", "text"]),
    "knowledge-retrieval": _row(_KNOWLEDGE),
    "iteration": _iteration(parallel=False),
    "parallel iteration": _iteration(parallel=True),
    "loop": _loop(),
    "human-input": _branched(_row(_FORM), "form", "go"),
    "side by side": _parallel(),
}


def app_for(kind: str) -> App:
    return app_of(KINDS[kind])


INPUTS: dict[str, Any] = {
    "q": "why",
    "items": ["a", "b", "c"],
    "f": File(type="document", transfer_method="local_file", name="a.txt", related_id="a"),
}
"""As if they had been checked."""
