"""Events of runs as a sink would have taken them, for the tests of the timeline."""

from __future__ import annotations

from typing import Any

from server.timeline import Moment
from server.workflow.events import (
    Chunk,
    NodeFinished,
    NodeRetried,
    NodeStarted,
    RoundStarted,
    RunFinished,
    RunStarted,
)

START = 1_700_000_000.0


class Story:
    """Collects moments; times are seconds since the start."""

    def __init__(self) -> None:
        self.moments: list[Moment] = [
            (START, RunStarted(run_id="run", inputs={}, at=START)),
        ]
        self._index = 0
        self._started: dict[str, tuple[NodeStarted, float]] = {}

    def start(
        self, id: str, at: float, *, type: str = "llm", after: str | None = None,
        within: tuple[tuple[str, int], ...] = (), title: str = "", node: str | None = None,
    ) -> None:  # fmt: skip
        self._index += 1
        event = NodeStarted(
            node_run_id=id,
            node_id=node or id,
            node_type=type,
            title=title or id,
            within=within,
            index=self._index,
            predecessor_id=after,
            at=START + at,
        )
        self._started[id] = (event, at)
        self.moments.append((START + at, event))

    def finish(self, id: str, at: float, **fields: Any) -> None:
        event, began = self._started[id]
        given: dict[str, Any] = {
            "status": "succeeded",
            "inputs": {},
            "process_data": {},
            "outputs": {},
            "error": None,
            "error_type": None,
            "handle": "source",
            "metadata": {},
            "elapsed_s": at - began,
        }
        finished = NodeFinished(
            **self._whose(event),
            index=event.index,
            predecessor_id=event.predecessor_id,
            started_at=START + began,
            at=START + at,
            **given | fields,
        )
        self.moments.append((START + at, finished))

    def retry(self, id: str, at: float, elapsed_s: float) -> None:
        event, _ = self._started[id]
        retried = NodeRetried(
            **self._whose(event),
            retry_index=1,
            error="no",
            error_type="E",
            elapsed_s=elapsed_s,
            at=START + at,
        )
        self.moments.append((START + at, retried))

    def chunk(self, id: str, at: float, text: str = "x") -> None:
        event, _ = self._started[id]
        chunk = Chunk(**self._whose(event), selector=("n", "text"), text=text, answer_id="answer")
        self.moments.append((START + at, chunk))

    def round(self, container: str, number: int, at: float) -> None:
        event, _ = self._started[container]
        self.moments.append(
            (START + at, RoundStarted(**self._whose(event), index=number, at=START + at))
        )

    def end(self, at: float, **fields: Any) -> None:
        given: dict[str, Any] = {"status": "succeeded", "error": None} | fields
        finished = RunFinished(
            run_id="run",
            outputs={},
            elapsed_s=at,
            total_tokens=12,
            total_steps=self._index,
            exceptions_count=0,
            at=START + at,
            **given,
        )
        self.moments.append((START + at, finished))

    @staticmethod
    def _whose(event: NodeStarted) -> dict[str, Any]:
        names = ("node_run_id", "node_id", "node_type", "title", "within")
        return {name: getattr(event, name) for name in names}
