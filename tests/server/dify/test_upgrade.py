"""Forms of older exports, one by one."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from server.dify.dsl import read_app
from server.dify.report import Report
from server.dify.upgrade import upgraded
from server.workflow.app import App, EdgeSpec
from tests.server.dify.exports import end, node, start, workflow, written


def read(*nodes: dict[str, Any], **more: Any) -> tuple[App, Report]:
    return read_app(written(workflow(*nodes, **more)))


@pytest.mark.parametrize(
    ("type", "data", "today"),
    [
        ("variable-assigner", {"variables": [["a", "b"]]}, "variable-aggregator"),
        ("variable-assigner", {"items": []}, "assigner"),
        ("variable-assigner", {"assigned_variable_selector": ["a", "b"]}, "assigner"),
    ],
)
def test_old_name_of_the_aggregator(type: str, data: dict[str, Any], today: str) -> None:
    """The old name stands for the aggregator, unless the keys are an assigner's."""
    app, report = read(start(), node("n", type, **data), end("n", "output"))
    assert app.graph.nodes[1].type == app.graph.nodes[1].data["type"] == today
    assert report.nodes[today] == 1
    assert any(each.code == "old-form" for each in report.findings)


@pytest.mark.parametrize(
    ("body", "today"),
    [
        ({"type": "json", "data": '{"a": 1}'}, [{"key": "", "type": "text", "value": '{"a": 1}'}]),
        (
            {"type": "x-www-form-urlencoded", "data": "a: 1\n\nb:2:3"},
            [
                {"key": "a", "type": "text", "value": "1"},
                {"key": "b", "type": "text", "value": "2:3"},
            ],
        ),
        ({"type": "none", "data": ""}, []),
        ({"type": "none", "data": "left over"}, []),
    ],
)
def test_bodies_in_one_text(body: dict[str, Any], today: Any) -> None:
    """Lines of forms become fields; other texts one field."""
    _, data, old = upgraded("http-request", {"body": body})
    assert (data["body"]["type"], data["body"]["data"]) == (body["type"], today)
    assert old == "a body in one text"


def test_body_without_a_type() -> None:
    """The first exports had nothing but the text."""
    _, data, _ = upgraded("http-request", {"body": "hello"})
    assert data["body"]["type"] == "raw-text"


@pytest.mark.parametrize(
    ("type", "data", "old"),
    [
        ("if-else", {"conditions": [], "logical_operator": "and"}, "conditions without cases"),
        ("assigner", {"write_mode": "append"}, "an assigner of version 1"),
        ("code", {"code_language": "python"}, "the name of a language"),
        ("llm", {"prompt_template": {"text": "x"}}, ""),
        ("assigner", {"items": []}, ""),
    ],
)
def test_forms_that_nodes_read_themselves_are_named(
    type: str, data: dict[str, Any], old: str
) -> None:
    """They are kept as they are, and reported."""
    _, today, found = upgraded(type, data)
    assert found == old
    assert set(data) <= set(today)


def test_given_data_is_not_changed() -> None:
    """Two nodes may share data by an alias: one's upgrade is not the other's."""
    data = {"body": {"type": "json", "data": "{}"}}
    before = copy.deepcopy(data)
    upgraded("http-request", data)
    assert data == before


ITERATION = node("each", "iteration", start_node_id="first", iterator_selector=["start", "x"])


def inside(id: str) -> dict[str, Any]:
    return {**node(id, "template-transform", template="x"), "parentId": "each"}


def test_iteration_without_a_start_gets_one() -> None:
    """Early iterations began at their first node: a start is put before it."""
    edges = [{"source": "start", "target": "each"}, {"source": "first", "target": "second"}]
    app, report = read(start(), ITERATION, inside("first"), inside("second"), edges=edges)
    made = next(each for each in app.graph.nodes if each.type == "iteration-start")
    assert (made.id, made.parent) == ("eachstart", "each")
    assert EdgeSpec("eachstart", "first") in app.graph.edges
    container = next(each for each in app.graph.nodes if each.id == "each")
    assert container.data["start_node_id"] == "eachstart"
    assert "iteration-start" not in report.nodes
    assert report.edges == 2


def test_iteration_that_names_no_start_begins_where_nothing_leads_to() -> None:
    """Files written by hand may leave the start out: it is found from the edges."""
    container = node("each", "iteration", iterator_selector=["start", "x"])
    edges = [{"source": "start", "target": "each"}, {"source": "b", "target": "a"}]
    app, _ = read(start(), container, inside("a"), inside("b"), edges=edges)
    assert EdgeSpec("eachstart", "b") in app.graph.edges
    assert EdgeSpec("eachstart", "a") not in app.graph.edges


def test_start_that_does_not_say_where_it_belongs() -> None:
    """Its id, or the container's `start_node_id`, says it."""
    container = node("each", "iteration", start_node_id="begin")
    begin = node("begin", "iteration-start")
    app, _ = read(start(), container, begin, edges=[])
    assert app.graph.nodes[2].parent == "each"


def test_parent_that_is_no_container() -> None:
    """Such a parent is ignored, with a warning."""
    lost = {**node("lost", "template-transform"), "parentId": "start"}
    app, report = read(start(), lost, end("lost", "output"))
    assert app.graph.nodes[1].parent is None
    assert report.findings[0].code == "parent"


@pytest.mark.parametrize("key", ["iteration_id", "loop_id"])
def test_parents_named_in_the_data(key: str) -> None:
    """Files made by programs say it there and not beside it."""
    kind = key.removesuffix("_id")
    container = node("box", kind, start_node_id="boxstart")
    begin = {**node("boxstart", f"{kind}-start"), "parentId": "box"}
    child = node("child", "template-transform", **{key: "box"})
    app, _ = read(start(), container, begin, child, edges=[])
    assert app.graph.nodes[3].parent == "box"
