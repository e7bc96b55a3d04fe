"""Each kind of node in flight, over real sockets and in real workers, when its run ends: by a stop,
by its caller, by its time. The peers hear of it, processes and sockets are gone, slots are back."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

from server.workflow.app import App
from server.workflow.engine import RunResult, Stop
from server.workflow.events import (
    InputRequired,
    NodeFinished,
    NodeRetried,
    NodeStarted,
    RunFinished,
)
from tests.e2e.workflows import graphs
from tests.e2e.workflows.world import Watcher, World, opened
from tests.server.running.exports import MODEL, node
from tests.server.sandbox.watching import comes_true, gone

pytestmark = [pytest.mark.slow]

Ready = Callable[[World, Watcher], bool]


class Case(NamedTuple):
    """A graph, and how it shows that it is where it is to be cancelled."""

    text: Callable[[World], str]
    ready: Ready
    inputs: Callable[[World], dict[str, Any]] = lambda world: {}
    tools: Callable[[World], dict[str, dict[str, Any]]] = lambda world: {}


def _of_replica(number: int = 1) -> Ready:
    return lambda world, watcher: len(world.replica.open) == number


def _of_site(number: int = 1) -> Ready:
    return lambda world, watcher: len(world.site.open) == number


def _streams(world: World, watcher: Watcher) -> bool:
    return len(watcher.times) > 1


def _works(world: World, watcher: Watcher) -> bool:
    """A process is at it."""
    return world.sandbox.busy == 1 and bool(world.sandbox.pids)


def _is_called(world: World, watcher: Watcher) -> bool:
    return any(b"tools/call" in call.asked.body for call in world.mcp.open)


def _seen(kind: type[Any]) -> Ready:
    return lambda world, watcher: bool(watcher.of(kind))


def _of_connecting(world: World, watcher: Watcher) -> bool:
    return bool(watcher.of(NodeStarted)[1:])


_SPIN = "def main():\n    while True:\n        pass\n"
_SPIN_JS = "function main() { while (true) {} }"
_COSTLY = "{% for a in range(99999) %}{% for b in range(9999) %}{% if a == b %}x{% endif %}" + (
    "{% endfor %}{% endfor %}"
)
_CLASSES = [{"id": "1", "name": "one"}, {"id": "2", "name": "two"}]
_CLASSIFIER = node(
    "classifier", "question-classifier", model=MODEL, query_variable_selector=["start", "q"],
    classes=_CLASSES,
)  # fmt: skip
_EXTRACTOR = node(
    "extractor", "parameter-extractor", model=MODEL, query=["start", "q"],
    reasoning_mode="function_call",
    parameters=[{"name": "n", "type": "string", "required": True, "description": "d"}],
)  # fmt: skip
_KNOWLEDGE = node(
    "knowledge", "knowledge-retrieval", query_variable_selector=["start", "q"],
    dataset_ids=["base"], retrieval_mode="multiple", metadata_filtering_mode="automatic",
    metadata_model_config=MODEL,
)  # fmt: skip
_FORM = node(
    "form", "human-input", form_content="Well?", inputs=[], timeout=1, timeout_unit="hour",
    user_actions=[{"id": "go", "title": "Go"}],
)  # fmt: skip
_DOCUMENT = node("document", "document-extractor", variable_selector=["start", "f"])
_RETRY = {"retry_enabled": True, "max_retries": 5, "retry_interval": 5000}
_OPENAPI = """
openapi: 3.0.1
info: {title: Site}
paths:
  /hang:
    get: {operationId: hang, summary: Hangs}
