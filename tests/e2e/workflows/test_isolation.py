"""One app's slow pages and hung models beside other apps of the same tier, over real sockets:
theirs take as long as alone, and the loop answers as fast."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from server.config import WorkflowConfig, WorkflowTierConfig
from server.workflow.app import App
from server.workflow.capacity import Load
from server.workflow.node import Work
from tests.e2e.workflows import graphs
from tests.e2e.workflows.world import Watcher, World, opened, p99, starved_s
from tests.server.sandbox.watching import comes_true

pytestmark = [pytest.mark.slow]

RUNS = 300
OTHERS = 60
SLOTS = 40
WORKFLOW = WorkflowConfig(
    tiers=(WorkflowTierConfig(name="interactive", model=SLOTS, io=SLOTS, cpu=2),)
)
HALF = SLOTS // 2
"""What one app holds at most."""

SLOW: dict[str, tuple[Callable[[World], dict[str, Any]], Work]] = {
    "slow pages": (lambda world: graphs.http(f"{world.site.url}/hang"), "io"),
    "hung models": (lambda world: graphs.llm("hang"), "model"),
}


@pytest.mark.parametrize("what", SLOW)
async def test_others_do_not_notice(what: str, tmp_path: Path) -> None:
    """300 runs of one app that hang: other apps' pages and models answer as when they were alone,
    and a task that only wants its turn has it within 50 ms."""
    with trio.fail_after(50):
        async with opened(tmp_path, workflow=WORKFLOW) as world:
            make, work = SLOW[what]
            await _others(world, 5)
            alone = await _others(world)
            slow = graphs.app(graphs.row(make(world)), "slow")
            async with trio.open_nursery() as nursery:
                for _ in range(RUNS):
                    nursery.start_soon(_run, world, slow)
                peer = world.site if work == "io" else world.replica
                assert await comes_true(lambda: len(peer.open) == HALF)
                load = world.running.capacity.load()["interactive", work]
                assert load == Load(slots=SLOTS, used=HALF, waiting=RUNS - HALF)
                lags: list[float] = []
                async with trio.open_nursery() as watched:
                    watched.start_soon(_beat, lags)
                    beside = await _others(world)
                    watched.cancel_scope.cancel("measured")
                nursery.cancel_scope.cancel("the slow app is stopped")
            await world.settles()
    for kind in alone:
        assert p99(beside[kind]) < max(2 * p99(alone[kind]), p99(alone[kind]) + 0.05)
    assert p99(lags) < 0.05
    print(f"{what}: " + ", ".join(
        f"{kind} p99 {p99(alone[kind]) * 1000:.1f} -> {p99(beside[kind]) * 1000:.1f} ms"
        for kind in alone
    ) + f", loop {p99(lags) * 1000:.1f} ms")  # fmt: skip


async def _others(world: World, times: int = OTHERS) -> dict[str, list[float]]:
    """Runs of two other apps, one after the other: how long each took."""
    apps = {
        "page": graphs.app(graphs.row(graphs.http(f"{world.site.url}/hello")), "pages"),
        "model": graphs.app(graphs.row(graphs.llm("say hello")), "models"),
    }
    taken: dict[str, list[float]] = {kind: [] for kind in apps}
    for _ in range(times):
        for kind, app in apps.items():
            began = trio.current_time() - starved_s()
            await _run(world, app)
            taken[kind].append(trio.current_time() - starved_s() - began)
    return taken


async def _run(world: World, app: App) -> None:
    result = await world.running.run_app(app, {}, sink=Watcher())
    assert result.status == "succeeded", result.error


async def _beat(lags: list[float]) -> None:
    """What a health check or a relayed token waits for its turn."""
    while True:
        due, starved = trio.current_time() + 0.005, starved_s()
        await trio.sleep_until(due)
        lags.append(trio.current_time() - due - (starved_s() - starved))
