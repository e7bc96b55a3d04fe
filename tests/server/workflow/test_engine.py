"""Readiness, branches, skips, joins, roots, outputs, and the order of events."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from server.workflow.app import Bindings, VariableSpec
from server.workflow.events import NodeFinished, NodeStarted
from server.workflow.node import GraphError
from tests.server.workflow.fakes import app
from tests.server.workflow.graphs import Recorder, answer, end, go, graph, new_run


async def test_a_chain_tells_of_each_node_in_turn() -> None:
    """Start and finish of each node, nothing between them, the run's events around them."""
    result, sink = await go(
        graph({"a": {}, "b": {"out": {"x": 1}}, "z": end(x="b.x")}, "start > a > b > z")
    )
    assert sink.order == "run_started +start -start +a -a +b b'1' -b +z -z run_finished"
    assert result.status == "succeeded"
    assert result.outputs == {"x": 1}
    assert result.steps == 4


async def test_ready_nodes_are_taken_in_the_order_of_the_edges() -> None:
    """Siblings first, then what they made ready: first in, first out."""
    _, sink = await go(
        graph(
            {"a": {}, "b": {}, "c": {}, "d": {}},
            "start > b > d",
            "start > a > c",
        )
    )
    assert sink.order == "run_started +start -start +b -b +a -a +d -d +c -c run_finished"


async def test_a_join_runs_once_after_all_its_edges_are_decided() -> None:
    """Two ways in, one run; its predecessor is the node that came last."""
    _, sink = await go(graph({"a": {}, "b": {}, "j": {}}, "start > a > j", "start > b > j"))
    assert sink.order == "run_started +start -start +a -a +b -b +j -j run_finished"
    assert [event.predecessor_id for event in sink.of(NodeStarted)] == [
        None,
        "start",
        "start",
        "b",
    ]


async def test_a_branch_follows_one_handle_and_skips_the_others() -> None:
    """What only the other handle reaches does not run; a join behind both runs."""
    _, sink = await go(
        graph(
            {"p": {"type": "pick", "pick": "no"}, "y": {}, "y2": {}, "n": {}, "j": {}},
            "start > p:yes > y > y2 > j",
            "p:no > n > j",
        )
    )
    assert sink.order == "run_started +start -start +p -p +n -n +j -j run_finished"


async def test_skips_come_before_takes() -> None:
    """A join that a skip completes is ready before the nodes of the chosen handle."""
    _, sink = await go(
        graph(
            {"a": {}, "p": {"type": "pick", "pick": "yes"}, "j": {}, "y": {}},
            "start > a > j",
            "a > p:no > j",
            "p:yes > y",
        )
    )
    assert sink.order == "run_started +start -start +a -a +p -p +j -j +y -y run_finished"


async def test_joins_that_a_skip_completes_come_in_the_order_of_its_edges() -> None:
    """As if the edges had been taken."""
    _, sink = await go(
        graph(
            {"a": {}, "p": {"type": "pick", "pick": "yes"}, "x": {}, "j": {}, "k": {}, "y": {}},
            "start > a > p:no > x > j",
            "x > k",
            "a > j",
            "a > k",
            "p:yes > y",
        )
    )
    assert sink.trace[-7:] == ["+j", "-j", "+k", "-k", "+y", "-y", "run_finished"]


async def test_a_handle_without_an_edge_ends_the_way() -> None:
    """It is no error."""
    result, sink = await go(
        graph({"p": {"type": "pick", "pick": "else"}, "a": {}}, "start > p:x > a")
    )
    assert sink.order == "run_started +start -start +p -p run_finished"
    assert result.status == "succeeded"


async def test_a_branch_that_selects_nothing_fails() -> None:
    """As Dify says it."""
    result, _ = await go(graph({"p": {"type": "pick", "pick": ""}, "a": {}}, "start > p:x > a"))
    assert result.status == "failed"
    assert result.error == "Branch node p completed without selecting a branch"


async def test_a_long_way_is_skipped_without_recursion() -> None:
    """Very many nodes behind a branch."""
    names = [f"n{number}" for number in range(1500)]
    result, _ = await go(
        graph(
            {"p": {"type": "pick", "pick": "yes"}, "y": {}} | {name: {} for name in names},
            "start > p:yes > y",
            "p:no > " + " > ".join(names),
        )
    )
    assert result.steps == 3


ROOTS = {"start": {"type": "start"}, "hook": {"type": "start"}, "a": {}, "b": {}, "j": {}}


@pytest.mark.parametrize(
    ("start", "order"),
    [
        (None, "run_started +start -start +a -a +j -j run_finished"),
        ("hook", "run_started +hook -hook +b -b +j -j run_finished"),
    ],
)
async def test_other_roots_are_skipped(start: str | None, order: str) -> None:
    """And what only they reach; a join of both ways runs."""
    _, sink = await go(graph(ROOTS, "start > a > j", "hook > b > j"), start=start)
    assert sink.order == order


async def test_text_does_not_wait_for_another_root() -> None:
    """What it would have given out is passed over."""
    nodes = {"start": {"type": "start"}, "hook": {"type": "start"}, "z": answer("{{#hook.x#}}|")}
    _, sink = await go(graph(nodes, "start > z", "hook > z"))
    assert sink.text == "|"


async def test_a_run_cannot_start_anywhere() -> None:
    """Only at a root; said before anything is told."""
    sink = Recorder()
    with pytest.raises(GraphError, match="no run can start at 'a'"):
        await go(graph({"a": {}}, "start > a"), sink=sink, start="a")
    assert not sink.events


