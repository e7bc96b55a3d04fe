"""The pages on nodes and events say what the code does: types, handles, values, limits, fields."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from server.dify.dsl import read_app
from server.workflow import events
from server.workflow.app import App, GraphSpec, Mode
from server.workflow.comparing import BINARY, UNARY
from server.workflow.engine import _system
from server.workflow.failures import MOST_RETRIES
from server.workflow.graph import compile_graph
from server.workflow.limits import MOST_ANSWERS, MOST_EDGES, MOST_NESTED, MOST_NODES, Limits
from server.workflow.node import FAIL_BRANCH, SOURCE, Node, Run
from server.workflow.nodes import NODES, node_class
from server.workflow.nodes.human_input import TIMEOUT
from server.workflow.values import FILE_ATTRIBUTES, markdown_of, text_of
from tests.docs.pages import ROOT, code_blocks, pages, rows, section, ticked
from tests.server.workflow.fakes import services

PAGE = ROOT / "docs" / "reference" / "nodes.md"
EVENTS = ROOT / "docs" / "reference" / "events.md"
WORKFLOW = ROOT / "server" / "workflow"


def _class(type: str) -> type[Node]:
    found = node_class(type)
    assert found is not None
    return found


# --- types


def test_every_type_has_a_section_and_a_line() -> None:
    """No type is missing, and none is there that the code does not know."""
    headings = re.findall(r"^### (.+)$", section(PAGE, "Nodes"), re.MULTILINE)
    assert sorted(name for heading in headings for name in ticked(heading)) == sorted(NODES)
    lines = [ticked(cells[0])[0] for cells in rows(section(PAGE, "All types"))]
    assert sorted(lines) == sorted(NODES)


@pytest.mark.parametrize("type", sorted(NODES))
def test_the_line_of_a_type_is_as_the_class_says(type: str) -> None:
    """What it waits for, whether it tries again, what it streams, and what it gives out."""
    [cells] = [cells for cells in rows(section(PAGE, "All types")) if ticked(cells[0]) == [type]]
    found = _class(type)
    assert (cells[1] or "none") == found.work
    assert (cells[2] == "yes") == found.retries
    streams = [] if found.streams is Node.streams else [*found.streams(object.__new__(found))]
    assert ticked(cells[3]) == streams
    sources = "".join(path.read_text(encoding="utf-8") for path in WORKFLOW.rglob("*.py"))
    outputs = [name for name in ticked(cells[4]) if name != "main"]
    assert [name for name in outputs if f'"{name}"' not in sources] == []


# --- handles


def test_every_branching_type_is_among_the_handles() -> None:
    """And no other but the strategy that makes any node branch."""
    table = {cells[0]: cells[1] for cells in rows(section(PAGE, "Handles"))}
    listed = {ticked(name)[0] for name in table if name.startswith("`")}
    assert listed == {type for type in NODES if _class(type).branches}
    assert TIMEOUT in ticked(table["`human-input`"])
    [any_node] = [handles for name, handles in table.items() if name.startswith("any")]
    assert ticked(any_node) == [FAIL_BRANCH]
    assert SOURCE in ticked(section(PAGE, "Handles"))


# --- limits


def test_limits_are_those_of_the_code() -> None:
    """The defaults of a run, in the order of the table, and the bounds of a graph."""
    listed = [cells[1] for cells in rows(section(PAGE, "Limits"))]
    assert listed[:-1] == [f"{value:g}" if value < 1e6 else str(value) for value in _limits()]
    text = section(PAGE, "Limits")
    for number in (MOST_NODES, MOST_EDGES, MOST_NESTED, MOST_ANSWERS):
        assert re.search(rf"\b{number:,} (nodes|edges|containers)", text)
    assert f"at most {MOST_RETRIES})" in section(PAGE, "When a node fails")


def _limits() -> Iterator[float]:
    return (getattr(Limits(), name) for name in Limits.__struct_fields__)


# --- values


def test_renderings_are_those_of_the_code() -> None:
    """Each value of the table reads in texts and in answers as it says there."""
    table = [cells for cells in rows(section(PAGE, "Values")) if cells[0].startswith("`")]
    shown = [[ticked(cell)[0] for cell in cells] for cells in table if "sys." not in cells[0]]
    assert len(shown) > 5
    for value, text, markdown in (map(json.loads, line) for line in shown):
        assert text_of(value) == text
        assert markdown_of(value) == markdown


def test_file_attributes_are_listed() -> None:
    """All that a selector may name below a file."""
    assert set(ticked(section(PAGE, "Values"))) >= FILE_ATTRIBUTES


def test_system_variables_are_those_of_the_engine() -> None:
    """By kind of app."""
    table = {ticked(cells[0])[0]: cells[1] for cells in rows(section(PAGE, "System variables"))}
    workflow, chat = _system_of("workflow"), _system_of("advanced-chat")
    assert {name for name, apps in table.items() if apps != "chats"} == workflow
    assert {name for name, apps in table.items() if apps != "workflow"} == chat


def _system_of(mode: Mode) -> set[str]:
    app = App(id="a", name="a", mode=mode, graph=GraphSpec((), ()))
    run = Run(id="r", app=app, services=services())
    return {f"sys.{name}" for name in _system(run, 0.0, (), 1)}


def test_operators_are_listed() -> None:
    """All of if-else."""
    named = set(ticked(section(PAGE, "Nodes", "`if-else`")))
    assert set(BINARY) | set(UNARY) <= named


# --- events


def _events() -> dict[str, type[events.Event]]:
    found = [value for value in vars(events).values() if isinstance(value, type)]
    kinds = [value for value in found if issubclass(value, events.Event)]
    tagged = {value.__struct_config__.tag: value for value in kinds}
    del tagged["Event"], tagged["OfNode"]
    return {str(name): kind for name, kind in tagged.items()}


def test_every_event_is_on_its_page() -> None:
    """And no other."""
    text = EVENTS.read_text(encoding="utf-8")
    assert sorted(re.findall(r"^### `(\w+)`$", text, re.MULTILINE)) == sorted(_events())


@pytest.mark.parametrize("name", sorted(_events()))
def test_every_field_of_an_event_is_on_its_page(name: str) -> None:
    """In the order in which they are written; those of all node events stand above."""
    kind = _events()[name]
    common: tuple[str, ...] = ()
    chapter = "What belongs to the run"
    if issubclass(kind, events.OfNode):
        common, chapter = events.OfNode.__struct_fields__, "What belongs to a node"
        before = section(EVENTS, chapter).split("\n### ")[0]
        assert tuple(ticked(cells[0])[0] for cells in rows(before)) == common
    listed = [ticked(cells[0])[0] for cells in rows(section(EVENTS, chapter, f"`{name}`"))]
    assert listed == [field for field in kind.__struct_fields__ if field not in common]


def test_every_status_is_explained() -> None:
    """Of runs and of nodes."""
    for chapter, name, statuses in (
        ("What belongs to the run", "`run_finished`", events.RunStatus),
        ("What belongs to a node", "`node_finished`", events.NodeStatus),
    ):
        table = {ticked(cells[0])[0]: cells[1] for cells in rows(section(EVENTS, chapter, name))}
        assert set(ticked(table["status"])) == set(statuses.__args__)  # type: ignore[attr-defined]


# --- apps


def _apps() -> list[str]:
    blocks = [block for page in pages() for block in code_blocks(page, "yaml")]
    return [block for block in blocks if "kind: app" in block]


@pytest.mark.parametrize("text", _apps())
def test_apps_shown_can_be_imported(text: str) -> None:
    """They are read, and their graphs compiled."""
    app, _ = read_app(text)
    assert compile_graph(app.graph, app.mode).vertices


def test_the_tutorial_shows_the_report_as_it_is() -> None:
    """Line by line, of the app that stands in it."""
    page = ROOT / "docs" / "tutorial-dify.md"
    [text] = code_blocks(page, "yaml")
    _, report = read_app(text)
    shown = section(page, "2. What does it need?")
    for finding in report.findings:
        assert finding.message in shown
        assert f"at {finding.place}, line {finding.line}" in shown
