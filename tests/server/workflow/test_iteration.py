"""iteration: rounds one after the other and at once, failures, what they give out."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from server.workflow.app import VariableSpec
from server.workflow.events import ContainerFinished, NodeFinished, VariableSet
from server.workflow.graph import Graph
from server.workflow.limits import Limits
from server.workflow.node import GraphError
from tests.server.workflow.fakes import app
from tests.server.workflow.graphs import Recorder, answer, end, go, graph, new_run


def iteration(start: str = "its", **data: Any) -> dict[str, Any]:
    return {
        "type": "iteration",
        "start_node_id": start,
        "iterator_selector": ["start", "list"],
        "output_selector": ["in", "x"],
        **data,
    }


def inside(**data: Any) -> dict[str, dict[str, Any]]:
    return {
        "its": {"type": "iteration-start", "parent": "it"},
        "in": {"copy": {"x": ["it", "item"], "i": ["it", "index"]}, "parent": "it", **data},
        "z": end(x="it.output"),
    }


def over(data: dict[str, Any] | None = None, **each: Any) -> Graph:
    return graph({"it": iteration(**(data or {})), **inside(**each)}, "start > it > z", "its > in")


async def test_rounds_in_turn() -> None:
    """Each sees its item and its index; nobody hears of the start inside."""
    result, sink = await go(over(), {"list": ["p", "q"]})
    assert result.outputs == {"x": ["p", "q"]}
    assert sink.order == (
        "run_started +start -start +it it[ it#0 +0/in -0/in it#1 +1/in -1/in it] "
        "it'- p\\n- q' -it +z -z run_finished"
    )
    indexes = [event.outputs["i"] for event in sink.of(NodeFinished) if event.node_id == "in"]
    assert indexes == [0, 1]
    finished = sink.of(ContainerFinished)[0]
    assert (finished.steps, finished.outputs) == (2, {"output": ["p", "q"]})
    assert set(finished.metadata["iteration_duration_map"]) == {"0", "1"}
    assert finished.inputs == {"iterator_selector": ["p", "q"]}
    assert result.steps == 5


async def test_a_start_that_is_a_node_of_its_own() -> None:
    """Exports without an iteration-start name the first node inside."""
    compiled = graph(
        {"it": iteration("in"), "in": {"copy": {"x": ["it", "item"]}, "parent": "it"}}, "start > it"
    )
    _, sink = await go(compiled, {"list": [1]})
    assert "+0/in" in sink.trace
    compiled = graph({"it": iteration("gone"), **inside()}, "start > it > z", "its > in")
    result, _ = await go(compiled, {"list": [1]})
    assert result.outputs == {"x": [1]}
    with pytest.raises(GraphError, match=r"at.it: it has no start inside"):
        graph({"it": iteration("gone"), "in": {"parent": "it"}}, "start > it")


@pytest.mark.parametrize("given", [[], None])
async def test_nothing_to_do(given: Any) -> None:
    """No rounds; an empty list."""
    result, sink = await go(over(), {"list": given})
    assert result.outputs == {"x": []}
    assert sink.trace[3:7] == ["+it", "it[", "it]", "it''"]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "iterator variable ['start', 'list'] not found"),
        ({"list": "abc"}, "invalid iterator value: 'abc', please provide a list."),
    ],
)
async def test_no_list(inputs: dict[str, Any], words: str) -> None:
    """The node fails before a round is announced."""
    result, sink = await go(over(), inputs)
    assert (result.status, result.error) == ("failed", words)
    assert sink.trace[3:] == ["+it", "-it!failed", "run_finished"]


@pytest.mark.parametrize(
    ("flatten", "items", "output"),
    [
        (True, [[1, 2], [3]], [1, 2, 3]),
        (False, [[1, 2], [3]], [[1, 2], [3]]),
        (True, [[1], 2], [[1], 2]),
        (True, [[1], None, [[2]]], [1, [2]]),
        (True, [None, None], [None, None]),
    ],
)
async def test_lists_are_flattened(flatten: bool, items: list[Any], output: list[Any]) -> None:
    """By one level, where all that is not None is a list."""
    result, _ = await go(over({"flatten_output": flatten}), {"list": items})
    assert result.outputs == {"x": output}


async def test_what_is_missing_is_none() -> None:
    """A round whose output did not come about."""
    result, _ = await go(over({"output_selector": ["in", "gone"]}), {"list": [1, 2]})
    assert result.outputs == {"x": [None, None]}


def failing(mode: str, parallel: bool, **data: Any) -> Graph:
    each = {"type": "fail-if", "item": ["it", "item"], "bad": "b", "s": 1, "parent": "it"}
    shape: dict[str, Any] = {
        "error_handle_mode": mode,
        "is_parallel": parallel,
        "output_selector": ["in", "text"],
    }
    nodes = {"it": iteration(**shape, **data), **inside()} | {"in": each}
    return graph(nodes, "start > it > z", "its > in")


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize(
    ("mode", "output"),
    [("continue-on-error", ["a", None, "c"]), ("remove-abnormal-output", ["a", "c"])],
)
async def test_rounds_that_fail(
    autojump_clock: trio.testing.MockClock, mode: str, output: list[Any], parallel: bool
) -> None:
    """None in their place, or nothing; the others go on."""
    result, sink = await go(failing(mode, parallel), {"list": ["a", "b", "c"]})
    assert result.outputs == {"x": output}
    assert "-1/in!failed" in sink.trace
    assert result.status == "partial-succeeded"
    assert result.elapsed_s == pytest.approx(1 if parallel else 3)


async def test_a_failed_round_fails_it_all(autojump_clock: trio.testing.MockClock) -> None:
    """In "terminated": no further round."""
    result, sink = await go(failing("terminated", False), {"list": ["a", "b", "c"]})
    assert (result.status, result.error) == ("failed", "b is bad")
    assert sink.trace[-5:] == ["+1/in", "-1/in!failed", "it]!failed", "-it!failed", "run_finished"]
    assert sink.of(ContainerFinished)[0].outputs == {"output": ["a"]}


async def test_a_failed_round_stops_those_beside_it(autojump_clock: trio.testing.MockClock) -> None:
    """What they have in flight is cancelled and told of."""
    compiled = graph(
        {
            "it": iteration("w", is_parallel=True),
            "w": {"type": "wait", "s": ["it", "item"], "parent": "it"},
            "f": {"type": "fail-if", "item": ["it", "index"], "bad": 1, "parent": "it"},
        },
        "start > it",
        "w > f",
    )
    result, sink = await go(compiled, {"list": [50, 1, 60]})
    assert result.error == "1 is bad"
    assert result.elapsed_s == pytest.approx(1)
    assert set(sink.trace[-5:-3]) == {"-0/w!stopped", "-2/w!stopped"}
    assert sink.trace[-3:] == ["it]!failed", "-it!failed", "run_finished"]


async def test_a_failed_iteration_may_have_a_default(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It is a node like any other."""
    default = [{"key": "output", "type": "array[string]", "value": '["d"]'}]
    strategy = {"error_strategy": "default-value", "default_value": default}
    result, _ = await go(failing("terminated", False, **strategy), {"list": ["b"]})
    assert result.outputs == {"x": ["d"]}


