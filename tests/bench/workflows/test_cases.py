"""The apps that are run are sound, and each contender brings them to the same end."""

from __future__ import annotations

import json

import pytest

from bench.workflows.cases import CASES, STREAM, WAIT, Case
from bench.workflows.raw_child import _RUNS
from server.dify.dsl import read_app
from server.workflow.graph import compile_graph

ALL = [*CASES.values(), STREAM, WAIT]


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_every_case_is_an_export_without_faults(case: Case) -> None:
    """It reads and compiles, and its edges are between its nodes."""
    app, report = read_app(case.export)
    compile_graph(app.graph, app.mode)
    assert report.of("unsupported") == []
    assert {spec.name for spec in app.inputs} == set(case.inputs)


def test_the_numbers_of_nodes_are_as_named() -> None:
    """10 means 10, and 50 means 50."""
    counts = {
        name: len(json.loads(case.export)["workflow"]["graph"]["nodes"])
        for name, case in CASES.items()
    }
    assert counts == {
        "start-end": 2,
        "chain-10": 10,
        "branch-10": 10,
        "chain-50": 50,
        "templates-10": 10,
        "iteration-10x5": 9,
        "iteration-waits": 7,
    }


@pytest.mark.parametrize("name", CASES)
async def test_the_floor_does_the_same_work(name: str) -> None:
    """What runs without an engine comes to the same outputs."""
    case = CASES[name]
    assert await _RUNS[name](case.inputs) == case.expected
