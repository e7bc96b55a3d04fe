"""What becomes of a run when nodes fail: strategies, retries, bugs, sizes."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from server.workflow.capacity import Capacity
from server.workflow.events import AgentLog, Event, NodeFinished, NodeRetried, VariableSet
from server.workflow.limits import Limits
from server.workflow.node import GraphError, NodeError, NodeRun, Result
from server.workflow.services import ToolFailed, WebFailed
from tests.server.workflow.graphs import TYPES, Recorder, Wait, answer, end, go, graph


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Wait.tries.clear()


async def test_a_failure_ends_the_run() -> None:
    """The node fails with its message; nothing behind it runs."""
    result, sink = await go(graph({"b": {"type": "boom"}, "a": {}}, "start > b > a"))
    assert sink.order == "run_started +start -start +b -b!failed run_finished"
    assert (result.status, result.error, result.error_type) == ("failed", "boom", "BoomError")
    finished = sink.of(NodeFinished)[-1]
    assert (finished.error, finished.error_type, finished.inputs) == (
        "boom",
        "BoomError",
        {"in": 1},
    )


async def test_a_failure_stops_what_is_in_flight(autojump_clock: trio.testing.MockClock) -> None:
    """Nodes that wait are cancelled and told of as stopped, in the order of their start."""
    compiled = graph(
        {
            "a": {"type": "wait", "s": 50},
            "b": {"type": "wait", "s": 1, "fails": 9},
            "c": {"type": "wait", "s": 60},
        },
        "start > a",
        "start > b",
        "start > c",
    )
    result, sink = await go(compiled)
    assert sink.order == (
        "run_started +start -start +a +b +c -b!failed -a!stopped -c!stopped run_finished"
    )
    assert result.status == "failed"
    assert result.error == "try 1 failed"
    assert result.elapsed_s == pytest.approx(1)


async def test_a_fail_branch_takes_the_failure() -> None:
    """Its outputs are the error; the run succeeds in part."""
    compiled = graph(
        {
            "b": {"type": "boom", "error_strategy": "fail-branch"},
            "ok": {},
            "bad": {"copy": {"m": ["b", "error_message"], "t": ["b", "error_type"]}},
        },
        "start > b > ok",
        "b:fail-branch > bad",
    )
    result, sink = await go(compiled)
    assert sink.order == "run_started +start -start +b -b!exception +bad -bad run_finished"
    assert (result.status, result.exceptions_count) == ("partial-succeeded", 1)
    failed, bad = sink.of(NodeFinished)[1:]
    assert failed.handle == "fail-branch"
    assert failed.metadata == {"error_strategy": "fail-branch"}
    assert bad.outputs == {"m": "boom", "t": "BoomError"}


@pytest.mark.parametrize("handle", ["source", "success-branch"])
async def test_success_skips_the_fail_branch(handle: str) -> None:
    """Success goes along "source", under whatever name."""
    compiled = graph(
        {"b": {"error_strategy": "fail-branch"}, "ok": {}, "bad": {}},
        f"start > b:{handle} > ok",
        "b:fail-branch > bad",
    )
    result, sink = await go(compiled)
    assert sink.order == "run_started +start -start +b -b +ok -ok run_finished"
    assert result.status == "succeeded"


async def test_default_values_stand_in() -> None:
    """With the error beside them; all edges are taken, values that are JSON are read."""
    compiled = graph(
        {
            "b": {
                "type": "boom",
                "error_strategy": "default-value",
                "default_value": [
                    {"key": "text", "type": "string", "value": "none"},
                    {"key": "list", "type": "array[number]", "value": "[1, 2]"},
                    {"key": "n", "type": "number", "value": 3},
                ],
            },
            "z": end(text="b.text", list="b.list", n="b.n", error="b.error_message"),
        },
        "start > b > z",
    )
    result, _ = await go(compiled)
    assert result.status == "partial-succeeded"
    assert result.outputs == {"text": "none", "list": [1, 2], "n": 3, "error": "boom"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"error_strategy": "explode"}, r"at.b.data.error_strategy: expected fail-branch"),
        (
            {
                "error_strategy": "default-value",
                "default_value": [{"type": "object", "value": "{"}],
            },
            r"at.b.data.default_value\[0\].value: expected a object as JSON",
        ),
    ],
)
async def test_a_wrong_strategy_is_refused(data: dict[str, Any], words: str) -> None:
    """When the graph is compiled, by its place."""
    with pytest.raises(GraphError, match=words):
        graph({"b": data}, "start > b")


def retried(**data: Any) -> dict[str, Any]:
    return {
        "type": "wait",
        "retry_config": {"retry_enabled": True, "max_retries": 3, "retry_interval": 500},
        **data,
    }


async def test_a_node_tries_again(autojump_clock: trio.testing.MockClock) -> None:
    """After its interval, without a second NodeStarted; each failure counts as an exception."""
    result, sink = await go(graph({"w": retried(s=1, fails=2)}, "start > w"))
    assert sink.order == (
        "run_started +start -start +w w~node_retried w~node_retried -w run_finished"
    )
    assert result.elapsed_s == pytest.approx(4)
    assert (result.status, result.exceptions_count) == ("partial-succeeded", 2)
    assert [event.retry_index for event in sink.of(NodeRetried)] == [1, 2]
    assert sink.of(NodeRetried)[0].error == "try 1 failed"


async def test_tries_are_bounded_and_then_the_strategy_counts(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Three further tries, then the fail branch."""
    compiled = graph(
        {"w": retried(fails=99, error_strategy="fail-branch"), "bad": {}},
        "start > w",
        "w:fail-branch > bad",
    )
    result, sink = await go(compiled)
    assert Wait.tries["w"] == 4
    assert result.exceptions_count == 4
    assert sink.trace[-4:] == ["-w!exception", "+bad", "-bad", "run_finished"]


