"""One slow app beside others in virtual time: they share a tier and a kind of work, and do not wait
for one another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
import trio.testing

from server.workflow import engine
from server.workflow.app import App
from server.workflow.capacity import Capacity
from server.workflow.graph import Graph, compile_graph
from server.workflow.limits import Limits
from server.workflow.node import NodeRun, Run, Work
from server.workflow.services import (
    ChatCall,
    Completion,
    ModelFacts,
    Receiver,
    Services,
    WebRequest,
    WebResponse,
)
from tests.e2e.workflows import graphs
from tests.server.workflow.fakes import services
from tests.server.workflow.graphs import Recorder

SLOW_S = 20.0
FAST_S = 0.1
RUNS = 300
TIER: dict[tuple[str, Work], int] = {("interactive", "io"): 64, ("interactive", "model"): 64}


class World:
    """Pages and models take as long as their address or prompt says."""

    def __init__(self) -> None:
        self.at_once = 0
        self.most_at_once = 0

    async def send(self, request: WebRequest) -> WebResponse:
        await self._take(float(request.url.rpartition("/")[2]))
        return WebResponse(status=200, headers=[], content=b"", url=request.url)

    async def chat(
        self, call: ChatCall, run: NodeRun, receiver: Receiver | None = None
    ) -> Completion:
        await self._take(float(call.messages[-1]["content"]))
        return Completion(text="x")

    def facts(self, model: Any, run: NodeRun) -> ModelFacts:
        return ModelFacts()

    async def _take(self, seconds: float) -> None:
        self.at_once += seconds == SLOW_S
        self.most_at_once = max(self.most_at_once, self.at_once)
        await trio.sleep(seconds)
        self.at_once -= seconds == SLOW_S

    @property
    def services(self) -> Services:
        return services(web=self, models=self)


def _app(kind: str, seconds: float, id: str) -> tuple[App, Graph]:
    node = graphs.http(f"http://host.test/{seconds}") if kind == "io" else graphs.llm(f"{seconds}")
    app = graphs.app(graphs.row(node), id)
    return app, compile_graph(app.graph, app.mode)


@pytest.mark.parametrize("kind", ["io", "model"])
async def test_a_slow_app_holds_half(kind: str, autojump_clock: trio.testing.MockClock) -> None:
    """Its 300 runs wait for one another; forty apps beside it, in the same tier, take as long as
    alone, and so does another kind of work."""
    world, capacity = World(), Capacity(TIER)
    taken: list[float] = []

    async def go(app: tuple[App, Graph]) -> float:
        began = trio.current_time()
        run = Run(id="run", app=app[0], services=world.services)
        result = await engine.run(app[1], run, {}, Recorder(), capacity=capacity, limits=Limits())
        assert result.status == "succeeded", result.error
        return trio.current_time() - began

    async def other(number: int) -> None:
        # Never more at once than the slots that the slow app leaves.
        await trio.sleep(1 + number * 0.5)
        for each in (kind, "model" if kind == "io" else "io"):
            taken.append(await go(_app(each, FAST_S, f"other {number}")))

    slow = _app(kind, SLOW_S, "slow")
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(RUNS):
            nursery.start_soon(go, slow)
        for number in range(40):
            nursery.start_soon(other, number)
    assert world.most_at_once == 32
    assert max(taken) == pytest.approx(FAST_S)
    assert trio.current_time() - began == pytest.approx(-(-RUNS // 32) * SLOW_S)
    assert all(load.used == load.waiting == 0 for load in capacity.load().values())


async def test_a_tier_is_apart(autojump_clock: trio.testing.MockClock) -> None:
    """All slots of `batch` held by one app, which may have all: `interactive` is as if alone."""
    world = World()
    capacity = Capacity({("batch", "io"): 4, ("interactive", "io"): 4}, share=1.0)
    app, graph = _app("io", SLOW_S, "slow")
    fast, fast_graph = _app("io", FAST_S, "fast")
    taken: Mapping[str, float] = {}

    async def go(app: App, graph: Graph, tier: str) -> float:
        began = trio.current_time()
        run = Run(id="run", app=app, services=world.services, tier=tier)
        await engine.run(graph, run, {}, Recorder(), capacity=capacity, limits=Limits())
        return trio.current_time() - began

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(go, app, graph, "batch")
        await trio.sleep(1)
        taken = {"fast": await go(fast, fast_graph, "interactive")}
        nursery.cancel_scope.cancel("measured")
    assert taken["fast"] == pytest.approx(FAST_S)
