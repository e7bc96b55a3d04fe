"""What is compiled and what is refused, by its place."""

from __future__ import annotations

import time
from typing import Any

import pytest

from server.workflow.app import EdgeSpec, GraphSpec, NodeSpec
from server.workflow.graph import begins_with_an_event, compile_graph
from server.workflow.node import GraphError
from tests.server.workflow.graphs import answer, graph, make


def nodes(*ids: str, **fields: Any) -> tuple[NodeSpec, ...]:
    given = {"type": "say", **fields}
    return tuple(NodeSpec(id=id, place=f"nodes.{id}", **given) for id in ids)


START = nodes("start", type="start")


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        (("start",), False),
        (("trigger-webhook",), True),
        (("say", "trigger-plugin", "start"), True),
        (("start", "trigger-schedule"), False),
    ],
)
def test_what_a_run_begins_with(types: tuple[str, ...], expected: bool) -> None:
    """The first of the roots, as in the compiled graph."""
    spec = GraphSpec(tuple(NodeSpec(id=type, type=type) for type in types), ())
    assert begins_with_an_event(spec) is expected


def test_a_graph_is_numbered_in_the_order_of_the_file() -> None:
    """And knows where it begins."""
    compiled = graph({"a": {}, "b": {}}, "start > a > b")
    assert [vertex.id for vertex in compiled.vertices] == ["start", "a", "b"]
    assert compiled.root == 0
    assert compiled.incoming == [0, 1, 1]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (GraphSpec((), ()), "the graph has no start node"),
        (GraphSpec(nodes("a"), ()), "the graph has no start node"),
        (GraphSpec((*START, *nodes("a", "a")), ()), "nodes.a: the id 'a' occurs twice"),
        (
            GraphSpec(START, (EdgeSpec("start", "gone"),)),
            "edge 'start' -> 'gone': there is no node 'gone'",
        ),
        (
            GraphSpec((*START, *nodes("a", type="nope")), ()),
            "nodes.a: there is no node of type 'nope'",
        ),
        (
            GraphSpec(
                (*START, *nodes("a", "b")),
                (EdgeSpec("start", "a"), EdgeSpec("a", "b"), EdgeSpec("b", "a")),
            ),
            "nodes.a: 'a' is part of a cycle",
        ),
        (
            GraphSpec((*START, *nodes("a")), (EdgeSpec("start", "a"), EdgeSpec("a", "a"))),
            "nodes.a: 'a' is part of a cycle",
        ),
        (
            GraphSpec((*START, *nodes("a", parent="gone")), ()),
            "nodes.a: there is no node 'gone' around it",
        ),
        (
            GraphSpec((*START, *nodes("a"), *nodes("b", parent="a")), ()),
            "nodes.b: 'a' is no iteration and no loop",
        ),
        (
            GraphSpec((*START, *nodes("a", parent="b"), *nodes("b", parent="a")), ()),
            "nodes.a: containers are nested more than 10 deep",
        ),
        (
            GraphSpec((*START, *nodes("a", parent="a")), ()),
            "nodes.a: containers are nested more than 10 deep",
        ),
        (
            GraphSpec(
                (
                    *START,
                    *nodes("it", type="iteration"),
                    *nodes("s", type="iteration-start", parent="it"),
                ),
                (EdgeSpec("start", "s"),),
            ),
            "edge 'start' -> 's': its ends are not in the same container",
        ),
        (
            GraphSpec((*START, *nodes("it", type="iteration")), ()),
            "nodes.it: it has no start inside",
        ),
        (
            GraphSpec(tuple(NodeSpec(id=str(n), type="say") for n in range(2001)), ()),
            "the graph has 2001 nodes; 2000 is the most",
        ),
        (
            GraphSpec(START, (EdgeSpec("start", "start"),) * 8_001),
            "the graph has 8001 edges; 8000 is the most",
        ),
    ],
)
def test_what_cannot_run_is_refused(spec: GraphSpec, words: str) -> None:
    """Each with its place and what is wrong."""
    with pytest.raises(GraphError) as raised:
        compile_graph(spec, "workflow", make)
    assert str(raised.value).startswith(words)


