"""Reading an app: versions, modes, declarations, what is left out, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from server.dify.dsl import DslError, app_digest, read_app
from server.dify.report import Report
from server.workflow.app import App, Bindings, EdgeSpec
from server.workflow.limits import MOST_NODES
from tests.server.dify.exports import easy, end, node, start, workflow, written


def read(export: Any, bindings: Bindings | None = None) -> tuple[App, Report]:
    return read_app(written(export), bindings or Bindings())


def refused(export: Any) -> DslError:
    with pytest.raises(DslError) as caught:
        read(export)
    return caught.value


SMALL = workflow(start(), end("start", "x"))


def test_small_app() -> None:
    """The parts of an app are where they belong."""
    app, report = read(SMALL)
    assert (app.name, app.mode, app.version) == ("Small", "workflow", "0.3.0")
    assert [each.id for each in app.graph.nodes] == ["start", "end"]
    assert app.graph.edges == (EdgeSpec("start", "end"),)
    assert app.graph.nodes[1].place == "workflow.graph.nodes[1]"
    assert report.is_runnable
    assert report.nodes == {"end": 1, "start": 1}


def test_unknown_keys_are_kept() -> None:
    """Keys that nobody knows stay in a node's data, and in the features."""
    export = workflow(start(), node("end", "end", novel={"deep": [1]}), features={"novel": 1})
    app, _ = read(export)
    assert app.graph.nodes[1].data["novel"] == {"deep": [1]}
    assert app.features == {"novel": 1}


@pytest.mark.parametrize(
    ("version", "kept", "codes"),
    [
        ("0.1.0", "0.1.0", []),
        ("0.7.0", "0.7.0", []),
        ("0.8", "0.8", [("warning", "version")]),
        ("1.0.0-beta", "1.0.0-beta", [("warning", "version")]),
        (0.3, "0.3", [("info", "version")]),
        (None, "0.1.0", []),
        ("new", "new", [("warning", "version")]),
    ],
)
def test_versions(version: Any, kept: str, codes: list[tuple[str, str]]) -> None:
    """Every version is read; newer ones with a warning, numbers with a word."""
    app, report = read(workflow(start(), end("start", "x"), version=version))
    assert app.version == kept
    assert [(each.severity, each.code) for each in report.findings] == codes


def test_what_old_exports_lack() -> None:
    """Neither version nor kind nor dependencies nor variables are needed."""
    app, _ = read({key: SMALL[key] for key in ("app", "workflow")})
    assert app.version == "0.1.0"


def test_notes_and_placeholders_are_dropped() -> None:
    """They go, and so do edges at them; the report counts them."""
    note = {"id": "note", "type": "custom-note", "data": {"type": "", "text": "hi"}}
    empty = node("empty", "start-placeholder")
    edges = [{"source": "start", "target": "end"}, {"source": "empty", "target": "end"}]
    app, report = read(workflow(note, start(), empty, end("start", "x"), edges=edges))
    assert [each.id for each in app.graph.nodes] == ["start", "end"]
    assert len(app.graph.edges) == 1
    assert report.notes == 2


def test_edges_without_ends_are_left_out() -> None:
    """An edge with one end only is no edge, as in Dify; it is said."""
    edges = [{"source": "start", "target": "end"}, {"source": "start"}]
    app, report = read(workflow(start(), end("start", "x"), edges=edges))
    assert len(app.graph.edges) == 1
    assert [(each.code, each.place) for each in report.findings] == [
        ("edge", "workflow.graph.edges[1]")
    ]


def test_ids_and_handles_that_yaml_takes_for_something_else() -> None:
    """A bare number is an id, a bare `true` a handle."""
    text = """
app: {name: x, mode: workflow}
workflow:
  graph:
    nodes:
    - {id: 1, data: {type: start}}
    - {id: 2, data: {type: if-else, cases: [{case_id: true, conditions: []}]}}
    - {id: 3, data: {type: end}}
    edges:
    - {source: 1, target: 2}
    - {source: 2, target: 3, sourceHandle: true}
    - {source: 2, target: 3, sourceHandle: false}
"""
    app, _ = read_app(text)
    assert [each.id for each in app.graph.nodes] == ["1", "2", "3"]
    assert [each.handle for each in app.graph.edges] == ["source", "true", "false"]
    assert app.graph.nodes[1].data["cases"][0]["case_id"] == "true"


def test_inputs() -> None:
    """Start variables become inputs; what an input adds beside them is kept."""
    fields: list[dict[str, Any]] = [
        {"variable": "city", "type": "text-input", "label": "City", "required": True},
        {"variable": "days", "type": "select", "options": ["1", 2], "max_length": 48},
        {"variable": "doc", "type": "file", "allowed_file_types": ["document"], "hide": True},
        {"variable": "city", "type": "number"},
        {"label": "no name"},
    ]
    app, report = read(workflow(start(*fields), end("start", "city")))
    city, days, doc = app.inputs
    assert (city.name, city.type, city.label, city.required) == ("city", "text-input", "City", True)
    assert (days.options, days.max_length, days.label) == (("1", "2"), 48, "days")
    assert (doc.extra, doc.hidden) == ({"allowed_file_types": ["document"]}, True)
    assert [each.code for each in report.findings] == ["input", "input"]


