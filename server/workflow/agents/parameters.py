"""What an agent is told: `agent_parameters` of an export, read once, valued in each run. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from server.workflow.app import OPEN_MODEL, ModelRef
from server.workflow.reading import GraphError, Reader
from server.workflow.template import Template
from server.workflow.values import Value, text_of
from server.workflow.variables import MISSING, Variables

__all__ = ["Parameter", "model_of", "parameters_of"]


class Parameter:
    """One of them: a constant (whose texts may hold placeholders), or a variable."""

    __slots__ = ("_selector", "_value")

    def __init__(self, value: Any, selector: tuple[str, ...] = ()) -> None:
        self._selector = selector
        self._value = _compiled(value)

    def value(self, variables: Variables) -> Value:
        """What it is in this run; None for a variable that is not there."""
        if self._selector:
            found = variables.get(self._selector)
            return None if found is MISSING else found
        return _valued(self._value, variables)

    def text(self, variables: Variables) -> str:
        return text_of(self.value(variables))

    def selectors(self) -> Iterator[tuple[str, ...]]:
        """The variables that it reads."""
        if self._selector:
            yield self._selector
        yield from _selectors(self._value)


def parameters_of(data: Reader, key: str = "agent_parameters") -> dict[str, Parameter]:
    """Each by its name. What is no {type, value} is taken for a constant."""
    table = data.table(key)
    return {str(name): parameter_of(table, str(name)) for name in table.data}


def parameter_of(table: Reader, name: str) -> Parameter:
    """One entry of a table of parameters. Raises `GraphError`."""
    found = table.data.get(name)
    if not (isinstance(found, Mapping) and "value" in found):
        return Parameter(found)
    if found.get("type") == "variable":
        return Parameter(None, table.table(name).selector("value"))
    return Parameter(found["value"])


def model_of(found: Any, place: str) -> ModelRef:
    """The model that an agent is to use: exports say `model` or `name`. Raises `GraphError`."""
    if not isinstance(found, Mapping):
        raise GraphError(place, "an agent needs a model: expected {provider, model, mode}")
    name = found.get("model") or found.get("name") or OPEN_MODEL
    if not isinstance(name, str):
        raise GraphError(place, "this model has no name")
    mode: Literal["chat", "completion"] = (
        "completion" if found.get("mode") == "completion" else "chat"
    )
    return ModelRef(provider=str(found.get("provider") or ""), name=name, mode=mode)


def _compiled(value: Any) -> Any:
    if isinstance(value, str):
        return Template(value) if "{{#" in value else value
    if isinstance(value, Mapping):
        return {str(name): _compiled(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_compiled(item) for item in value]
    return value


def _valued(value: Any, variables: Variables) -> Value:
    if isinstance(value, Template):
        return value.text(variables)
    if isinstance(value, dict):
        return {name: _valued(item, variables) for name, item in value.items()}
    if isinstance(value, list):
        return [_valued(item, variables) for item in value]
    return value


def _selectors(value: Any) -> Iterator[tuple[str, ...]]:
    if isinstance(value, Template):
        yield from value.selectors
    elif isinstance(value, dict):
        for item in value.values():
            yield from _selectors(item)
    elif isinstance(value, list):
        for item in value:
            yield from _selectors(item)
