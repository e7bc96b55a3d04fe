"""The order in which text is shown, against models that do it the long way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from server.workflow.answers import DONE, OPEN, SKIPPED, Answers, Script, TooMuchText
from server.workflow.app import VariableSpec
from server.workflow.events import Chunk
from server.workflow.topology import Edge, Graph
from server.workflow.variables import Variables
from tests.server.workflow.fakes import app
from tests.server.workflow.graphs import answer, end, go, graph, new_run

# When scripts begin: against all paths, listed


@st.composite
def dags(draw: st.DrawFn) -> Graph:
    """Up to nine nodes: plain ones, branches, answers, assigners of what answers show."""
    count = draw(st.integers(1, 8))
    names = [f"n{number}" for number in range(count)]
    nodes: dict[str, dict[str, Any]] = {}
    for name in names:
        kind = draw(st.sampled_from(["say", "pick", "answer", "put", "fail"]))
        shown = draw(st.sampled_from(["n0.x", "conversation.v", "sys.query"]))
        nodes[name] = {
            "say": {},
            "pick": {"type": "pick", "pick": draw(st.sampled_from("xy"))},
            "answer": answer(f"text {{{{#{shown}#}}}}"),
            "put": {"type": "put", "set": {"conversation.v": 1}},
            "fail": {"error_strategy": "fail-branch"},
        }[kind]
    order = ["start", *names]
    edges = []
    for number, target in enumerate(names, 1):
        for source in draw(st.lists(st.sampled_from(order[:number]), unique=True, max_size=3)):
            handle = draw(st.sampled_from(["x", "y", "source", "fail-branch"]))
            edges.append(f"{source}:{handle} > {target}")
    return graph(nodes, *edges)


def paths(compiled: Graph, at: int, to: int) -> Iterator[list[Edge]]:
    if at == to:
        yield []
        return
    for edge in compiled.vertices[at].out:
        for rest in paths(compiled, edge.target, to):
            yield [edge, *rest]


def blocks(compiled: Graph, edge: Edge, script: Script) -> bool:
    source = compiled.vertices[edge.source]
    if source.branches or source.type == "answer":
        return True
    shown = {selector[:2] for selector in script.selectors()}
    return any(tuple(written) in shown for written in source.node.writes())


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(compiled=dags(), data=st.data())
def test_scripts_begin_when_some_path_is_free(compiled: Graph, data: st.DataObject) -> None:
    """In any order in which nodes may run and choose: the scripts that the taken edges start are
    those with a path on which no blocking edge is left, and in the same order."""
    left = [
        [
            {edge for edge in path if blocks(compiled, edge, script)}
            for path in paths(compiled, compiled.root, script.vertex)
        ]
        for script in compiled.scripts
    ]
    root = compiled.root_of(None)
    begun = list(root.starts)
    expected = [number for number, ways in enumerate(left) if set() in ways]
    waiting = list(root.incoming)
    reached = [False] * len(waiting)
    ready = [compiled.root]

    def decide(edge: Edge, taken: bool) -> None:
        target = edge.target
        waiting[target] -= 1
        reached[target] = reached[target] or taken
        if taken:
            begun.extend(number for number in edge.starts if number not in begun)
            for number, ways in enumerate(left):
                for way in ways:
                    way.discard(edge)
                if set() in ways and number not in expected:
                    expected.append(number)
        if waiting[target] == 0 and reached[target]:
            ready.append(target)
        elif waiting[target] == 0:
            for further in compiled.vertices[target].out:
                decide(further, False)

    while ready:
        vertex = compiled.vertices[ready.pop(data.draw(st.integers(0, len(ready) - 1)))]
        handles = sorted({edge.handle for edge in vertex.out})
        chosen = data.draw(st.sampled_from(handles)) if handles else ""
        for edge in vertex.out:
            if edge.handle != chosen:
                decide(edge, False)
        for edge in vertex.out:
            if edge.handle == chosen:
                decide(edge, True)
        assert begun == expected


# What is shown: against the whole text, told anew at each step

NODES = ("a", "b", "c")
SEGMENTS = st.one_of(
    st.sampled_from(["<", ">"]), st.sampled_from([(name, "text") for name in NODES])
)


class Stage:
    """What a run would know: what streamed, what ended, what was given out."""

    def __init__(self, templates: list[list[Any]], most: int = 10_000) -> None:
        owners = {name: index for index, name in enumerate(NODES)}
        self.scripts = [
            Script(len(NODES) + number, f"s{number}", segments, owners)
            for number, segments in enumerate(templates)
        ]
        self.states = bytearray(len(NODES))
        self.variables = Variables()
        self.shown: list[str] = []
        self.answers = Answers(self.scripts, self.variables, self.states, self.show, most)
        self.streams: dict[str, list[str]] = {}
        self.begun: list[int] = []

    def show(self, script: Script, selector: tuple[str, ...], text: str, source: int) -> None:
        self.shown.append(text)

    def told(self) -> str:
        """All that may be seen by now, found from the beginning."""
        text, through = "", set()
        for number in self.begun:
            for segment in self.scripts[number].segments:
                if isinstance(segment, str):
                    text += segment
                    continue
                name = segment[0]
                state = self.states[NODES.index(name)]
                if state == SKIPPED:
                    continue
                if name in self.streams and name not in through:
                    text += "".join(self.streams[name])
                    if state == OPEN:
                        return text
                    through.add(name)
                elif state == OPEN:
                    return text
                else:
                    value = self.variables.get(segment)
                    text += value if isinstance(value, str) else ""
        return text


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("reach"), st.integers(0, 2)),
        st.tuples(st.just("piece"), st.sampled_from(NODES)),
        st.tuples(st.just("finish"), st.sampled_from(NODES)),
        st.tuples(st.just("empty"), st.sampled_from(NODES)),
        st.tuples(st.just("skip"), st.sampled_from(NODES)),
    ),
    max_size=25,
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(templates=st.lists(st.lists(SEGMENTS, max_size=4), min_size=3, max_size=3), does=OPERATIONS)
def test_text_is_shown_as_early_as_its_place_allows(
    templates: list[list[Any]], does: list[tuple[str, Any]]
) -> None:
    """After each step just that is shown which the templates let be seen."""
    stage = Stage(templates)
    for number, (what, which) in enumerate(does):
        if what == "reach":
            if which not in stage.begun:
                stage.begun.append(which)
            stage.answers.reach([which])
        else:
            node = NODES.index(which)
            if stage.states[node] != OPEN or (what in ("empty", "skip") and which in stage.streams):
                continue
            if what == "piece":
                stage.streams.setdefault(which, []).append(f"{which}{number} ")
                stage.answers.take(node, (which, "text"), f"{which}{number} ")
            elif what == "skip":
                stage.states[node] = SKIPPED
                stage.answers.flush()
            else:
                if what == "finish":
                    whole = "".join(stage.streams.get(which, [f"{which}! "]))
                    stage.variables.add(which, {"text": whole})
                stage.states[node] = DONE
                stage.answers.end((which, "text"))
                stage.answers.flush()
        assert "".join(stage.shown) == stage.told()


def test_a_stream_may_be_closed_before_its_node_ends() -> None:
    """What follows it is shown at once."""
    stage = Stage([[("a", "text"), "<", ("b", "text")]])
    stage.answers.reach([0])
    stage.answers.take(0, ("a", "text"), "1")
    assert stage.shown == ["1"]
    stage.answers.close(("a", "text"))
    assert stage.shown == ["1", "<"]


def test_the_text_that_waits_is_counted() -> None:
    """What was shown, or forgotten, counts no more."""
    stage = Stage([[("a", "text"), ("b", "text")]], most=10)
    take = stage.answers.take
    take(1, ("b", "text"), "12345678")
    stage.answers.forget(("b", "text"))
    take(1, ("b", "text"), "12345678")
    with pytest.raises(TooMuchText):
        take(1, ("b", "text"), "123")


# In runs


async def test_an_answer_without_branches_before_it_begins_at_once() -> None:
    """Its text comes before the start node ends; sys is told as the answer's own."""
    _, sink = await go(
        graph({"a": answer("prefix{{#sys.query#}}suffix")}, "start > a"),
        run=new_run(app=app("advanced-chat"), query="Q"),
    )
    assert sink.order == ("run_started a'prefix' a'Q' a'suffix' +start -start +a -a run_finished")
    assert [chunk.selector for chunk in sink.of(Chunk)] == [
        ("a", "answer"),
        ("sys", "query"),
        ("a", "answer"),
    ]
    assert {chunk.answer_id for chunk in sink.of(Chunk)} == {"a"}


