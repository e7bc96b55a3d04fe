"""loop: loop variables, break conditions, loop-end, what a round sees of the last one."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from server.workflow.events import ContainerFinished, NodeFinished
from server.workflow.graph import Graph
from server.workflow.node import GraphError
from tests.server.workflow.graphs import answer, end, go, graph


def variable(label: str, kind: str, value: Any, value_type: str = "constant") -> dict[str, Any]:
    return {"label": label, "var_type": kind, "value_type": value_type, "value": value}


def until(name: str, operator: str, value: str) -> list[dict[str, Any]]:
    return [{"variable_selector": ["lo", name], "comparison_operator": operator, "value": value}]


def counting(count: int = 10, **data: Any) -> Graph:
    """Adds one to `n` in each round."""
    return graph(
        {
            "lo": {
                "type": "loop",
                "start_node_id": "los",
                "loop_count": count,
                "loop_variables": [variable("n", "number", "0")],
                **data,
            },
            "los": {"type": "loop-start", "parent": "lo"},
            "add": {"type": "put", "add": {"lo.n": 1}, "parent": "lo"},
            "z": end(n="lo.n", rounds="lo.loop_round"),
        },
        "start > lo > z",
        "los > add",
    )


async def test_it_ends_at_its_count() -> None:
    """Its variables and the number of rounds come out."""
    result, sink = await go(counting(2))
    assert result.outputs == {"n": 2, "rounds": 2}
    assert sink.order == (
        "run_started +start -start +lo lo[ lo#0 +0/add -0/add lo#1 +1/add -1/add lo] "
        "lo'2' z'\\n' lo'2' -lo +z -z run_finished"
    )
    finished = sink.of(ContainerFinished)[0]
    assert finished.metadata["completed_reason"] == "loop_completed"
    assert finished.metadata["loop_variable_map"] == {"0": {"n": 1}, "1": {"n": 2}}
    assert finished.inputs == {"loop_count": 2, "n": 0}
    assert finished.steps == 2


async def test_it_breaks_when_the_conditions_hold() -> None:
    """Asked after each round."""
    result, sink = await go(counting(break_conditions=until("n", "=", "5")))
    assert result.outputs == {"n": 5, "rounds": 5}
    assert sink.of(ContainerFinished)[0].metadata["completed_reason"] == "loop_break"


async def test_it_may_break_before_the_first_round() -> None:
    """Then there is none."""
    result, sink = await go(counting(break_conditions=until("n", "<", "5")))
    assert result.outputs == {"n": 0, "rounds": 0}
    assert not [each for each in sink.trace if "#" in each]


async def test_conditions_that_cannot_be_asked_yet_are_not() -> None:
    """Before the first round an error is passed over, after it the loop fails."""
    condition = {"variable_selector": ["add", "x"], "comparison_operator": "=", "value": "1"}
    result, sink = await go(counting(break_conditions=[condition]))
    assert [each for each in sink.trace if "#" in each] == ["lo#0"]
    assert result.status == "failed"
    assert sink.trace[-3:] == ["lo]!failed", "-lo!failed", "run_finished"]


def ending(container: dict[str, Any], **inside: dict[str, Any]) -> Graph:
    return graph(
        {
            "lo": {"type": "loop", "start_node_id": "p", "loop_count": 9, **container},
            "p": {"type": "pick", "by": ["start", "way"], "parent": "lo"},
            "e": {"type": "loop-end", "parent": "lo"},
            "after": {"parent": "lo"},
            **inside,
        },
        "start > lo",
        "p:out > e",
        "p:out > after",
    )


async def test_a_loop_end_ends_it_after_the_round() -> None:
    """The rest of the round runs."""
    _, sink = await go(ending({}), {"way": "out"})
    assert sink.order == (
        "run_started +start -start +lo lo[ lo#0 +0/p -0/p +0/e -0/e +0/after -0/after lo] -lo "
        "run_finished"
    )
    assert sink.of(ContainerFinished)[0].metadata["completed_reason"] == "loop_break"


async def test_a_loop_end_that_is_skipped_ends_nothing() -> None:
    """Nine rounds."""
    result, sink = await go(ending({}), {"way": "on"})
    assert result.steps == 2 + 9
    assert "lo#8" in sink.trace


async def test_a_loop_end_in_an_iteration_ends_the_loop_around_it() -> None:
    """After the iteration and the round."""
    compiled = graph(
        {
            "lo": {"type": "loop", "start_node_id": "it", "loop_count": 9},
            "it": {
                "type": "iteration",
                "start_node_id": "e",
                "iterator_selector": ["start", "list"],
                "parent": "lo",
            },
            "e": {"type": "loop-end", "parent": "it"},
        },
        "start > lo",
    )
    _, sink = await go(compiled, {"list": [1, 2]})
    assert [each for each in sink.trace if "#" in each] == ["lo#0", "0/it#0", "0/it#1"]


async def test_a_round_does_not_see_the_last_ones_outputs() -> None:
    """But the loop's variables, and so does what comes after the loop."""
    compiled = graph(
        {
            "lo": {"type": "loop", "start_node_id": "look", "loop_count": 2},
            "look": {"copy": {"before": ["late", "x"]}, "parent": "lo"},
            "late": {"out": {"x": 1}, "parent": "lo"},
            "z": end(x="late.x"),
        },
        "start > lo > z",
        "look > late",
    )
    result, sink = await go(compiled)
    looked = [event.outputs["before"] for event in sink.of(NodeFinished) if event.node_id == "look"]
    assert looked == ["MISSING", "MISSING"]
    assert result.outputs == {"x": 1}