"""


def _document(world: World) -> dict[str, Any]:
    """Large enough to keep a parser busy for seconds."""
    page = b"<html><body>" + b"<div><p>a<b>b</b></p></div>" * 150_000
    kept = world.running.services.files.keep(page, name="a.html", mime_type="text/html")
    upload = {"transfer_method": "local_file", "upload_file_id": kept.related_id}
    return {"f": {"type": "document"} | upload}


def _workflow_tool(world: World) -> str:
    world.apps["inner"] = graphs.app(graphs.row(graphs.http(f"{world.site.url}/hang")), "inner")
    return graphs.row(graphs.tool("workflow", "inner", "inner"))


def _items(world: World) -> dict[str, Any]:
    return {"items": {"list": ["a", "b", "c"]}}


_AROUND = {"iterator_selector": ["start", "items", "list"], "output_selector": ["http", "body"]}

CASES: dict[str, Case] = {
    "llm in its stream": Case(
        lambda world: graphs.row(graphs.llm("drip 500"), out=["llm", "text"]), _streams
    ),
    "llm before its first token": Case(
        lambda world: graphs.row(graphs.llm("hang")), _of_replica()
    ),
    "question-classifier": Case(
        lambda world: graphs.row(_CLASSIFIER, handle="1"), _of_replica(),
        lambda world: {"q": "hang"},
    ),
    "parameter-extractor": Case(
        lambda world: graphs.row(_EXTRACTOR), _of_replica(), lambda world: {"q": "hang"}
    ),
    "code in CPython": Case(
        lambda world: graphs.row(graphs.code("import decimal\n" + _SPIN)), _works
    ),
    "code in Monty": Case(lambda world: graphs.row(graphs.code(_SPIN)), _works),
    "code in JavaScript": Case(
        lambda world: graphs.row(graphs.code(_SPIN_JS, "javascript")), _works
    ),
    "template in a worker": Case(lambda world: graphs.row(graphs.template(_COSTLY)), _works),
    "document-extractor": Case(lambda world: graphs.row(_DOCUMENT), _works, _document),
    "http-request before its head": Case(
        lambda world: graphs.row(graphs.http(f"{world.site.url}/hang")), _of_site()
    ),
    "http-request in its body": Case(
        lambda world: graphs.row(graphs.http(f"{world.site.url}/body")), _of_site()
    ),
    "http-request between its tries": Case(
        lambda world: graphs.row(graphs.http("http://127.0.0.1:9/", retry_config=_RETRY)),
        _seen(NodeRetried),
    ),
    "native tool": Case(
        lambda world: graphs.row(
            graphs.tool("builtin", "webscraper", "webscraper", url=f"{world.site.url}/hang")
        ),
        _of_site(),
    ),
    "tool of an OpenAPI document": Case(
        lambda world: graphs.row(graphs.tool("api", "site", "hang")), _of_site(),
        tools=lambda world: {"site": {"openapi": _OPENAPI, "base_url": world.site.url}},
    ),
    "tool of an MCP server": Case(
        lambda world: graphs.row(graphs.tool("mcp", "m", "slow")), _is_called,
        tools=lambda world: {"m": {"mcp": f"{world.mcp.url}/mcp"}},
    ),
    "workflow as a tool": Case(_workflow_tool, _of_site()),
    "agent that thinks": Case(lambda world: graphs.row(graphs.agent("hang")), _of_replica()),
    "agent whose tool works": Case(
        lambda world: graphs.row(
            graphs.agent(
                "call webscraper", ("webscraper", "webscraper", {"url": f"{world.site.url}/hang"})
            )
        ),
        _of_site(),
    ),
    "knowledge-retrieval": Case(
        lambda world: graphs.row(_KNOWLEDGE), _of_replica(), lambda world: {"q": "hang"}
    ),
    "iteration": Case(
        lambda world: graphs.around("iteration", graphs.http(f"{world.site.url}/hang"), **_AROUND),
        _of_site(), _items,
    ),
    "parallel iteration": Case(
        lambda world: graphs.around(
            "iteration", graphs.http(f"{world.site.url}/hang"), is_parallel=True, parallel_nums=3,
            **_AROUND,
        ),
        _of_site(3), _items,
    ),
    "loop": Case(
        lambda world: graphs.around(
            "loop", graphs.http(f"{world.site.url}/hang"), loop_count=3, break_conditions=[]
        ),
        _of_site(),
    ),
    "human-input": Case(lambda world: graphs.row(_FORM, handle="go"), _seen(InputRequired)),
}  # fmt: skip

HOWS = ("stop", "caller", "limit")
_LIMITS_S = (0.3, 1.5, 8.0)
"""A machine that is busy may not be there in time: then with more of it."""


@pytest.mark.parametrize("name", CASES)
async def test_cancelled(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is left of the run, three times."""
    with trio.fail_after(50):
        async with opened(tmp_path) as world:
            case = CASES[name]
            app = graphs.app(case.text(world), tools=case.tools(world))
            # Time in which only people are waited for does not count.
            for how in HOWS[:2] if name == "human-input" else HOWS:
                await _cancelled(world, case, app, how)
    assert "Traceback" not in caplog.text


