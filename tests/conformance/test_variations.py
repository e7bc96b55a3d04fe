"""Exports written in other ways import, and run as they did."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from server.dify.dsl import read_app
from server.dify.report import Report
from server.sandbox import Sandbox, SandboxOptions
from server.workflow.app import App
from server.workflow.events import NodeFinished
from server.workflow.graph import compile_graph
from tests.conformance.cases import ListSink
from tests.conformance.exports import ANSWERS, FILES, bound, run_export
from tests.conformance.variations import VARIATIONS


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIATIONS)
def test_they_import_alike(name: str) -> None:
    """To the same nodes, edges, inputs and needs."""
    for path in _some(name, 3):
        app, report = _usual(path)
        other, other_report = read_app(VARIATIONS[name](path.read_bytes()))
        compile_graph(other.graph, other.mode)
        assert {node.id for node in other.graph.nodes} == {node.id for node in app.graph.nodes}
        assert {(edge.source, edge.target, edge.handle) for edge in other.graph.edges} == {
            (edge.source, edge.target, edge.handle) for edge in app.graph.edges
        }, path.name
        assert other.inputs == app.inputs, path.name
        assert bool(other_report.models) == bool(report.models), path.name
        assert len(other_report.tools) == len(report.tools), path.name


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIATIONS)
async def test_they_run_alike(name: str) -> None:
    """The same nodes with the same ends, and outputs of the same names."""
    async with Sandbox(SandboxOptions(enabled=True)) as sandbox:
        for path in _some(name, 6):
            data = path.read_bytes()
            usual = await _told(data, path.name, sandbox)
            assert await _told(VARIATIONS[name](data), path.name, sandbox) == usual, path.name


def _some(name: str, share: int) -> list[Path]:
    """One file of so many, and not the same ones for each variation."""
    return FILES[list(VARIATIONS).index(name) % share :: share]


@lru_cache(maxsize=100)
def _usual(path: Path) -> tuple[App, Report]:
    return read_app(path.read_bytes())


async def _told(data: bytes, name: str, sandbox: Sandbox) -> tuple[Any, ...]:
    sink = ListSink()
    result = await run_export(bound(data), ANSWERS.get(name, {}), sandbox, sink)
    ends = [(e.node_id, str(e.status)) for e in sink.events if isinstance(e, NodeFinished)]
    return result.status, result.error, sorted(result.outputs), sorted(ends)
