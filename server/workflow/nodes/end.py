"""end: what a workflow gives out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from server.workflow.node import Inline, NodeRun, Result
from server.workflow.reading import Reader
from server.workflow.template import Segment
from server.workflow.variables import MISSING, Selector

__all__ = ["End"]


class End(Inline):
    """Gives out each variable under its name; what is not there is None."""

    type: ClassVar[str] = "end"

    shows: tuple[Segment, ...]
    """What of it is streamed: its variables in order, a line each (dify: text "\\n" between)."""

    def read(self, data: Reader) -> None:
        self._outputs = tuple(
            (each.text("variable"), each.selector("value_selector"))
            for each in data.tables("outputs")
        )
        self.shows = _lines([selector for _, selector in self._outputs if len(selector) > 1])

    def reads(self) -> Iterable[Selector]:
        return (selector for _, selector in self._outputs)

    def evaluate(self, run: NodeRun) -> Result:
        find = run.variables.get
        outputs = {name: find(selector) for name, selector in self._outputs}
        for name, value in outputs.items():
            if value is MISSING:
                outputs[name] = None
        return Result(outputs=outputs, inputs=outputs)


def _lines(selectors: list[tuple[str, ...]]) -> tuple[Segment, ...]:
    parts: list[Segment] = []
    for selector in selectors:
        if parts:
            parts.append("\n")
        parts.append(selector)
    return tuple(parts)
