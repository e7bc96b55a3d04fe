"""A run that ends at every step of the scheduler, with each kind of node in flight: nothing is left
of it, and all that began is told to have ended."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import trio
import trio.testing

from server.dify.dsl import read_app
from server.workflow import engine
from server.workflow.app import App
from server.workflow.capacity import Capacity
from server.workflow.engine import RunResult, Stop
from server.workflow.events import (
    ContainerFinished,
    ContainerStarted,
    NodeFinished,
    NodeStarted,
    RunFinished,
)
from server.workflow.forms import FormBook
from server.workflow.graph import Graph, compile_graph
from server.workflow.inputs import checked
from server.workflow.jinja import InProcessJinja
from server.workflow.limits import Limits
from server.workflow.node import Run
from server.workflow.services import Services
from tests.balancer.scripted import in_virtual_time
from tests.conformance.cases import Case, cases
from tests.conformance.scripted import (
    ScriptedCode,
    ScriptedKnowledge,
    ScriptedModels,
    ScriptedTools,
    ScriptedWeb,
)
from tests.conformance.waiting import INPUTS, KINDS, Client, World, app_for
from tests.server.workflow.fakes import services

HOWS = ("stop", "caller", "limit")
_LIMIT_S = 1000.0
_MOST_STEPS = 2000
"""More than any run here takes."""


class AtStep(trio.abc.Instrument):
    """Calls `act` just before the n-th step that any task takes."""

    def __init__(self, step: int, act: Callable[[], object]) -> None:
        self._left = step
        self._act = act

    @property
    def fired(self) -> bool:
        return self._left < 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._left == 0:
            self._act()
        self._left -= 1


class Ended:
    """A run that something ended at one step, and what was left of it."""

    def __init__(self, graph: Graph, run: Callable[[World], Run], inputs: dict[str, Any]) -> None:
        self.world = World()
        self.capacity = Capacity({("interactive", "io"): 2}, share=1.0)
        self.result: RunResult | None = None
        self.tasks_left = 0
        self._graph = graph
        self._run = run
        self._inputs = inputs
        self._stop = Stop()

    async def go(self, how: str, step: int) -> bool:
        """Run it; whether it was still going on at that step."""
        async with trio.open_nursery() as nursery:
            self.client = Client(self.world, nursery)
            scope = trio.CancelScope()
            at = AtStep(step, partial(self._end, how, scope))
            before = _tasks()
            trio.lowlevel.add_instrument(at)
            with scope:
                self.result = await self._go()
            if not at.fired:
                trio.lowlevel.remove_instrument(at)
            self.tasks_left = _tasks() - before - self.client.answering
            nursery.cancel_scope.cancel("the run is over")
        return at.fired

    async def _go(self) -> RunResult:
        return await engine.run(
            self._graph,
            self._run(self.world),
            dict(self._inputs),
            self.client,
            capacity=self.capacity,
            limits=Limits(time_s=_LIMIT_S),
            stop=self._stop,
        )

    def _end(self, how: str, scope: trio.CancelScope) -> None:
        if how == "stop":
            self._stop()
        elif how == "caller":
            scope.cancel("the caller went away")
        else:
            clock = trio.lowlevel.current_clock()
            assert isinstance(clock, trio.testing.MockClock)
            clock.jump(_LIMIT_S)

    def check(self) -> None:
        """Nothing is left, and each beginning has its one end."""
        assert not self.world.inside
        assert len(self.world.forms) == 0
        assert self.tasks_left == 0
        assert all(load.used == load.waiting == 0 for load in self.capacity.load().values())
        events = self.client.events
        if not events:  # it was cancelled before it began
            assert self.result is None
            return
        assert [type(event) for event in events].index(RunFinished) == len(events) - 1
        assert _ids(self.client, NodeStarted) == _ids(self.client, NodeFinished)
        assert _ids(self.client, ContainerStarted) == _ids(self.client, ContainerFinished)
        assert set(_ids(self.client, NodeStarted).values()) <= {1}


def _tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


def _ids(client: Client, kind: type[Any]) -> Counter[str]:
    return Counter(event.node_run_id for event in client.of(kind))


def at_every_step(
    graph: Graph, run: Callable[[World], Run], inputs: dict[str, Any], how: str
) -> list[Ended]:
    """All runs, the last of which came to its own end."""
    found = []
    for step in itertools.count():
        assert step < _MOST_STEPS
        one = Ended(graph, run, inputs)
        fired = in_virtual_time(partial(one.go, how, step))
        one.check()
        found.append(one)
        if not fired:
            return found
    raise AssertionError


def _statuses(ended: list[Ended]) -> set[str]:
    return {one.result.status for one in ended[:-1] if one.result is not None}


@cache
def _compiled(kind: str) -> tuple[App, Graph]:
    app = app_for(kind)
    return app, compile_graph(app.graph, app.mode)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_node_in_flight(kind: str, how: str, caplog: pytest.LogCaptureFixture) -> None:
    """Every wait of every kind of node: its services hear of the cancellation, slots come back."""
    app, graph = _compiled(kind)

    def run(world: World) -> Run:
        return Run(id="run", app=app, services=world.services, query="why")

    ended = at_every_step(graph, run, INPUTS, how)
    assert len(ended) > 4
    if how == "stop":
        assert "stopped" in _statuses(ended)
    whole = ended[-1].result
    assert whole is not None
    assert (whole.status == "failed") == (kind == "tool that is tried again")
    assert not caplog.records


CASES = list(cases())


@pytest.mark.slow
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_graph_of_the_tables(case: Case, how: str, caplog: pytest.LogCaptureFixture) -> None:
    """Every graph whose events are known: branches, joins, containers, retries, forms."""
    app, _ = read_app(case.export)
    graph = compile_graph(app.graph, app.mode)

    def run(world: World) -> Run:
        query = case.test.get("query") or ""
        return Run(id="run", app=app, services=_scripted(case, world.forms), query=query)

    at_every_step(graph, run, checked(app.inputs, case.test.get("inputs") or {}), how)
    assert not caplog.records


def _scripted(case: Case, forms: FormBook) -> Services:
    test = case.test
    script = test.get("code", {}).get("code", [])
    return services(
        models=ScriptedModels(test.get("models", {})),
        code=ScriptedCode(script if isinstance(script, list) else [script]),
        web=ScriptedWeb(test.get("web", {})),
        tools=ScriptedTools(test.get("tools", {})),
        knowledge=ScriptedKnowledge(test.get("knowledge", {})),
        jinja=InProcessJinja(),
        forms=forms,
    )


def test_the_check_finds_what_is_left() -> None:
    """A service that swallows its cancellation is found out, so the checks above can fail."""
    app, graph = _compiled("code")

    class Deaf:
        def __init__(self, world: World) -> None:
            self.world = world

        async def run(self, language: str, source: str, arguments: dict[str, Any]) -> Any:
            self.world.inside["code"] += 1
            with contextlib.suppress(trio.Cancelled):
                await trio.sleep(1)
            return {"result": "made"}

    def run(world: World) -> Run:
        deaf = services(code=Deaf(world))
        return Run(id="run", app=app, services=deaf)

    with pytest.raises(AssertionError):
        at_every_step(graph, run, INPUTS, "stop")
