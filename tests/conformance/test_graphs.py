"""Every graph of `graphs/` gives what it says, event by event, in virtual time."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import trio
import trio.testing

from server.dify.dsl import read_app
from server.workflow.capacity import Capacity
from server.workflow.engine import RunResult, run
from server.workflow.events import Chunk, InputRequired
from server.workflow.forms import FormBook
from server.workflow.graph import compile_graph
from server.workflow.inputs import checked
from server.workflow.jinja import InProcessJinja
from server.workflow.limits import Limits
from server.workflow.node import Run
from tests.conformance.cases import Case, ListSink, cases, line_of
from tests.conformance.scripted import (
    ScriptedCode,
    ScriptedKnowledge,
    ScriptedModels,
    ScriptedTools,
    ScriptedWeb,
)
from tests.server.workflow.fakes import services

CASES = list(cases())


async def run_case(case: Case, sink: ListSink) -> RunResult:
    """Import, compile and run it, with the world that it asks for."""
    test = case.test
    app, _ = read_app(case.export)
    graph = compile_graph(app.graph, app.mode)
    script = test.get("code", {}).get("code", [])
    forms = FormBook()
    run_ = Run(
        id="run",
        app=app,
        query=test.get("query") or "",
        services=services(
            models=ScriptedModels(test.get("models", {})),
            code=ScriptedCode(script if isinstance(script, list) else [script]),
            web=ScriptedWeb(test.get("web", {})),
            tools=ScriptedTools(test.get("tools", {})),
            knowledge=ScriptedKnowledge(test.get("knowledge", {})),
            jinja=InProcessJinja(),
            forms=forms,
        ),
    )
    async with trio.open_nursery() as nursery:
        if "people" in test:
            nursery.start_soon(_answer, forms, sink, test["people"])
        result = await run(
            graph,
            run_,
            checked(app.inputs, test.get("inputs") or {}),
            sink,
            capacity=Capacity(),
            limits=Limits(**test.get("limits", {})),
            start=test.get("root"),
        )
        nursery.cancel_scope.cancel()
    return result


async def _answer(forms: FormBook, sink: ListSink, people: list[dict[str, Any]]) -> None:
    for person, at in zip(people, itertools.count(), strict=False):
        await trio.sleep(person["after_s"])
        asked = [event for event in sink.events if isinstance(event, InputRequired)]
        forms.submit(asked[at].token, person["action"], person["values"])


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_a_graph_gives_what_it_says(
    case: Case, autojump_clock: trio.testing.MockClock
) -> None:
    """Status, outputs and error; and what happened, in order."""
    sink = ListSink()
    result = await run_case(case, sink)
    test = case.test
    assert result.status == test["status"], result.error
    if "outputs" in test:
        outputs = {name: value for name, value in result.outputs.items() if name != "files"}
        assert outputs == test["outputs"]
    assert set(test.get("outputs_have", ())) <= set(result.outputs)
    _check_error(result.error, test)
    if "text" in test:
        said = [event.text for event in sink.events if isinstance(event, Chunk)]
        assert "".join(said) == test["text"]
    if test.get("events_checked", True):
        assert [line_of(event) for event in sink.events] == test["events"]


def _check_error(error: str | None, test: dict[str, Any]) -> None:
    if "error" in test:
        assert error == test["error"]
    if "error_has" in test:
        assert test["error_has"] in (error or "")
    if "error_starts" in test:
        assert (error or "").startswith(test["error_starts"])
    if test["status"] == "succeeded":
        assert error is None


def test_there_are_enough_cases() -> None:
    """At least sixty graphs."""
    assert len({case.export for case in CASES}) >= 60