async def _cancelled(world: World, case: Case, app: App, how: str) -> None:
    for limit_s in _LIMITS_S if how == "limit" else (1200.0,):
        world.limit(time_s=limit_s)
        drill = _Drill(world, case, how)
        await drill.go(app)
        await drill.check()
        if drill.was_ready:
            return
    raise AssertionError("it never came so far")


class _Drill:
    """One run that is ended once it is in flight."""

    def __init__(self, world: World, case: Case, how: str) -> None:
        self.was_ready = False
        self._world = world
        self._case = case
        self._how = how
        self._watcher = Watcher()
        self._stop = Stop()
        self._result: RunResult | None = None
        self._calls = {peer: len(peer.calls) for peer in world.peers}
        self._pids: list[int] = []

    async def go(self, app: App) -> None:
        inputs = self._case.inputs(self._world)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end, nursery.cancel_scope)
            self._result = await self._world.running.run_app(
                app, inputs, sink=self._watcher, stop=self._stop
            )
            nursery.cancel_scope.cancel("the run is over")

    async def _end(self, scope: trio.CancelScope) -> None:
        world, watcher = self._world, self._watcher
        self.was_ready = await comes_true(lambda: self._case.ready(world, watcher), 20)
        self._pids = world.sandbox.pids
        if self._how == "stop":
            self._stop()
        elif self._how == "caller":
            scope.cancel("the caller went away")

    async def check(self) -> None:
        world, events = self._world, self._watcher.events
        await world.settles()
        assert [type(event) for event in events].index(RunFinished) == len(events) - 1
        assert _ids(self._watcher, NodeStarted) == _ids(self._watcher, NodeFinished)
        assert set(_ids(self._watcher, NodeStarted).values()) == {1}
        last = events[-1]
        assert isinstance(last, RunFinished)
        assert last.status == ("failed" if self._how == "limit" else "stopped"), last
        assert (self._result is None) == (self._how == "caller")
        asked = [call for peer in world.peers for call in peer.calls[self._calls[peer] :]]
        assert not asked or any(call.gone for call in asked)
        if self._case.ready is _works and self.was_ready:
            ended = set(self._pids) - set(world.sandbox.pids)
            assert ended
            assert await gone(list(ended))


def _ids(watcher: Watcher, kind: type[Any]) -> Counter[str]:
    return Counter(event.node_run_id for event in watcher.of(kind))


@contextmanager
def _full() -> Iterator[str]:
    """Where nobody takes connections, and no more of them fit into the queue."""
    with socket.socket() as listener, socket.socket() as one, socket.socket() as other:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for each in (one, other):
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


async def test_cancelled_while_it_connects(tmp_path: Path) -> None:
    """A host that does not answer the handshake."""
    with _full() as url, trio.fail_after(50):
        async with opened(tmp_path) as world:
            case = Case(lambda world: graphs.row(graphs.http(url)), _of_connecting)
            for how in HOWS:
                await _cancelled(world, case, graphs.app(case.text(world)), how)
