"""Stops, limits, and cancellation at every moment: nothing is left running, all is told once."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from server.workflow import engine
from server.workflow.capacity import Capacity
from server.workflow.engine import Stop
from server.workflow.events import NodeFinished, NodeStarted, RoundStarted, RunFinished
from server.workflow.graph import Graph
from server.workflow.limits import Limits
from tests.server.workflow.graphs import Recorder, answer, go, graph, new_run


def waiting() -> Graph:
    return graph(
        {
            "a": {"type": "wait", "s": 5},
            "b": {"type": "wait", "s": 9},
            "c": {},
        },
        "start > a > c",
        "start > b > c",
    )


STOPPED = "run_started +start -start +a +b -a!stopped -b!stopped run_finished"


async def test_a_stop_ends_a_run_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """Nodes in flight are cancelled; the result says by whom."""
    stop = Stop()

    async def later() -> None:
        await trio.sleep(2)
        stop()
        stop("again")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(later)
        result, sink = await go(waiting(), stop=stop)
    assert (result.status, result.error) == ("stopped", "Stopped by user.")
    assert result.elapsed_s == pytest.approx(2)
    assert sink.order == STOPPED
    assert sink.of(NodeFinished)[-1].error == "Stopped by user."


async def test_a_stop_may_come_before_the_run() -> None:
    """Then no node runs."""
    stop = Stop()
    stop("Not today.")
    result, sink = await go(waiting(), stop=stop)
    assert (result.status, result.error) == ("stopped", "Not today.")
    assert sink.order == "run_started run_finished"


async def test_a_run_that_is_stopped_before_it_begins_shows_nothing() -> None:
    """Not even the text that no node holds back."""
    stop = Stop()
    stop()
    _, sink = await go(graph({"z": answer("hello")}, "start > z"), stop=stop)
    assert sink.order == "run_started run_finished"


async def test_the_time_limit_interrupts(autojump_clock: trio.testing.MockClock) -> None:
    """A node that hangs does not hold the run."""
    result, sink = await go(waiting(), limits=Limits(time_s=3))
    assert result.status == "failed"
    assert result.error == "Maximum execution time exceeded: 3.00s > 3s"
    assert sink.order == STOPPED


async def test_steps_are_limited() -> None:
    """The step too many does not run."""
    compiled = graph({"a": {}, "b": {}, "c": {}}, "start > a > b > c")
    result, sink = await go(compiled, limits=Limits(steps=3))
    assert (result.status, result.error) == ("failed", "Maximum execution steps exceeded: 4 > 3")
    assert sink.order == "run_started +start -start +a -a +b -b run_finished"
    result, _ = await go(compiled, limits=Limits(steps=4))
    assert result.status == "succeeded"


@pytest.mark.parametrize("kind", ["loop", "iteration"])
async def test_no_round_begins_once_the_run_is_over(
    kind: str, autojump_clock: trio.testing.MockClock
) -> None:
    """Rounds that do nothing count as steps, too, and the last one is the last."""
    container = {"type": kind, "start_node_id": "s", "loop_count": 10_000}
    nodes: dict[str, dict[str, Any]] = {
        "c": {**container, "iterator_selector": ["start", "xs"], "output_selector": ["c", "item"]},
        "s": {"type": f"{kind}-start", "parent": "c"},
    }
    compiled = graph(nodes, "start > c")
    result, sink = await go(compiled, {"xs": list(range(10_000))}, limits=Limits(steps=10))
    assert result.error == "Maximum execution steps exceeded: 11 > 10"
    assert len(sink.of(RoundStarted)) == 9


async def test_a_cancelled_caller_hears_of_the_end_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """RunFinished is put, then the cancellation goes on."""
    sink = Recorder()
    with trio.move_on_after(2) as scope:
        await go(waiting(), sink=sink)
        pytest.fail("the cancellation was swallowed")
    assert scope.cancelled_caught
    assert sink.order == STOPPED
    assert sink.last.status == "stopped"


NODES: dict[str, dict[str, Any]] = {
    "a": {"type": "wait", "s": 1, "pieces": ["1", "2", "3"], "gap": 1},
    "b": {
        "type": "wait",
        "s": 1,
        "fails": 2,
        "retry_config": {"retry_enabled": True, "max_retries": 5, "retry_interval": 700},
    },
    "it": {
        "type": "iteration",
        "start_node_id": "in",
        "iterator_selector": ["start", "list"],
        "output_selector": ["in", "text"],
        "is_parallel": True,
        "parallel_nums": 2,
    },
    "in": {"type": "wait", "s": 1.5, "out": {"text": "x"}, "parent": "it"},
    "lo": {"type": "loop", "start_node_id": "turn", "loop_count": 3},
    "turn": {"type": "wait", "s": 1.25, "parent": "lo"},
    "ask": {"type": "ask", "s": 2.5},
    "j": answer("{{#a.text#}}{{#it.output#}}"),
}
EDGES = ("start > a > j", "start > b > j", "start > it > lo > j", "start > ask:yes > j")


class Slow(Recorder):
    """A client that reads now and then."""

    async def drain(self) -> None:
        await trio.sleep(0.05)


@pytest.mark.parametrize("moment", [0, 0.05, *(tenth / 10 for tenth in range(1, 90, 3)), 20])
@pytest.mark.parametrize("how", ["cancel", "stop", "limit", "nursery"])
async def test_cancelled_at_any_moment(
    autojump_clock: trio.testing.MockClock, moment: float, how: str
) -> None:
    """With each kind of node in flight: every node that began has ended, slots are back, no task is
    left, the last event is the run's end."""
    sink, capacity, stop = Slow(), Capacity({("interactive", "io"): 3}), Stop()
    limits = Limits(time_s=moment) if how == "limit" else Limits()
    compiled = graph(NODES, *EDGES)

    async def run() -> None:
        await engine.run(
            compiled,
            new_run(),
            {"list": ["p", "q", "r"]},
            sink,
            capacity=capacity,
            limits=limits,
            stop=stop,
        )

    async def stop_later() -> None:
        await trio.sleep(moment)
        stop()

    if how == "cancel":
        with trio.move_on_after(moment):
            await run()
    elif how == "nursery":
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await trio.sleep(moment)
            nursery.cancel_scope.cancel()
    elif how == "stop":
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop_later)
            await run()
    else:
        await run()
    if how in ("cancel", "nursery") and not sink.events:
        return  # it was cancelled before it began
    assert isinstance(sink.events[-1], RunFinished)
    began = [event.node_run_id for event in sink.of(NodeStarted)]
    ended = [event.node_run_id for event in sink.of(NodeFinished)]
    assert sorted(began) == sorted(ended)
    assert sum("[" in each for each in sink.trace) == sum("]" in each for each in sink.trace)
    assert all(load.used == load.waiting == 0 for load in capacity.load().values())
    assert sink.last.status == ("partial-succeeded" if moment == 20 else sink.last.status)
    assert (sink.last.status == "partial-succeeded") == (moment == 20)