def parallel(count: int, **data: Any) -> Graph:
    each = {"type": "wait", "s": ["it", "item"], "out": {"x": 1}, "parent": "it", "usage": True}
    nodes = {"it": iteration(is_parallel=True, parallel_nums=count, **data), **inside()}
    return graph(nodes | {"in": each}, "start > it > z", "its > in")


@pytest.mark.parametrize(("count", "elapsed_s"), [(1, 6), (2, 3), (3, 3), (10, 3)])
async def test_so_many_rounds_at_once(
    autojump_clock: trio.testing.MockClock, count: int, elapsed_s: float
) -> None:
    """Who is through takes the next item; usage adds up."""
    result, sink = await go(parallel(count), {"list": [3, 1, 2]})
    assert result.elapsed_s == pytest.approx(elapsed_s)
    assert result.outputs == {"x": [1, 1, 1]}
    assert result.usage.total_tokens == 9
    finished = next(event for event in sink.of(NodeFinished) if event.node_id == "it")
    assert finished.metadata["total_tokens"] == 9
    assert sink.of(ContainerFinished)[0].metadata["total_tokens"] == 9


async def test_rounds_are_announced_in_order(autojump_clock: trio.testing.MockClock) -> None:
    """The first ones at once, a further one when a place is free."""
    _, sink = await go(parallel(2), {"list": [3, 1, 1]})
    told = [each for each in sink.trace if "it#" in each or each in ("-0/in", "-1/in", "-2/in")]
    assert told == ["it#0", "it#1", "-1/in", "it#2", "-2/in", "-0/in"]


async def test_rounds_that_only_compute_are_not_spread() -> None:
    """At once or not, they come in turn: their events are in order."""
    _, sink = await go(over({"is_parallel": True}), {"list": list("abc")})
    assert [each for each in sink.trace if "/in" in each] == [
        "+0/in",
        "-0/in",
        "+1/in",
        "-1/in",
        "+2/in",
        "-2/in",
    ]


async def test_a_round_writes_into_its_own_layer() -> None:
    """The next one and the run do not see it."""
    compiled = graph(
        {
            "it": iteration("in"),
            "in": {"copy": {"before": ["late", "x"], "x": ["it", "item"]}, "parent": "it"},
            "late": {"out": {"x": "seen"}, "parent": "it"},
            "z": end(inner="in.x", item="it.item"),
        },
        "start > it > z",
        "in > late",
    )
    result, sink = await go(compiled, {"list": [1, 2]})
    assert [
        event.outputs["before"] for event in sink.of(NodeFinished) if event.node_id == "in"
    ] == [
        "MISSING",
        "MISSING",
    ]
    assert result.outputs == {"inner": None, "item": None}


