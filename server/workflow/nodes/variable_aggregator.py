"""variable-aggregator: the first variable that is there, of several branches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from server.workflow.node import Inline, NodeRun, Result
from server.workflow.reading import Reader
from server.workflow.values import Value
from server.workflow.variables import MISSING, Selector, Variables

__all__ = ["VariableAggregator"]

_Group = tuple[str, tuple[tuple[str, ...], ...]]


class VariableAggregator(Inline):
    """Gives it out as `output`; with groups, each group's under the group's name."""

    type: ClassVar[str] = "variable-aggregator"

    def read(self, data: Reader) -> None:
        settings = data.table("advanced_settings")
        self._grouped = settings.flag("group_enabled")
        self._groups: tuple[_Group, ...] = (("", _selectors(data)),)
        if self._grouped:
            self._groups = tuple(
                (each.text("group_name"), _selectors(each)) for each in settings.tables("groups")
            )

    def reads(self) -> Iterable[Selector]:
        return (selector for _, selectors in self._groups for selector in selectors)

    def evaluate(self, run: NodeRun) -> Result:
        outputs: dict[str, Value] = {}
        inputs: dict[str, Value] = {}
        for name, selectors in self._groups:
            selector, value = _first(selectors, run.variables)
            if value is MISSING:
                continue
            inputs[".".join(selector[1:])] = value
            if self._grouped:
                outputs[name] = {"output": value}
            else:
                outputs["output"] = value
        return Result(outputs=outputs, inputs=inputs)


def _selectors(data: Reader) -> tuple[tuple[str, ...], ...]:
    """Lists of selectors; those that are half filled in find nothing."""
    return tuple(
        Reader({"variable": each}, f"{data.place}.variables[{number}]").selector("variable")
        for number, each in enumerate(data.items("variables"))
    )


def _first(selectors: Sequence[Selector], variables: Variables) -> tuple[Selector, Value]:
    for selector in selectors:
        value = variables.get(selector)
        if value is not MISSING:
            return selector, value
    return (), MISSING
