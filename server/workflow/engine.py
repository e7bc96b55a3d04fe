"""Running a graph: one run is one cancel scope and at most one nursery per frame.

`run` never raises for what a node does: what became of the run is its `RunResult`, and the last
event that its sink gets is always `RunFinished`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import trio

from server.workflow.capacity import Capacity
from server.workflow.events import RunFinished, RunStarted, RunStatus, Sink
from server.workflow.frame import Frame
from server.workflow.level import Level
from server.workflow.limits import Limits
from server.workflow.node import Run
from server.workflow.progress import Progress
from server.workflow.services import Usage
from server.workflow.topology import Graph
from server.workflow.values import File, Value
from server.workflow.variables import Variables

__all__ = ["RunResult", "Stop", "run"]

_log: Final = logging.getLogger(__name__)


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a run."""

    status: RunStatus
    outputs: dict[str, Value]
    error: str | None = None
    error_type: str | None = None
    usage: Usage = Usage()
    steps: int = 0
    exceptions_count: int = 0
    elapsed_s: float = 0.0
    conversation: dict[str, Value] = {}
    """The conversation variables as the run left them."""


class Stop:
    """Call it from another task: the run ends at once, as "stopped". For one run."""

    __slots__ = ("_progress", "reason")

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self.reason: str | None = None

    def __call__(self, reason: str = "Stopped by user.") -> None:
        """Synchronous; before the run begins, too. The first reason counts."""
        if self.reason is None:
            self.reason = reason
            if self._progress is not None:
                self._progress.abort("stopped", reason)

    def bind(self, progress: Progress) -> None:
        """The run begins."""
        self._progress = progress
        if self.reason is not None:
            progress.abort("stopped", self.reason)


async def run(
    graph: Graph,
    run: Run,
    inputs: dict[str, Value],
    sink: Sink,
    *,
    capacity: Capacity,
    limits: Limits,
    start: str | None = None,
    conversation: Mapping[str, Value] | None = None,
    files: Sequence[File] = (),
    dialogue_count: int = 1,
    stop: Stop | None = None,
) -> RunResult:
    """Run it to its end.

    `inputs` were checked (`inputs.checked`). `start` names the root to begin with, where there are
    several. `conversation` has the values of a conversation that goes on, over the app's own.
    Whatever nodes do becomes a `RunResult`; only a cancellation of the caller goes through, and
    `GraphError` for a `start` that is none. The last event is `RunFinished` in any case.
    """
    root = graph.root_of(start)
    progress = Progress(run, sink, capacity, limits)
    root_id = graph.vertices[root.index].id
    variables = _variables(run, root_id, inputs, conversation)
    system = _system(run, progress.unix(progress.started), files, dialogue_count)
    variables.add("sys", system)
    # Many exports ask the start node for them, by selectors such as [start, "sys.query"].
    variables.add(root_id, {f"sys.{name}": value for name, value in system.items()})
    level = Level(progress, graph, root, variables)
    if stop is not None:
        stop.bind(progress)
    at = progress.unix(progress.started)
    progress.sink.put(RunStarted(run_id=run.id, inputs=inputs, at=at))
    if run.depth > limits.depth:
        progress.abort("failed", f"Max workflow call depth {limits.depth} reached.")
    try:
        await _within_limits(level)
    except BaseException:
        progress.abort("stopped", "Stopped: the caller went away.")
        _finish(level)
        raise
    return _finish(level)


async def _within_limits(level: Level) -> None:
    """Run it in its scope, which a stop or a limit cancels."""
    progress = level.progress
    try:
        with progress.scope:
            await Frame(level).go()
    except* Exception:
        _log.exception("run %s failed by a bug", progress.run.id)
        progress.abort("failed", "internal error")
    if progress.scope.cancelled_caught and progress.ended is None:
        spent = trio.current_time() - progress.started
        most = progress.limits.time_s
        progress.abort("failed", f"Maximum execution time exceeded: {spent:.2f}s > {most:g}s")


def _finish(level: Level) -> RunResult:
    """Put the last event."""
    progress = level.progress
    now = trio.current_time()
    status, error = _status(level)
    event = RunFinished(
        run_id=progress.run.id,
        status=status,
        outputs=level.outputs,
        error=error,
        elapsed_s=now - progress.started,
        total_tokens=progress.usage.total_tokens,
        total_steps=progress.steps,
        exceptions_count=progress.exceptions,
        at=progress.unix(now),
    )
    progress.sink.put(event)
    return RunResult(
        status=status,
        outputs=level.outputs,
        error=error,
        error_type=level.error.type if level.error else None,
        usage=progress.usage,
        steps=progress.steps,
        exceptions_count=progress.exceptions,
        elapsed_s=event.elapsed_s,
        conversation=level.variables.names_of("conversation"),
    )


def _status(level: Level) -> tuple[RunStatus, str | None]:
    if level.progress.ended is not None:
        return level.progress.ended
    if level.error is not None:
        return "failed", level.error.message
    return ("partial-succeeded" if level.progress.exceptions else "succeeded"), None


# The variables that are there from the beginning


def _variables(
    run: Run, root_id: str, inputs: dict[str, Value], conversation: Mapping[str, Value] | None
) -> Variables:
    app = run.app
    variables = Variables()
    variables.add(root_id, inputs)
    if app.environment or app.bindings.environment:
        given = {each.name: each.value for each in app.environment}
        variables.add("env", given | app.bindings.environment)
    if app.conversation:
        begun = {each.name: each.value for each in app.conversation}
        kept = {name: value for name, value in (conversation or {}).items() if name in begun}
        variables.add("conversation", begun | kept)
    return variables


def _system(run: Run, unix: float, files: Sequence[File], dialogue_count: int) -> dict[str, Value]:
    """`sys`, as Dify has it for workflows and for chats."""
    app = run.app
    system: dict[str, Value] = {
        "files": list(files),
        "user_id": run.user,
        "app_id": app.id,
        "workflow_id": app.digest or app.id,
        "workflow_run_id": run.id,
    }
    if app.mode == "workflow":
        system["timestamp"] = int(unix)
        return system
    system["query"] = run.query
    system["conversation_id"] = run.conversation_id
    system["dialogue_count"] = dialogue_count
    return system