@pytest.mark.parametrize("at_once", [False, True])
async def test_the_conversation_reaches_the_run(
    autojump_clock: trio.testing.MockClock, at_once: bool
) -> None:
    """A round's assignment is there for the next round and after the iteration."""
    given = app(
        "advanced-chat",
        conversation=(VariableSpec(name="n", value_type="number", value=10),),
    )
    compiled = graph(
        {
            "it": iteration("w", is_parallel=at_once, parallel_nums=1),
            "w": {"type": "wait", "s": 1, "parent": "it"},
            "put": {"type": "put", "add": {"conversation.n": 1}, "parent": "it"},
            "z": answer("{{#conversation.n#}}"),
        },
        "start > it > z",
        "w > put",
    )
    result, sink = await go(compiled, {"list": [0, 0, 0]}, run=new_run(app=given))
    assert result.outputs["answer"] == "13"
    assert result.conversation == {"n": 13}
    assert [event.value for event in sink.of(VariableSet)] == [11, 12, 13]


async def test_answers_inside_are_shown_and_count() -> None:
    """Each round's text in turn; the run's answer has them all."""
    compiled = graph(
        {
            "it": iteration("a"),
            "a": answer("{{#it.item#}}\n", parent="it"),
            "z": answer("done"),
        },
        "start > it > z",
    )
    result, sink = await go(compiled, {"list": ["apple", "banana"]})
    assert sink.text == result.outputs["answer"] == "apple\nbanana\ndone"


async def test_answers_of_rounds_at_once_do_not_mix(autojump_clock: trio.testing.MockClock) -> None:
    """They are shown in the order of the items; the first one as it comes."""
    compiled = graph(
        {
            "it": iteration("w", is_parallel=True),
            "w": {"type": "wait", "s": ["it", "item"], "pieces": ["x", "y"], "parent": "it"},
            "a": answer("{{#it.index#}}:{{#w.text#}} ", parent="it"),
            "z": answer("done"),
        },
        "start > it > z",
        "w > a",
    )
    result, sink = await go(compiled, {"list": [3, 1, 2]})
    assert sink.text == result.outputs["answer"] == "0:xy 1:xy 2:xy done"
    assert sink.trace.index("0/a'0'") < sink.trace.index("+1/a")


async def test_text_that_waits_for_its_turn_is_bounded(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """As all text that waits."""
    compiled = graph(
        {
            "it": iteration("w", is_parallel=True),
            "w": {"type": "wait", "s": ["it", "item"], "parent": "it"},
            "a": answer("x" * 60, parent="it"),
        },
        "start > it",
        "w > a",
    )
    limits = Limits(buffered_chars=100)
    result, _ = await go(compiled, {"list": [1, 1, 1, 1]}, limits=limits)
    assert result.status == "failed"
    assert result.error == "more than 100 characters of text wait to be shown"


async def test_rounds_inside_rounds(autojump_clock: trio.testing.MockClock) -> None:
    """An iteration over what the outer one's item is."""
    compiled = graph(
        {
            "it": iteration("deep", is_parallel=True, output_selector=["deep", "output"]),
            "deep": {
                "type": "iteration",
                "parent": "it",
                "start_node_id": "w",
                "iterator_selector": ["it", "item"],
                "output_selector": ["s", "x"],
                "is_parallel": True,
            },
            "w": {"type": "wait", "s": ["deep", "item"], "parent": "deep"},
            "s": {
                "copy": {"x": ["deep", "item"], "o": ["it", "index"]},
                "parent": "deep",
            },
            "z": end(x="it.output"),
        },
        "start > it > z",
        "w > s",
    )
    result, sink = await go(compiled, {"list": [[3, 1], [2]]}, sink=Recorder())
    assert result.outputs == {"x": [3, 1, 2]}
    assert result.elapsed_s == pytest.approx(3)
    inner = [event for event in sink.of(NodeFinished) if event.node_id == "s"]
    assert {event.within for event in inner} == {
        (("it", 0), ("deep", 0)),
        (("it", 0), ("deep", 1)),
        (("it", 1), ("deep", 0)),
    }


async def test_usage_adds_up_through_all_rounds(autojump_clock: trio.testing.MockClock) -> None:
    """Of containers inside containers too."""
    compiled = graph(
        {
            "it": iteration("lo"),
            "lo": {"type": "loop", "start_node_id": "w", "loop_count": 2, "parent": "it"},
            "w": {"type": "wait", "usage": True, "parent": "lo"},
        },
        "start > it",
    )
    result, sink = await go(compiled, {"list": [1, 2]})
    told = {event.node_id: event.metadata["total_tokens"] for event in sink.of(ContainerFinished)}
    assert told == {"lo": 6, "it": 12}
    assert result.usage.total_tokens == 12


async def test_steps_inside_count() -> None:
    """Those of all rounds; a round without any counts as one."""
    result, _ = await go(over(), {"list": list(range(600))})
    assert result.error == "Maximum execution steps exceeded: 501 > 500"
    compiled = graph(
        {"it": iteration(), "its": {"type": "iteration-start", "parent": "it"}}, "start > it"
    )
    result, _ = await go(compiled, {"list": list(range(600))})
    assert result.error == "Maximum execution steps exceeded: 501 > 500"
