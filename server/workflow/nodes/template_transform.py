"""template-transform: text from a Jinja template."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final

from server.workflow.node import NodeError, NodeRun, Result, Task, Work
from server.workflow.reading import Reader
from server.workflow.services import CodeFailed
from server.workflow.values import plain
from server.workflow.variables import MISSING, Selector

__all__ = ["TemplateTransform"]

MOST_CHARACTERS: Final = 400_000
"""Of the output, as in Dify."""


class TemplateTransform(Task):
    """Rendered at once where that is sure to be cheap, else by a worker."""

    type: ClassVar[str] = "template-transform"
    work: ClassVar[Work] = "cpu"

    def read(self, data: Reader) -> None:
        self._template = data.text("template")
        self._variables = tuple(
            (each.text("variable"), each.selector("value_selector"))
            for each in data.tables("variables")
        )

    def reads(self) -> Iterable[Selector]:
        return (selector for _, selector in self._variables)

    def at_once(self, run: NodeRun) -> Result | None:
        values = self._values(run)
        try:
            text = run.run.services.jinja.render_now(self._template, values)
        except CodeFailed as error:
            raise NodeError(error.message, error.type, inputs=values) from None
        return None if text is None else _result(text, values)

    async def execute(self, run: NodeRun) -> Result:
        result = self.at_once(run)
        if result is not None:
            return result
        values = self._values(run)
        try:
            text = await run.run.services.jinja.render(self._template, plain(values))
        except CodeFailed as error:
            raise NodeError(error.message, error.type, inputs=values) from None
        return _result(text, values)

    def _values(self, run: NodeRun) -> dict[str, Any]:
        find = run.variables.get
        values = {name: find(selector) for name, selector in self._variables}
        for name, value in values.items():
            if value is MISSING:
                values[name] = None
        return values


def _result(text: str, values: dict[str, Any]) -> Result:
    if len(text) > MOST_CHARACTERS:
        raise NodeError(f"Output length exceeds {MOST_CHARACTERS} characters", inputs=values)
    return Result(outputs={"output": text}, inputs=values)