async def test_a_later_model_waits_for_the_text_before_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Two that stream at once: the first as it comes, the second in one go behind it."""
    compiled = graph(
        {
            "one": {"type": "wait", "s": 2, "pieces": ["1", "2"], "gap": 1},
            "two": {"type": "wait", "s": 1, "pieces": ["3", "4"], "gap": 0.1},
            "z": answer("{{#one.text#}}-{{#two.text#}}."),
        },
        "start > one > z",
        "start > two > z",
    )
    _, sink = await go(compiled)
    assert sink.order == (
        "run_started +start -start +one +two -two one'1' one'2' z'-' two'3' two'4' z'.' -one "
        "+z -z run_finished"
    )


async def test_answers_come_one_after_the_other() -> None:
    """An answer holds back the ones behind it."""
    compiled = graph(
        {"a": answer("a{{#b.x#}}"), "b": {"out": {"x": "B"}}, "c": answer("c")},
        "start > b > a > c",
    )
    _, sink = await go(compiled)
    assert sink.order == ("run_started a'a' +start -start +b b'B' -b +a c'c' -a +c -c run_finished")


async def test_a_branch_holds_text_back() -> None:
    """Until it has chosen; what it skips is passed over in silence."""
    compiled = graph(
        {
            "p": {"type": "pick", "pick": "y"},
            "n": {"out": {"x": "never"}},
            "y": {"out": {"x": "Y"}},
            "z": answer("<{{#n.x#}}{{#y.x#}}>"),
        },
        "start > p:n > n > z",
        "p:y > y > z",
    )
    _, sink = await go(compiled)
    assert sink.order == ("run_started +start -start +p z'<' -p +y y'Y' z'>' -y +z -z run_finished")


async def test_an_assigner_holds_back_what_it_sets() -> None:
    """The old value is never shown."""
    given = app(
        "advanced-chat", conversation=(VariableSpec(name="v", value_type="string", value="old"),)
    )
    compiled = graph(
        {
            "put": {"type": "put", "set": {"conversation.v": "new"}},
            "z": answer("v={{#conversation.v#}}"),
        },
        "start > put > z",
    )
    _, sink = await go(compiled, run=new_run(app=given))
    assert sink.text == "v=new"
    assert sink.trace.index("z'v='") > sink.trace.index("+put")


async def test_end_nodes_show_lines() -> None:
    """Its variables with a line break between them, as they come."""
    compiled = graph({"a": {"out": {"x": 1}}, "z": end(x="a.x", y="start.q")}, "start > a > z")
    _, sink = await go(compiled, {"q": "Q"})
    assert sink.order == "run_started +start -start +a a'1' z'\\n' start'Q' -a +z -z run_finished"


async def test_what_a_failed_node_never_gave_out_is_passed_over() -> None:
    """Its fail branch goes on, and so does the text."""
    compiled = graph(
        {
            "b": {"type": "boom", "error_strategy": "fail-branch"},
            "z": answer("<{{#b.text#}}{{#b.error_message#}}>"),
        },
        "start > b > z",
        "b:fail-branch > z",
    )
    _, sink = await go(compiled)
    assert sink.text == "<boom>"


async def test_a_stream_that_two_answers_show_is_shown_twice(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The second time as the whole."""
    compiled = graph(
        {
            "w": {"type": "wait", "pieces": ["a", "b"]},
            "y": answer("{{#w.text#}},{{#w.text#}};"),
            "z": answer("{{#w.text#}}"),
        },
        "start > w > y > z",
    )
    result, sink = await go(compiled)
    assert sink.text == result.outputs["answer"] == "ab,ab;ab"
    assert sink.trace.count("w'ab'") == 2


async def test_streams_that_nobody_shows_are_dropped(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Without a word."""
    compiled = graph({"w": {"type": "wait", "pieces": ["a"]}, "z": answer("x")}, "start > w > z")
    _, sink = await go(compiled)
    assert sink.text == "x"
