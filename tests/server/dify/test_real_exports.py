"""Every real export is read, and its report says what the corpus's own table says."""

from __future__ import annotations

import functools
import json
from typing import Any

import jsonschema_rs
import pytest

from server.dify.dsl import Offers, read_app
from server.dify.report import Report
from server.dify.schema import app_schema
from server.dify.yaml_reading import read_yaml
from server.workflow.app import App, Bindings
from server.workflow.graph import compile_graph
from tests.server.dify.exports import Source, sources

pytestmark = pytest.mark.slow

SOURCES = sources()


@pytest.fixture(scope="module", params=SOURCES, ids=lambda source: source.file)
def source(request: pytest.FixtureRequest) -> Source:
    found: Source = request.param
    return found


@pytest.fixture(scope="module")
def read(source: Source) -> tuple[App, Report]:
    return read_app(source.read())


def test_it_is_read(source: Source, read: tuple[App, Report]) -> None:
    """Mode and nodes by type are those of the table."""
    app, report = read
    assert app.mode == report.mode == source.mode
    assert report.nodes == source.types
    assert app.name


def test_it_compiles(read: tuple[App, Report]) -> None:
    """The graph of each compiles."""
    app, _ = read
    compile_graph(app.graph, app.mode)


def test_capabilities_are_reported(source: Source, read: tuple[App, Report]) -> None:
    """What the table says that a file needs, the report says too."""
    _, report = read
    assert found_capabilities(report) == source.capabilities & KNOWN


KNOWN = frozenset(
    {"code:python", "code:js", "env-vars", "conversation-vars", "tool:api", "tool:mcp"}
    | {"tool:workflow", "node:knowledge-retrieval"}
)


def found_capabilities(report: Report) -> set[str]:
    """The part of the table's column that a report answers."""
    found = set()
    names = {"python3": "code:python", "javascript": "code:js"}
    found |= {names[language] for language in report.code.languages}
    found |= {f"tool:{tool.kind}" for tool in report.tools if tool.kind in ("api", "mcp")}
    found |= {"env-vars"} if report.environment else set()
    found |= {"conversation-vars"} if report.conversation else set()
    found |= {"node:knowledge-retrieval"} if "knowledge-retrieval" in report.nodes else set()
    return found


def test_plugin_tools_are_reported(source: Source, read: tuple[App, Report]) -> None:
    """Each plugin that the table names is among the tools of the report."""
    _, report = read
    wanted = {
        name.rpartition(":")[2]
        for name in source.capabilities
        if name.startswith(("tool:plugin:", "tool:core:"))
    }
    found = {(tool.tool.provider_id or "").rpartition("/")[2] for tool in report.tools}
    assert wanted <= found


def test_every_model_is_found(source: Source, read: tuple[App, Report]) -> None:
    """Wherever the file names a chat model for a node that calls it, the report has it."""
    app, report = read
    wanted = set()
    for node in app.graph.nodes:
        if node.type in ("llm", "question-classifier", "parameter-extractor"):
            model = node.data["model"]
            wanted.add((model["provider"], model["name"]))
    assert wanted <= {(need.model.provider, need.model.name) for need in report.models}
    assert all(need.places for need in report.models)


def test_it_runs_once_all_is_bound(source: Source, read: tuple[App, Report]) -> None:
    """Bindings by the report's own keys leave nothing missing."""
    _, report = read
    bindings = Bindings(
        models={need.model.key: "served" for need in report.models},
        knowledge={need.id: "handbook" for need in report.knowledge},
        tools={
            need.key.removeprefix("tool:"): {"openapi": "http://localhost/api.json"}
            for need in report.tools
        },
        environment={need.name: "1" for need in report.environment},
    )
    _, bound = read_app(source.read(), bindings, Offers(code=True))
    assert bound.of("missing") == []
    assert all(need.bound == "served" for need in bound.models)


def test_every_finding_has_a_place_and_line(read: tuple[App, Report]) -> None:
    """Each finding leads to a line of the file."""
    _, report = read
    assert all(each.place and each.line for each in report.findings)


def test_it_fits_the_schema(source: Source) -> None:
    """The JSON Schema for editors has nothing against a real export."""
    errors = _validator().iter_errors(read_yaml(source.read()).value)
    assert [str(error) for error in errors] == []


@functools.cache
def _validator() -> Any:
    return jsonschema_rs.validator_for(json.dumps(app_schema()))