def test_answers_are_counted() -> None:
    """Very many would take long to compile, and nobody reads them."""
    with pytest.raises(GraphError, match=r"at.a99: more than 300 nodes show something"):
        graph({f"a{number}": answer("x") for number in range(301)})


def test_chats_do_not_begin_with_a_trigger() -> None:
    """It is a node that nothing leads to."""
    given = GraphSpec((*nodes("t", type="trigger-schedule"), *START), ())
    assert compile_graph(given, "workflow", make).root == 0
    assert compile_graph(given, "advanced-chat", make).root == 1


def test_the_largest_graph_compiles_in_time() -> None:
    """Answers fed by all the others: no more than a second or so, on any machine."""
    plain: dict[str, dict[str, Any]] = {f"n{number}": {} for number in range(1600)}
    ends = [f"a{number}" for number in range(300)]
    edges = ["start > " + " > ".join(plain), *(f"n1599 > {name}" for name in ends)]
    edges += [f"n{number} > n{number + 9}" for number in range(1500)]
    begun = time.process_time()
    graph(plain | {name: answer("x") for name in ends}, *edges)
    assert time.process_time() - begun < 3


def test_containers_are_compiled_inside_out() -> None:
    """Each body once; what is inside belongs to the container around it."""
    compiled = graph(
        {
            "it": {"type": "iteration", "start_node_id": "lo"},
            "lo": {"type": "loop", "start_node_id": "a", "parent": "it"},
            "a": {"parent": "lo"},
            "b": {"type": "wait", "parent": "lo"},
        },
        "start > it",
        "a > b",
    )
    body = compiled.vertices[1].node.body  # type: ignore[attr-defined]
    assert [vertex.id for vertex in body.vertices] == ["lo"]
    assert body.inner_ids == ("lo", "a", "b")
    assert {id: compiled.owners[id] for id in ("it", "lo", "a", "b")} == dict.fromkeys(
        ("it", "lo", "a", "b"), 1
    )
    assert body.waits


def test_edges_know_which_answers_they_start() -> None:
    """Those that leave a branch, a container or an answer; never the others."""
    compiled = graph(
        {
            "p": {"type": "pick", "pick": "x"},
            "a": {},
            "one": answer("1"),
            "two": answer("2"),
        },
        "start > p:x > a > one > two",
    )
    starts = {
        (compiled.vertices[edge.source].id, compiled.vertices[edge.target].id): edge.starts
        for vertex in compiled.vertices
        for edge in vertex.out
    }
    assert starts == {("start", "p"): (), ("p", "a"): (0,), ("a", "one"): (), ("one", "two"): (1,)}
    assert compiled.starts[0] == ()


def test_an_assigner_holds_back_what_it_sets() -> None:
    """And no other answer."""
    compiled = graph(
        {
            "put": {"type": "put", "set": {"conversation.v": 1}},
            "a": answer("{{#conversation.v.deep#}}"),
            "b": answer("{{#conversation.w#}}"),
        },
        "start > put > a",
        "put > b",
    )
    assert compiled.starts[0] == (1,)
    assert [edge.starts for edge in compiled.vertices[1].out] == [(0,), ()]


def test_a_graph_with_very_many_paths_compiles_at_once() -> None:
    """Sixty diamonds in a row have 2**60 paths."""
    names: dict[str, dict[str, Any]] = {"n0": {}}
    edges = ["start > n0"]
    for number in range(60):
        for name in ("x", "y"):
            names[f"{name}{number}"] = {}
            edges.append(f"n{number} > {name}{number} > n{number + 1}")
        names[f"n{number + 1}"] = {}
    begun = time.process_time()
    compiled = graph({**names, "z": answer("end")}, *edges, "n60 > z")
    assert time.process_time() - begun < 1
    assert compiled.starts[0] == (0,)