async def test_only_some_types_try_again() -> None:
    """A type that does not retry fails at once, whatever its data say."""
    config = {"retry_enabled": True, "max_retries": 3}
    result, sink = await go(graph({"b": {"type": "boom", "retry_config": config}}, "start > b"))
    assert result.status == "failed"
    assert not sink.of(NodeRetried)


async def test_text_of_a_failed_try_that_was_not_shown_is_dropped(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It waited behind other text; only the last try's is shown."""
    compiled = graph(
        {
            "slow": {"type": "wait", "s": 9, "pieces": ["slow "]},
            "w": retried(fails=1, pieces=["a", "b"]),
            "z": answer("{{#slow.text#}}{{#w.text#}}"),
        },
        "start > slow > z",
        "start > w > z",
    )
    result, sink = await go(compiled)
    assert sink.text == "slow ab"
    assert result.outputs["answer"] == "slow ab"


async def test_default_values_choose_no_branch() -> None:
    """A branch that fails ends the run; not all of its ways are taken."""
    branch = {"type": "pick", "pick": "", "error_strategy": "default-value"}
    compiled = graph({"b": branch, "x": {}, "y": {}}, "start > b:one > x", "start > b:two > y")
    result, sink = await go(compiled)
    assert sink.order == "run_started +start -start +b -b!failed run_finished"
    assert result.error == "Branch node b completed without selecting a branch"


@pytest.mark.parametrize("strategy", ["default-value", "fail-branch"])
async def test_text_of_a_failure_that_was_not_shown_gives_way_to_what_it_gives_out(
    strategy: str, autojump_clock: trio.testing.MockClock
) -> None:
    """Clients read the same text as the run's outputs have."""
    default = [{"key": "text", "type": "string", "value": "sorry"}]
    failing = {"error_strategy": strategy, "default_value": default}
    compiled = graph(
        {
            "slow": {"type": "wait", "s": 9, "pieces": ["slow "]},
            "w": {"type": "wait", "fails": 9, "pieces": ["half"], **failing},
            "z": answer("{{#slow.text#}}{{#w.text#}}"),
        },
        "start > slow > z",
        f"start > w:{'fail-branch' if strategy == 'fail-branch' else 'source'} > z",
    )
    result, sink = await go(compiled)
    assert sink.text == ("slow sorry" if strategy == "default-value" else "slow ")
    assert result.outputs["answer"].startswith(sink.text)


@pytest.mark.parametrize(
    ("error", "message", "kind"),
    [
        (WebFailed("no way there", "ConnectError"), "no way there", "ConnectError"),
        (ExceptionGroup("", [NodeError("inside", "X")]), "inside", "X"),
        (ExceptionGroup("", [ExceptionGroup("", [ToolFailed("t", "Y")])]), "t", "Y"),
        (ExceptionGroup("", [NodeError("first", "X"), ToolFailed("t", "Y")]), "first", "X"),
    ],
)
async def test_what_a_service_could_not_do(error: Exception, message: str, kind: str) -> None:
    """It is the node's failure, out of a nursery too."""
    result, _ = await go(graph({"r": {"type": "raise", "error": error}}, "start > r"))
    assert (result.status, result.error, result.error_type) == ("failed", message, kind)


class Broken(Recorder):
    """A client of ours that has a bug."""

    async def drain(self) -> None:
        raise ZeroDivisionError("a bug")


async def test_a_reader_that_fails_stops_the_run(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once; of what comes after it only the end is put."""
    compiled = graph({"a": {"type": "wait"}, "b": {"type": "wait"}}, "start > a", "start > b")
    with caplog.at_level(logging.ERROR):
        result, sink = await go(compiled, sink=Broken())
    assert result.status == "stopped"
    assert result.error == "Stopped: its events could not be delivered."
    assert sink.trace[-3:] == ["+a", "+b", "run_finished"]
    assert caplog.text.count("its reader failed") == 1


async def test_a_reader_that_takes_nothing_stops_the_run(caplog: pytest.LogCaptureFixture) -> None:
    """Not even the end; the run ends all the same, and no node is blamed."""

    class Deaf(Recorder):
        def put(self, event: Event) -> None:
            super().put(event)
            raise OSError("closed")

    sink = Deaf()
    compiled = graph({"a": {"type": "wait", "s": 1000}}, "start > a")
    with caplog.at_level(logging.ERROR), trio.fail_after(1):
        result, _ = await go(compiled, sink=sink)
    assert (result.status, result.steps) == ("stopped", 0)
    assert sink.order == "run_started run_finished"
    assert caplog.text.count("its reader failed") == 1


async def test_a_bug_outside_of_nodes_ends_the_run(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged, and what was begun is ended."""

    async def acquire(*_: str) -> None:
        raise ZeroDivisionError("a bug")

    capacity = Capacity()
    monkeypatch.setattr(capacity, "acquire", acquire)
    compiled = graph({"a": {"type": "wait"}, "b": {"type": "wait"}}, "start > a", "start > b")
    with caplog.at_level(logging.ERROR):
        result, sink = await go(compiled, capacity=capacity)
    assert (result.status, result.error) == ("failed", "internal error")
    assert sink.trace[-3:] == ["-a!stopped", "-b!stopped", "run_finished"]
    assert "run run failed by a bug" in caplog.text


class FailsOnTheWayOut(Wait):
    """Its own task fails when it is cancelled."""

    async def execute(self, run: NodeRun) -> Result:
        async def one() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise NodeError("too late", "Late")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            nursery.start_soon(trio.sleep_forever)
        return Result()


async def test_failures_of_what_is_cancelled_hide_no_cause(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """The node that failed first is told of, or the limit; it is no bug."""
    monkeypatch.setitem(TYPES, "late", FailsOnTheWayOut)
    nodes: dict[str, Any] = {"late": {"type": "late"}, "w": {"type": "wait", "s": 1, "fails": 1}}
    with caplog.at_level(logging.ERROR):
        result, _ = await go(graph(nodes, "start > late", "start > w"))
        assert (result.status, result.error) == ("failed", "try 1 failed")
        alone = graph({"late": {"type": "late"}}, "start > late")
        result, _ = await go(alone, limits=Limits(time_s=5))
    assert result.status == "failed"
    assert (result.error or "").startswith("Maximum execution time exceeded")
    assert caplog.text == ""


async def test_a_bug_is_a_failed_node(caplog: pytest.LogCaptureFixture) -> None:
    """Clients read two words; the log has the traceback."""
    with caplog.at_level(logging.ERROR):
        result, _ = await go(graph({"b": {"type": "boom", "bug": True}}, "start > b"))
    assert (result.status, result.error) == ("failed", "internal error")
    assert "a bug" in caplog.text


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ({"x": "a" * 101}, "it gave out more than 100 characters"),
        ({"x": [1] * 20}, "it gave out more than 100 characters"),
        ({"x": {"a": {"b": ["c" * 90]}}}, "it gave out more than 100 characters"),
    ],
)
async def test_what_a_node_gives_out_is_bounded(out: dict[str, Any], words: str) -> None:
    """The node fails, and its strategy counts."""
    result, _ = await go(graph({"a": {"out": out}}, "start > a"), limits=Limits(value_chars=100))
    assert (result.status, result.error) == ("failed", words)
    compiled = graph({"a": {"out": out, "error_strategy": "default-value"}}, "start > a")
    result, _ = await go(compiled, limits=Limits(value_chars=100))
    assert result.status == "partial-succeeded"


async def test_nesting_is_bounded() -> None:
    """A hundred levels are the most; what reads values must not run out of stack."""
    value: Any = 1
    for _ in range(150):
        value = [value]
    result, _ = await go(graph({"a": {"out": {"x": value}}}, "start > a"))
    assert result.error == "it gave out objects or lists nested more than 100 deep"


async def test_all_nodes_together_are_bounded() -> None:
    """The run fails."""
    compiled = graph(
        {"a": {"out": {"x": "a" * 60}}, "b": {"out": {"x": "b" * 60}}}, "start > a > b"
    )
    result, _ = await go(compiled, limits=Limits(total_chars=100))
    assert result.status == "failed"
    assert result.error == "The nodes gave out more than 100 characters."


async def test_text_that_waits_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    """A stream behind a slow one may not fill the memory."""
    compiled = graph(
        {
            "slow": {"type": "wait", "s": 9, "pieces": ["x"]},
            "w": {"type": "wait", "pieces": ["a" * 50] * 3, "gap": 1},
            "z": answer("{{#slow.text#}}{{#w.text#}}"),
        },
        "start > slow > z",
        "start > w > z",
    )
    result, sink = await go(compiled, sink=Recorder(), limits=Limits(buffered_chars=120))
    assert result.status == "failed"
    assert result.error == "more than 120 characters of text wait to be shown"
    assert sink.trace[-3:] == ["-slow!stopped", "-w!stopped", "run_finished"]


# What no encoder takes


async def test_halves_of_characters_never_reach_clients() -> None:
    """Out of a tool, a failure or the export: in the pool, in chunks and in every event."""
    half = "a\ud83d"
    nodes: dict[str, Any] = {
        "w": {"type": "wait", "pieces": [half], "out": {"o": {half: [half, 1]}}},
        "s": {"copy": {"o": ["w", "o"]}},
        "r": {"type": "raise", "error_strategy": "fail-branch",
              "error": NodeError(half, outputs={"o": half}, process_data={half: half})},
        "a": answer("{{#w.text#}}" + half + "{{#r.error_message#}}"),
    }  # fmt: skip
    result, sink = await go(graph(nodes, "start > w > s > r", "r:fail-branch > a"))
    assert result.status == "partial-succeeded"
    assert result.outputs["answer"] == "a?a?a?"
    assert sink.text == "a?a?a?"
    for event in sink.events:
        msgspec.json.encode(event)
    finished = {one.node_id: one for one in sink.of(NodeFinished)}
    assert finished["s"].outputs == {"o": {"a?": ["a?", 1]}}


async def test_halves_of_characters_in_what_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs of agents, and values that are set."""

    class Tells(Wait):
        async def execute(self, run: NodeRun) -> Result:
            run.tell(AgentLog, id="1", label="x", status="success", data={"d": ["\ude00"]})
            run.write(["conversation", "n"], ["\ude00"])
            return Result(process_data={"p": "\ude00"}, metadata={"m": "\ude00"}, shown={"s": "?"})

    monkeypatch.setitem(TYPES, "tells", Tells)
    _, sink = await go(graph({"t": {"type": "tells"}}, "start > t"))
    assert b"\\ud" not in b"".join(map(msgspec.json.encode, sink.events))
    assert sink.of(VariableSet)[0].value == ["?"]
    assert sink.of(AgentLog)[0].data == {"d": ["?"]}


async def test_too_many_items() -> None:
    """A node that gives out more fails, by itself."""
    nodes = {"s": {"out": {"x": [[1, 2], [3]]}}}
    result, _ = await go(graph(nodes, "start > s"), limits=Limits(value_items=5))
    assert result.status == "succeeded"
    result, _ = await go(graph(nodes, "start > s"), limits=Limits(value_items=4))
    assert (result.error, result.error_type) == (
        "it gave out more than 4 items in lists and objects",
        "ValueTooLarge",
    )


# Waiting for a slot


async def test_a_wait_for_a_slot_is_told(autojump_clock: trio.testing.MockClock) -> None:
    """Of the node that waited; not of the one that did not."""
    nodes = {"a": {"type": "wait", "s": 5}, "b": {"type": "wait", "s": 5}}
    capacity = Capacity({("interactive", "io"): 1})
    _, sink = await go(graph(nodes, "start > a", "start > b"), capacity=capacity)
    told = [one.metadata for one in sink.of(NodeFinished)]
    assert told == [{}, {}, {"queued_s": pytest.approx(5)}]


async def test_a_part_of_a_node_stands_in_a_slot(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given back at its end, or before by `leave_slot`, and only once."""
    capacity = Capacity({("interactive", "io"): 1})
    free: list[int] = []

    class Parts(Wait):
        work = "none"

        async def execute(self, run: NodeRun) -> Result:
            async def part(leaves: bool) -> None:
                async with run.in_slot("io") as inner:
                    free.append(capacity.load()["interactive", "io"].used)
                    await trio.sleep(1)
                    if leaves:
                        inner.leave_slot()
                        await trio.sleep(9)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(part, True)
                nursery.start_soon(part, False)
            return Result()

    monkeypatch.setitem(TYPES, "parts", Parts)
    result, _ = await go(graph({"p": {"type": "parts"}}, "start > p"), capacity=capacity)
    assert (result.status, free) == ("succeeded", [1, 1])
    assert result.elapsed_s in (pytest.approx(10), pytest.approx(11))
    assert capacity.load()["interactive", "io"].used == 0
