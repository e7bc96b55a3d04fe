"""Running the exports of `tests/data/dsl` beside stand-ins for the world around them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio
import yaml

from server.dify.dsl import read_app
from server.sandbox import Sandbox
from server.workflow.app import App, Bindings
from server.workflow.capacity import Capacity
from server.workflow.engine import RunResult, run
from server.workflow.events import Sink
from server.workflow.forms import FormBook
from server.workflow.graph import begins_with_an_event, compile_graph
from server.workflow.inputs import checked, of_event
from server.workflow.jinja import InProcessJinja
from server.workflow.limits import Limits
from server.workflow.node import Run
from server.workflow.services import Services
from tests.conformance.cases import ListSink
from tests.conformance.obliging import Answers, Obliging, inputs_for

DATA = Path(__file__).parent.parent / "data" / "dsl"
FILES = sorted(path for path in DATA.rglob("*") if path.suffix in (".yml", ".yaml"))

ANSWERS: dict[str, Answers] = yaml.safe_load((Path(__file__).parent / "answers.yml").read_text())
"""By file name."""

PATIENCE_S = 30


class Jinja:
    """Templates as the product renders them: here, or in a worker."""

    def __init__(self, here: InProcessJinja, worker: Sandbox) -> None:
        self.render_now = here.render_now
        self.render = worker.render


async def run_export(
    app: App, answers: Answers, sandbox: Sandbox, sink: Sink | None = None
) -> RunResult:
    """Run it to its end, with something for all that it asks for."""
    world = Obliging(app, answers)
    given: dict[str, Any] = {
        "models": world.models,
        "tools": world.tools,
        "web": world.web,
        "knowledge": world.knowledge,
        "files": world.files,
        "code": sandbox,
        "documents": sandbox,
        "jinja": Jinja(InProcessJinja(), sandbox),
        "forms": FormBook(),
    }
    services = Services(**given)
    query = "What is this about?"
    with trio.fail_after(PATIENCE_S):
        return await run(
            compile_graph(app.graph, app.mode),
            Run(id="run", app=app, services=services, query=query, conversation_id="c", user="u"),
            _inputs(app, answers),
            sink or ListSink(),
            capacity=Capacity(),
            limits=Limits(),
        )


def _inputs(app: App, answers: Answers) -> dict[str, Any]:
    if begins_with_an_event(app.graph):
        return of_event(answers["inputs"])
    return checked(app.inputs, inputs_for(app.inputs, answers))


def bound(data: bytes) -> App:
    """The app with a value for each environment variable that its file leaves open."""
    app, _ = read_app(data)
    open_values = {
        each.name: 3 if each.value_type == "number" else "something"
        for each in app.environment
        if each.value in ("", None)
    }
    app, _ = read_app(data, Bindings(environment=open_values))
    return app
