"""Runs exports in graphon, Dify's engine, and tells what came of them. Imports nothing of ours.

Run by the interpreter of an environment that has graphon. Standard input has one JSON object per
line: `export`, `inputs`, `query`, `root`; standard output gets one per line: `status`, `outputs`,
`error`, `events` (in the words of `cases.line_of`, as far as graphon has the same events), `text`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import graphon.dsl.node_factory as factory  # type: ignore[import-not-found]
from graphon.dsl import loads
from graphon.engine.filter import (  # type: ignore[import-not-found]
    EngineEventFilterContext,
    ResponseStreamFilter,
    filter_engine_events,
)


class OwnCode:
    """Runs a case's Python in this process: it is ours."""

    def __init__(self, settings: Any) -> None:
        del settings

    def execute(self, *, language: Any, code: str, inputs: Any) -> Any:
        names: dict[str, Any] = {}
        exec(code, names)
        return names["main"](**inputs)

    def is_execution_error(self, error: Exception) -> bool:
        return True


factory.SandboxCodeExecutor = OwnCode

FINISHED = {
    "NodeRunSucceededEvent": "succeeded",
    "NodeRunFailedEvent": "failed",
    "NodeRunExceptionEvent": "exception",
}
RUNS = {
    "GraphRunSucceededEvent": "succeeded",
    "GraphRunPartialSucceededEvent": "partial-succeeded",
    "GraphRunFailedEvent": "failed",
    "GraphRunAbortedEvent": "stopped",
}


def tell(case: dict[str, Any]) -> dict[str, Any]:
    context = {} if case.get("query") is None else {"query": case["query"]}
    inputs = dict(case.get("inputs") or {}) | context
    engine = loads(
        case["export"],
        start_inputs=inputs,
        run_context={},
        root_node_id=case.get("root"),
        workers=1,
    )
    told: dict[str, Any] = {"status": None, "outputs": {}, "error": None, "events": [], "text": ""}
    events = filter_engine_events(
        engine.run(),
        context=EngineEventFilterContext.from_engine(engine),
        filters=[ResponseStreamFilter()],
    )
    try:
        for event in events:
            note(event, told)
    except RuntimeError as exc:  # how it ends a failed run, after its last event
        told |= {"status": "failed", "error": str(exc)}
    return told


def note(event: Any, told: dict[str, Any]) -> None:
    name = type(event).__name__
    lines = told["events"]
    if name == "GraphRunStartedEvent":
        lines.append("run started")
    elif name in RUNS:
        told["status"] = RUNS[name]
        told["outputs"] = plain(getattr(event, "outputs", {}) or {})
        told["error"] = getattr(event, "error", None)
        lines.append(f"run {told['status']}")
    elif name == "NodeRunStartedEvent":
        lines.append(f"{event.node_id}: started")
    elif name in FINISHED:
        lines.append(f"{event.node_id}: {FINISHED[name]}")
    elif name == "NodeRunRetryEvent":
        lines.append(f"{event.node_id}: retry {event.retry_index}")
    elif name == "NodeRunStreamChunkEvent" and event.chunk:
        told["text"] += event.chunk
        lines.append(f"says {event.chunk!r} of {'.'.join(event.selector)}")


def plain(value: Any) -> Any:
    """Values as JSON has them: graphon wraps lists of files."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if hasattr(value, "to_object"):
        return plain(value.to_object())
    if hasattr(value, "value"):
        return plain(value.value)
    return value


def main() -> None:
    for line in sys.stdin:
        try:
            answer = tell(json.loads(line))
        except Exception as exc:
            answer = {"cannot": f"{type(exc).__name__}: {exc}"}
        print(json.dumps(answer, default=str), flush=True)


if __name__ == "__main__":
    main()
