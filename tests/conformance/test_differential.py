"""Graphs drawn at random come to the same in graphon, Dify's own engine, as they do here.

Needs an interpreter that has graphon (Python 3.12): named by TRIOLET_GRAPHON_PYTHON, else skipped.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import yaml
from hypothesis import HealthCheck, given, settings

from server.workflow.events import Chunk
from tests.conformance.cases import Case, ListSink, cases
from tests.conformance.drawn import Drawn, drawn
from tests.conformance.test_graphs import run_case

PYTHON = os.environ.get("TRIOLET_GRAPHON_PYTHON")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PYTHON is None, reason="TRIOLET_GRAPHON_PYTHON names no interpreter"),
]

Oracle = Callable[[dict[str, Any]], dict[str, Any]]

NOT_IN_GRAPHON = {"models", "web", "tools", "people", "knowledge", "limits", "code"}
"""What a case may ask of the world that the oracle has not."""


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    """Asks one process, again and again."""
    script = Path(__file__).parent / "graphon_oracle.py"
    assert PYTHON is not None
    with subprocess.Popen(
        [PYTHON, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        tell, hear = process.stdin, process.stdout

        def ask(case: dict[str, Any]) -> dict[str, Any]:
            tell.write(json.dumps(case) + "\n")
            tell.flush()
            answer: dict[str, Any] = json.loads(hear.readline())
            return answer

        yield ask
        process.stdin.close()


def ours(case: Case) -> dict[str, Any]:
    sink = ListSink()

    async def body() -> Any:
        return await run_case(case, sink)

    result = trio.run(body, clock=trio.testing.MockClock(autojump_threshold=0))
    return {
        "status": result.status,
        "outputs": {name: value for name, value in result.outputs.items() if name != "files"},
        "text": "".join(event.text for event in sink.events if isinstance(event, Chunk)),
    }


def compared(told: dict[str, Any]) -> dict[str, Any]:
    outputs = {name: value for name, value in told["outputs"].items() if name != "files"}
    return {"status": told["status"], "outputs": outputs, "text": told["text"]}


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(drawn())
def test_drawn_graphs_come_to_the_same(oracle: Oracle, graph: Drawn) -> None:
    """Status, outputs, and the text in its order."""
    told = oracle({"export": graph.export, "inputs": graph.inputs, "query": graph.query})
    assert "cannot" not in told, told
    test = {"inputs": graph.inputs, "query": graph.query}
    found = ours(Case("drawn", graph.export, test))
    if told["status"] == "failed":  # with what outputs a run fails, nobody sees
        assert found["status"] == "failed"
        return
    expected = compared(told)
    if graph.timed:  # whoever is faster speaks first
        for each in (found, expected):
            each["text"] = sorted(each["text"])
            each["outputs"] = {
                name: sorted(value) if name == "answer" else value
                for name, value in each["outputs"].items()
            }
    assert found == expected


SAME = [
    case
    for case in cases()
    if case.test.get("graphon", True) and not NOT_IN_GRAPHON & case.test.keys()
]


@pytest.mark.parametrize("case", SAME, ids=[case.name for case in SAME])
def test_our_cases_come_to_the_same(oracle: Oracle, case: Case) -> None:
    """What the conformance tables expect is what graphon does."""
    test = case.test
    told = oracle(
        {
            "export": case.export,
            "inputs": test.get("inputs"),
            "query": test.get("query"),
            "root": test.get("root"),
        }
    )
    if "Unsupported node types" in told.get("cannot", ""):
        pytest.skip(told["cannot"])
    assert compared(told)["status"] == test["status"]
    if test["status"] != "failed":
        assert compared(told)["outputs"] == test["outputs"]
    if "events" in test:
        mine, theirs = _outer(test["events"], case), _outer(told["events"], case)
        assert _said(mine) == _said(theirs)
        if not case.name.startswith(AT_ONCE):
            assert _lived(mine) == _lived(theirs)


AT_ONCE = "branch_into_parallel_code"
"""The one case with nodes that wait beside one another: graphon, with one worker, has them in turn.
"""


def _outer(events: list[str], case: Case) -> list[str]:
    """Without what happens inside containers, which graphon tells in another way."""
    nodes = yaml.safe_load(case.export)["workflow"]["graph"]["nodes"]
    inner = {node["id"] for node in nodes if node.get("parentId")}
    return [line for line in events if " / " not in line and line.split(":")[0] not in inner]


def _said(events: list[str]) -> list[str]:
    """The pieces of text and where they are from, in their order; those that are empty left out."""
    found = [re.search(r"says (.+) of (\S+)", line) for line in events]
    return [f"{one[1]} {one[2]}" for one in found if one and one[1] != "''"]


def _lived(events: list[str]) -> list[str]:
    """Who began and who ended, in their order. When text is said in between is not compared:
    graphon's workers run ahead of those who look for what can be shown."""
    ends = (" started", " succeeded", " failed", " exception", "retry")
    return [
        line
        for line in events
        if " says " not in line and (line.endswith(ends) or line.startswith("run "))
    ]