async def test_a_node_that_nothing_leads_to_holds_nobody_up() -> None:
    """Left over on the canvas, with an edge into what runs."""
    _, sink = await go(graph({"lost": {}, "a": {}}, "start > a", "lost > a"))
    assert sink.order == "run_started +start -start +a -a run_finished"


async def test_answers_are_joined_and_other_outputs_overwritten() -> None:
    """In the order in which the nodes finish."""
    result, _ = await go(
        graph(
            {
                "a": answer("one "),
                "b": answer("two"),
                "e": end(x="a.answer"),
                "f": end(x="b.answer"),
            },
            "start > a > b > e > f",
        )
    )
    assert result.outputs == {"answer": "one two", "files": [], "x": "two"}


async def test_nodes_that_wait_overlap(autojump_clock: trio.testing.MockClock) -> None:
    """Three at once take as long as the longest; a chain goes on behind each."""
    compiled = graph(
        {
            "a": {"type": "wait", "s": 3},
            "b": {"type": "wait", "s": 1},
            "b2": {"type": "wait", "s": 1},
            "c": {},
            "j": {},
        },
        "start > a > j",
        "start > b > b2 > j",
        "start > c > j",
    )
    result, sink = await go(compiled)
    assert sink.order == ("run_started +start -start +a +b +c -c -b +b2 -b2 -a +j -j run_finished")
    assert result.elapsed_s == pytest.approx(3)
    waited = {event.node_id: event.elapsed_s for event in sink.of(NodeFinished)}
    assert waited["b2"] == pytest.approx(1)


async def test_what_a_waiting_node_makes_ready_may_fan_out_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A nursery inside a chain, then a chain again, then a nursery."""
    compiled = graph(
        {name: {"type": "wait", "s": 1} for name in "abcdef"} | {"j": {}, "z": {"type": "wait"}},
        "start > a > b > j",
        "a > c > j",
        "start > d > j",
        "j > e > z",
        "j > f > z",
    )
    result, _ = await go(compiled)
    assert result.elapsed_s == pytest.approx(3)
    assert result.steps == 9


async def test_a_task_may_be_through_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """Without a slot; where it must wait, or may try again, it is awaited."""
    again = {"retry_enabled": True, "max_retries": 1}
    compiled = graph(
        {
            "a": {"type": "soon"},
            "b": {"type": "soon", "wait": True},
            "c": {"type": "soon", "retry_config": again},
            "d": {"type": "soon", "fails": True, "error_strategy": "fail-branch"},
            "z": end(a="a.x", b="b.x", c="c.x", d="d.error_message"),
        },
        "start > a > b > c > d:fail-branch > z",
    )
    result, _ = await go(compiled)
    assert result.outputs == {"a": "at once", "b": "later", "c": "later", "d": "no"}
    assert result.elapsed_s == pytest.approx(2)


async def test_the_variables_of_a_run() -> None:
    """sys, env, conversation and the inputs are there from the beginning."""
    given = app(
        "advanced-chat",
        environment=(
            VariableSpec(name="key", value_type="secret", value=""),
            VariableSpec(name="n", value_type="number", value=2),
        ),
        conversation=(
            VariableSpec(name="v", value_type="string", value="old"),
            VariableSpec(name="w", value_type="string", value="w"),
        ),
        bindings=Bindings(environment={"key": "bound"}),
    )
    copy = {
        "a": ["sys", "query"],
        "b": ["sys", "dialogue_count"],
        "c": ["env", "key"],
        "d": ["env", "n"],
        "e": ["conversation", "v"],
        "f": ["conversation", "w"],
        "g": ["start", "x"],
        "h": ["sys", "conversation_id"],
    }
    _, sink = await go(
        graph({"s": {"copy": copy}}, "start > s"),
        {"x": 5},
        run=new_run(app=given, query="hi", conversation_id="c1"),
        conversation={"v": "new", "gone": 1},
        dialogue_count=3,
    )
    said = sink.of(NodeFinished)[-1].outputs
    assert list(said.values()) == ["hi", 3, "bound", 2, "new", "w", 5, "c1"]


async def test_the_calls_of_workflows_are_bounded() -> None:
    """Five deep is allowed, six is not; no node runs."""
    compiled = graph({"a": {}}, "start > a")
    result, _ = await go(compiled, run=new_run(depth=5))
    assert result.status == "succeeded"
    result, sink = await go(compiled, run=new_run(depth=6))
    assert (result.status, result.error) == ("failed", "Max workflow call depth 5 reached.")
    assert sink.order == "run_started run_finished"


async def test_ids_of_node_runs_are_unique_uuids() -> None:
    """And a chunk that comes before its node carries the id that the node will have."""
    _, sink = await go(graph({"a": answer("x")}, "start > a"))
    ids = [event.node_run_id for event in sink.of(NodeStarted)]
    assert len(set(ids)) == 2
    assert all(len(each) == 36 for each in ids)
    assert sink.events[1].node_run_id == ids[1]  # type: ignore[attr-defined]


async def test_many_quick_nodes_leave_others_their_turn(mock_clock: trio.testing.MockClock) -> None:
    """A stretch of more than a millisecond ends with a checkpoint, in rounds as in chains."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    names = [f"n{number}" for number in range(20)]
    inside = {"type": "iteration", "start_node_id": "i", "iterator_selector": ["start", "list"]}
    compiled = graph(
        {name: {"takes": 0.0006} for name in names}
        | {"it": inside, "i": {"takes": 0.0006, "parent": "it"}},
        "start > " + " > ".join(names) + " > it",
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await go(compiled, {"list": [0] * 20})
        nursery.cancel_scope.cancel()
    assert turns == pytest.approx(20, abs=2)
