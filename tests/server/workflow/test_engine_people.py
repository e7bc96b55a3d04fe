"""Runs that wait for people: paused when nothing else goes on, and their time stands still."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from server.workflow.engine import Stop
from server.workflow.events import RunPaused
from server.workflow.limits import Limits
from tests.server.workflow.graphs import go, graph, new_run


async def test_a_run_pauses_and_resumes(autojump_clock: trio.testing.MockClock) -> None:
    """Once the question is put; the answer comes after the run has resumed."""
    compiled = graph({"p": {"type": "ask", "s": 100}, "a": {}}, "start > p:yes > a")
    result, sink = await go(compiled, limits=Limits(time_s=10))
    assert sink.order == (
        "run_started +start -start +p p~input_required run_paused run_resumed p~input_taken -p "
        "+a -a run_finished"
    )
    assert result.status == "succeeded"
    assert sink.of(RunPaused)[0].node_ids == ("p",)


async def test_the_deadline_moves_with_the_pause(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """By when models must have a replica: who was asked for an hour takes nothing of it."""
    compiled = graph({"w": {"type": "wait", "s": 2}, "p": {"type": "ask", "s": 3600}},
                     "start > w > p")  # fmt: skip
    began = trio.current_time()
    run = new_run(deadline=began + 10)
    await go(compiled, run=run)
    assert run.deadline == pytest.approx(began + 10 + 3600)


async def test_other_nodes_go_on_first(autojump_clock: trio.testing.MockClock) -> None:
    """It is paused when the last of them is through."""
    compiled = graph(
        {
            "p": {"type": "ask", "s": 9},
            "w": {"type": "wait", "s": 2},
            "w2": {"type": "wait", "s": 1},
        },
        "start > p",
        "start > w > w2",
    )
    _, sink = await go(compiled)
    assert sink.order == (
        "run_started +start -start +p +w p~input_required -w +w2 -w2 run_paused run_resumed "
        "p~input_taken -p run_finished"
    )


async def test_two_questions_pause_once(autojump_clock: trio.testing.MockClock) -> None:
    """And again when one of them is answered and nothing else goes on."""
    compiled = graph(
        {"p": {"type": "ask", "s": 3}, "q": {"type": "ask", "s": 5}}, "start > p", "start > q"
    )
    _, sink = await go(compiled)
    told = [each for each in sink.trace if each.startswith("run_")]
    assert told == [
        "run_started",
        "run_paused",
        "run_resumed",
        "run_paused",
        "run_resumed",
        "run_finished",
    ]
    assert set(sink.of(RunPaused)[0].node_ids) == {"p", "q"}
    assert sink.of(RunPaused)[1].node_ids == ("q",)


async def test_only_waiting_for_people_is_free(autojump_clock: trio.testing.MockClock) -> None:
    """The time before and after it counts against the limit."""
    compiled = graph(
        {
            "w": {"type": "wait", "s": 6},
            "p": {"type": "ask", "s": 1000},
            "v": {"type": "wait", "s": 6},
        },
        "start > w > p:yes > v",
    )
    result, _ = await go(compiled, limits=Limits(time_s=10))
    assert result.status == "failed"
    assert result.error is not None
    assert result.error.startswith("Maximum execution time exceeded")
    assert result.elapsed_s == pytest.approx(1010)


async def test_a_question_inside_an_iteration_pauses_too(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Rounds that run at once are all waited for."""
    compiled = graph(
        {
            "it": {
                "type": "iteration",
                "start_node_id": "w",
                "iterator_selector": ["start", "list"],
                "is_parallel": True,
            },
            "w": {"type": "wait", "s": ["it", "item"], "parent": "it"},
            "p": {"type": "ask", "s": 10, "parent": "it"},
        },
        "start > it",
        "w > p",
    )
    result, sink = await go(compiled, {"list": [1, 2, 3]})
    told = [each for each in sink.trace if each in ("run_paused", "run_resumed")]
    assert told[0] == "run_paused"
    assert sink.trace.index("run_paused") > sink.trace.index("-2/w")
    assert told[-1] == "run_resumed"
    assert result.status == "succeeded"


async def test_a_question_that_breaks_resumes_the_run(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What follows its fail branch is under the time limit again."""
    compiled = graph(
        {
            "p": {"type": "ask", "s": 100, "breaks": True, "error_strategy": "fail-branch"},
            "w": {"type": "wait", "s": 60},
        },
        "start > p:fail-branch > w",
    )
    result, sink = await go(compiled, limits=Limits(time_s=10))
    assert "run_resumed" in sink.trace
    assert result.status == "failed"
    assert result.elapsed_s == pytest.approx(110)


async def test_a_failing_run_is_not_paused(autojump_clock: trio.testing.MockClock) -> None:
    """A question that is being cancelled is nothing to wait for."""
    compiled = graph(
        {"p": {"type": "ask", "s": 100}, "w": {"type": "wait", "s": 1, "fails": 9, "id": "x"}},
        "start > p",
        "start > w",
    )
    _, sink = await go(compiled)
    assert "run_paused" not in sink.trace
    assert sink.trace[-3:] == ["-w!failed", "-p!stopped", "run_finished"]


async def test_questions_inside_that_are_cancelled_pause_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Rounds that ask, one that works, and a failure outside: while they are all being cancelled
    the run is not found waiting."""
    compiled = graph(
        {
            "it": {
                "type": "iteration",
                "start_node_id": "p",
                "iterator_selector": ["start", "list"],
                "is_parallel": True,
            },
            "p": {"type": "pick", "by": ["it", "item"], "parent": "it"},
            "q": {"type": "ask", "s": 100, "parent": "it"},
            "v": {"type": "wait", "s": 100, "parent": "it"},
            "w": {"type": "wait", "s": 1, "fails": 9},
        },
        "start > it",
        "start > w",
        "p:ask > q",
        "p:work > v",
    )
    result, sink = await go(compiled, {"list": ["ask", "work", "ask", "ask"]})
    assert result.status == "failed"
    assert "run_paused" not in sink.trace


async def test_a_paused_run_can_be_stopped(autojump_clock: trio.testing.MockClock) -> None:
    """At once."""
    stop = Stop()
    compiled = graph({"p": {"type": "ask", "s": 100}}, "start > p")

    async def later() -> None:
        await trio.sleep(2)
        stop()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(later)
        result, sink = await go(compiled, stop=stop)
    assert result.status == "stopped"
    assert sink.trace[-3:] == ["run_paused", "-p!stopped", "run_finished"]