def test_variables_and_bindings_for_them() -> None:
    """Environment and conversation variables keep their types; bindings go over the file."""
    environment = [
        {"name": "KEY", "value": "", "value_type": "secret"},
        {"name": "N", "value": 1, "value_type": "number"},
        {"name": "M", "value": 1.5, "value_type": "number"},
    ]
    conversation = [
        {"name": "seen", "value_type": "array[string]", "value": None},
        {"name": "memo", "value_type": "object", "value": {"a": 1}},
    ]
    export = workflow(
        start(),
        end("start", "x"),
        environment_variables=environment,
        conversation_variables=conversation,
    )
    app, report = read(export, Bindings(environment={"KEY": "s3cret", "N": "7"}))
    assert [each.value for each in app.environment] == ["s3cret", 7, 1.5]
    assert [each.value for each in app.conversation] == [[], {"a": 1}]
    assert report.is_runnable
    _, report = read(export)
    assert [(each.severity, each.fix) for each in report.findings] == [
        ("missing", '--bind "env:KEY=VALUE"')
    ]


def test_digest_and_id() -> None:
    """The digest is of file and bindings; the id is of mode and name, and survives changes."""
    app, _ = read(SMALL)
    again, _ = read(SMALL)
    bound, _ = read(SMALL, Bindings(models={"a:b": "c"}))
    assert app.digest == again.digest == app_digest(written(SMALL), Bindings())
    assert bound.digest != app.digest
    assert bound.id == app.id
    named, _ = read_app(written(SMALL), name="Other")
    assert (named.name, named.id == app.id) == ("Other", False)


@pytest.mark.parametrize(
    ("export", "place", "part"),
    [
        ([], "", "a mapping"),
        ({}, "app", "missing"),
        ({"app": {"name": "x"}}, "app.mode", "is missing"),
        ({"app": {"mode": "rag-pipeline"}}, "app.mode", "are not read"),
        ({"kind": "rag_pipeline", "app": {"mode": "workflow"}}, "kind", "knowledge pipeline"),
        ({"app": {"mode": "workflow"}}, "workflow", "its graph"),
        ({"app": {"mode": "chat"}}, "model_config", "its settings"),
        ({"app": {"mode": "workflow"}, "workflow": {"graph": {}}}, "workflow", "graph"),
        ({"app": {"mode": "workflow"}, "workflow": []}, "workflow", "a mapping"),
        (workflow(), "workflow.graph.nodes", "no nodes"),
        (workflow({"id": "a"}, edges=[]), "workflow.graph.nodes[0].data", "`type`"),
        (
            workflow({"data": {"type": "end"}, "id": None}, edges=[]),
            "workflow.graph.nodes[0].id",
            "id",
        ),
        (workflow(start(), edges=[1]), "workflow.graph.edges[0]", "a mapping"),
        (
            workflow(node("a", "start", variables=3)),
            "workflow.graph.nodes[0].data.variables",
            "list",
        ),
        (easy("chat", model=3), "model_config.model", "a mapping"),
    ],
)
def test_refused(export: Any, place: str, part: str) -> None:
    """What is no app is refused, with the place and what is expected there."""
    error = refused(export)
    assert error.place.startswith(place)
    assert part in error.message


def test_refusal_of_a_part_names_its_line() -> None:
    """The line comes from the path, also for what is found after YAML was read."""
    text = "app:\n  mode: workflow\nworkflow:\n  graph:\n    nodes:\n    - id: a\n      data: {}\n"
    with pytest.raises(DslError) as caught:
        read_app(text)
    assert (caught.value.place, caught.value.line) == ("workflow.graph.nodes[0].data", 7)


def test_graphs_that_are_too_large() -> None:
    """So many nodes are refused by number before any is read."""
    nodes = [node(f"n{number}", "end") for number in range(MOST_NODES + 1)]
    assert f"at most {MOST_NODES}" in refused(workflow(*nodes, edges=[])).message


def test_newer_agents_are_named_as_unsupported() -> None:
    """An agent of Dify's own runtime is read and reported, not refused."""
    agent = node("agent", "agent", version="2", agent_node_kind="dify_agent")
    _, report = read(workflow(start(), agent, end("agent", "text")))
    assert [(each.severity, each.code) for each in report.findings if each.code == "agent"] == [
        ("unsupported", "agent")
    ]
    assert not report.is_runnable


def test_unknown_types_are_read_and_named() -> None:
    """A node of an unknown type is kept, counted, and said to be unsupported."""
    app, report = read(workflow(start(), node("new", "hologram"), end("new", "text")))
    assert app.graph.nodes[1].type == "hologram"
    assert report.of("unsupported")[0].place == "workflow.graph.nodes[1]"
