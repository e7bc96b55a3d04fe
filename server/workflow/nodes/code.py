"""Code: a function `main` in Python or JavaScript, run where it can do no harm."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

from server.workflow.code_outputs import (
    DEFAULT_LIMITS,
    OutputLimits,
    OutputSpec,
    checked,
    numbers_read,
)
from server.workflow.node import NodeError, NodeRun, Result, Task, Work
from server.workflow.reading import GraphError, Reader
from server.workflow.services import CodeFailed
from server.workflow.values import Value, plain
from server.workflow.variables import MISSING, Selector, Variables

__all__ = ["Code"]

_DEEPEST = 32


class Code(Task):
    """Its arguments are variables by name, its outputs what `main` returns, checked against what
    the node declares. A service that has `output_limits` sets the limits of that check."""

    type: ClassVar[str] = "code"
    work: ClassVar[Work] = "cpu"
    retries: ClassVar[bool] = True

    def read(self, data: Reader) -> None:
        """Takes code_language, code, variables and outputs."""
        self.language = _language(data)
        self.source = data.text("code")
        self.variables = tuple(
            (entry.text("variable"), entry.selector("value_selector"))
            for entry in data.tables("variables")
        )
        self.outputs = _outputs(data.table("outputs"), 0)

    def reads(self) -> Iterable[Selector]:
        """Those of its arguments."""
        return [selector for _, selector in self.variables if selector]

    async def execute(self, run: NodeRun) -> Result:
        """Raises `NodeError`: whatever the code did wrong."""
        arguments = {name: _argument(run.variables, selector) for name, selector in self.variables}
        code = run.run.services.code
        limits: OutputLimits = getattr(code, "output_limits", DEFAULT_LIMITS)
        try:
            result = await code.run(self.language, self.source, arguments)
            outputs = checked(numbers_read(result), self.outputs, limits)
        except RecursionError:
            message = f"Depth limit {limits.depth} reached, object too deep."
            raise NodeError(message, "DepthLimitError", inputs=arguments) from None
        except CodeFailed as error:
            raise NodeError(error.message, error.type, inputs=arguments) from error
        except NodeError as error:
            error.inputs = arguments
            raise
        return Result(inputs=arguments, outputs=outputs)


def _argument(variables: Variables, selector: Selector) -> Value:
    """What is not there is None, and so is an empty list of files. Files are their dicts."""
    value = variables.get(selector)
    if value is MISSING or (value == [] and tuple(selector) == ("sys", "files")):
        return None
    return plain(value)


def _language(data: Reader) -> Literal["python3", "javascript"]:
    named = data.text("code_language", "python3")
    if named == "python3":
        return "python3"
    if named in ("javascript", "nodejs"):
        return "javascript"
    raise data.wrong("code_language", f"code is python3 or javascript, not {named!r}")


def _outputs(data: Reader, depth: int) -> dict[str, OutputSpec]:
    if depth > _DEEPEST:
        raise GraphError(data.place, f"outputs are nested more than {_DEEPEST} deep")
    return {name: _output(data.table(name), depth) for name in data.data}


def _output(data: Reader, depth: int) -> OutputSpec:
    children: Any = data.value("children")
    below = _outputs(data.table("children"), depth + 1) if children else None
    return OutputSpec(data.text("type", "string"), below)
