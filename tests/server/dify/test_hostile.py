"""Hostile and broken exports: whatever is wrong with them, they are read or refused, soon."""

from __future__ import annotations

import copy
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.dify.dsl import DslError, read_app
from server.dify.yaml_reading import read_yaml
from server.workflow.graph import compile_graph
from server.workflow.limits import MOST_NODES
from server.workflow.reading import GraphError
from tests.server.dify.exports import Source, sources, written

SMALL = sorted(sources(), key=lambda source: len(source.read()))
PARSED = {
    source.file: read_yaml(source.read()).value
    for source in [*SMALL[:12], *SMALL[-2:], *SMALL[30:34]]
}
OTHERS: list[Any] = [None, "", "x", 0, -1, 1.5, True, [], {}, [1], {"a": 1}, [[]], "9" * 50, [None]]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a value with each of its keys."""
    found: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        found += [(value, key) for key in value]
        found += [place for each in value.values() for place in places(each)]
    elif isinstance(value, list):
        found += [(value, at) for at in range(len(value))]
        found += [place for each in value for place in places(each)]
    return found


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=150)
@given(
    st.sampled_from(sorted(PARSED)),
    st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from([*OTHERS, "drop"])), max_size=6),
)
@pytest.mark.slow
def test_mutated_exports(file: str, changes: list[tuple[int, Any]]) -> None:
    """Keys dropped and values replaced at random: an app, or a `DslError`, and nothing else; and
    a graph that is read compiles or is refused with a place."""
    export = copy.deepcopy(PARSED[file])
    for at, value in changes:
        found = places(export)
        if not found:
            break
        home, key = found[at % len(found)]
        if value == "drop":
            del home[key]
        else:
            home[key] = copy.deepcopy(value)
    with suppress(DslError):
        app, report = read_app(written(export))
        assert report.mode == app.mode
        with suppress(GraphError):
            compile_graph(app.graph, app.mode)


@pytest.mark.slow
@pytest.mark.parametrize("source", SMALL[::9], ids=lambda source: source.file)
def test_cut_files(source: Source) -> None:
    """A file that was cut off anywhere is read or refused."""
    data = source.read()
    for cut in range(0, len(data), max(1, len(data) // 40)):
        with suppress(DslError):
            read_app(data[:cut])


def soon(text: bytes) -> DslError:
    began = time.perf_counter()
    with pytest.raises(DslError) as caught:
        read_app(text)
    assert time.perf_counter() - began < 5
    return caught.value


@pytest.mark.slow
def test_a_hundred_thousand_nodes() -> None:
    """They are refused within seconds, with the place where it became too much."""
    head = b"app: {name: x, mode: workflow}\nworkflow:\n  graph:\n    nodes:\n"
    nodes = b"".join(b'    - {id: "%d", data: {type: llm}}\n' % number for number in range(100_000))
    error = soon(head + nodes)
    assert error.place.startswith("workflow.graph.nodes[")
    assert "more than 250000 values" in error.message


@pytest.mark.slow
def test_thousands_of_nodes_by_an_alias() -> None:
    """One node many times is as many nodes."""
    head = b"app: {name: x, mode: workflow}\nworkflow:\n  graph:\n    nodes:\n    - &n {id: a}\n"
    error = soon(head + b"    - *n\n" * 50_000)
    assert f"there are 50001; at most {MOST_NODES}" in error.message


def test_aliases_share_their_data_safely() -> None:
    """Nodes may share data by aliases: each is upgraded by itself, nothing is changed twice."""
    text = """
app: {name: x, mode: workflow}
workflow:
  graph:
    nodes:
    - {id: start, data: {type: start}}
    - {id: one, data: &web {type: http-request, url: http://h, body: {type: json, data: "{}"}}}
    - {id: two, data: *web}
    edges: []
"""
    app, _ = read_app(text)
    assert app.graph.nodes[1].data == app.graph.nodes[2].data
    assert app.graph.nodes[1].data["body"]["data"][0]["value"] == "{}"


def test_a_cycle_is_found_by_compiling() -> None:
    """Reading keeps a cycle; compiling refuses it."""
    text = """
app: {name: x, mode: workflow}
workflow:
  graph:
    nodes:
    - {id: start, data: {type: start}}
    - {id: a, data: {type: template-transform, template: x}}
    - {id: b, data: {type: template-transform, template: x}}
    edges: [{source: start, target: a}, {source: a, target: b}, {source: b, target: a}]
"""
    app, _ = read_app(text)
    with pytest.raises(GraphError):
        compile_graph(app.graph, app.mode)