async def test_a_failed_round_fails_the_loop(autojump_clock: trio.testing.MockClock) -> None:
    """No further round, the reason in its metadata."""
    compiled = graph(
        {
            "lo": {"type": "loop", "start_node_id": "w", "loop_count": 5},
            "w": {"type": "wait", "s": 1, "fails": 9, "parent": "lo"},
        },
        "start > lo",
    )
    result, sink = await go(compiled)
    assert (result.status, result.error) == ("failed", "try 1 failed")
    finished = sink.of(ContainerFinished)[0]
    assert (finished.status, finished.metadata["completed_reason"]) == ("failed", "error")


@pytest.mark.parametrize(
    ("given", "first"),
    [
        (variable("v", "string", "[1]"), "[1]"),
        (variable("v", "string", 5), "5"),
        (variable("v", "number", "2.5"), 2.5),
        (variable("v", "number", None), 0),
        (variable("v", "array[string]", '["a"]'), ["a"]),
        (variable("v", "array[object]", ""), []),
        (variable("v", "object", '{"a": 1}'), {"a": 1}),
        (variable("v", "boolean", True), True),
        (variable("v", "string", ["start", "q"], "variable"), "Q"),
    ],
)
async def test_what_loop_variables_begin_with(given: dict[str, Any], first: Any) -> None:
    """Constants of their type, or another variable's value."""
    compiled = graph(
        {
            "lo": {
                "type": "loop",
                "start_node_id": "s",
                "loop_count": 1,
                "loop_variables": [given],
            },
            "s": {"parent": "lo"},
            "z": end(v="lo.v"),
        },
        "start > lo > z",
    )
    result, _ = await go(compiled, {"q": "Q"})
    assert result.outputs == {"v": first}


async def test_wrong_loop_variables() -> None:
    """A constant that is not of its type is refused; without its variable the loop fails."""
    with pytest.raises(
        GraphError, match=r"at.lo.data.loop_variables\[0\].value: expected a number"
    ):
        counting(loop_variables=[variable("n", "number", "many")])
    result, sink = await go(
        counting(loop_variables=[variable("n", "number", ["x", "y"], "variable")])
    )
    assert result.error == "Invalid value for loop variable n"
    assert sink.trace[3:] == ["+lo", "-lo!failed", "run_finished"]


async def test_answers_inside_are_shown_round_by_round() -> None:
    """The run's answer has all of them, before what comes after."""
    compiled = graph(
        {
            "lo": {
                "type": "loop",
                "start_node_id": "add",
                "loop_count": 3,
                "loop_variables": [variable("n", "number", 0)],
            },
            "add": {"type": "put", "add": {"lo.n": 1}, "parent": "lo"},
            "a": answer("{{#lo.n#}}\n", parent="lo"),
            "z": answer("sum {{#lo.n#}}"),
        },
        "start > lo > z",
        "add > a",
    )
    result, sink = await go(compiled)
    assert sink.text == result.outputs["answer"] == "1\n2\n3\nsum 3"


async def test_a_loop_in_an_iteration_has_its_own_variables() -> None:
    """Each round's loop begins anew, in the round's layer."""
    compiled = graph(
        {
            "it": {
                "type": "iteration",
                "start_node_id": "lo",
                "iterator_selector": ["start", "list"],
                "output_selector": ["lo", "n"],
            },
            "lo": {
                "type": "loop",
                "start_node_id": "add",
                "loop_count": 3,
                "loop_variables": [variable("n", "number", ["it", "item"], "variable")],
                "parent": "it",
            },
            "add": {"type": "put", "add": {"lo.n": 1}, "parent": "lo"},
            "z": end(x="it.output"),
        },
        "start > it > z",
    )
    result, sink = await go(compiled, {"list": [0, 10]})
    assert result.outputs == {"x": [3, 13]}
    assert sink.trace[4:8] == ["it[", "it#0", "+0/lo", "0/lo["]
