"""The cases of `graphs/`: exports as people write them, each with what must come of it.

A file is an export with one key more, `tests`: a list of runs. Each says what goes in (`inputs`,
`query`), what the world around answers (`models`, `code`, `web`, `tools`, `knowledge`, `people`,
`limits`), and what comes out: `status`, `outputs`, `error`, and `events`, one line each.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml

from server.workflow.events import (
    Chunk,
    ContainerFinished,
    ContainerStarted,
    Event,
    InputRequired,
    InputTaken,
    NodeFinished,
    NodeRetried,
    NodeStarted,
    OfNode,
    ReasoningChunk,
    RoundStarted,
    RunFinished,
    RunPaused,
    RunResumed,
    RunStarted,
    VariableSet,
)

GRAPHS = Path(__file__).parent / "graphs"


class Case(NamedTuple):
    """One run of one graph."""

    name: str
    export: str
    test: dict[str, Any]


def cases() -> Iterator[Case]:
    for path in sorted(GRAPHS.glob("*.yml")):
        export = path.read_text()
        tests = yaml.safe_load(export)["tests"]
        for number, test in enumerate(tests):
            yield Case(f"{path.stem}-{number}", export, test)


class ListSink:
    """Keeps every event."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def put(self, event: Event) -> None:
        self.events.append(event)

    async def drain(self) -> None:
        return


def line_of(event: Event) -> str:
    """An event in one line: what happened to which node, and what was said."""
    if isinstance(event, OfNode):
        return f"{_within(event)}{event.node_id}: {_of_node(event)}"
    match event:
        case RunStarted():
            return "run started"
        case RunFinished(status=status):
            return f"run {status}"
        case RunPaused(node_ids=ids):
            return f"run paused by {', '.join(ids)}"
        case RunResumed():
            return "run resumed"
    raise AssertionError(event)


def _within(event: OfNode) -> str:
    return "".join(f"{container}[{index}] / " for container, index in event.within)


def _of_node(event: OfNode) -> str:
    match event:
        case NodeStarted():
            return "started"
        case NodeFinished(status=status):
            return status
        case NodeRetried(retry_index=index):
            return f"retry {index}"
        case Chunk(text=text, selector=selector, answer_id=answer):
            return f"says {text!r} of {'.'.join(selector)} in {answer}"
        case ReasoningChunk(text=text):
            return f"thinks {text!r}"
        case ContainerStarted(length=length):
            return f"begins {length} rounds"
        case RoundStarted(index=index):
            return f"round {index}"
        case ContainerFinished(status=status, steps=steps):
            return f"{status} after {steps} rounds"
        case VariableSet(selector=selector, value=value):
            return f"sets {'.'.join(selector)} to {msgspec.json.encode(value).decode()}"
        case InputRequired():
            return "asks"
        case InputTaken(action=action):
            return f"is answered {action}"
    raise AssertionError(event)
