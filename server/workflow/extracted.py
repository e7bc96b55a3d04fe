"""Parameters that a model reads out of a text: their schema, and their values. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from server.workflow.reading import Reader
from server.workflow.values import Value

__all__ = ["Extracted", "Parameter", "read_parameter", "read_values", "schema_of"]

_TYPES: Final = frozenset(
    {
        *("string", "number", "boolean"),
        *("array[string]", "array[number]", "array[object]", "array[boolean]"),
    }
)
_OLD_TYPES: Final = {"bool": "boolean", "select": "string"}
_RESERVED: Final = frozenset({"__reason", "__is_success", "__usage"})


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One that is asked for."""

    name: str
    type: str
    description: str = ""
    required: bool = False
    options: tuple[str, ...] = ()

    @property
    def item_type(self) -> str | None:
        """Of a list's items; None of what is no list."""
        return self.type[6:-1] if self.type.startswith("array[") else None

    @property
    def default(self) -> Value:
        """What it is where the text does not say."""
        if self.item_type is not None:
            return []
        return {"number": 0, "boolean": False}.get(self.type, "")

    @property
    def schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": self.type}
        if self.item_type is not None:
            schema = {"type": "array", "items": {"type": self.item_type}}
        if self.description:
            schema["description"] = self.description
        if self.options:
            schema["enum"] = list(self.options)
        return schema


def read_parameter(data: Reader) -> Parameter:
    """Raises `GraphError`."""
    name = data.text("name")
    if not name or name in _RESERVED:
        raise data.wrong("name", f"a parameter cannot have the name {name!r}")
    kind = data.text("type", "string").lower()
    kind = _OLD_TYPES.get(kind, kind)
    if kind not in _TYPES:
        raise data.wrong("type", f"expected one of {', '.join(sorted(_TYPES))}, got {kind!r}"[:300])
    return Parameter(
        name=name,
        type=kind,
        description=data.text("description"),
        required=data.flag("required"),
        # Editors leave them there when the type is changed.
        options=tuple(map(str, data.items("options"))) if kind == "string" else (),
    )


def schema_of(parameters: Sequence[Parameter]) -> dict[str, Any]:
    """Of an object with all of them."""
    return {
        "type": "object",
        "properties": {one.name: one.schema for one in parameters},
        "required": [one.name for one in parameters if one.required],
    }


class Extracted(msgspec.Struct):
    """`reason` is what is wrong with the answer; None if nothing is."""

    values: dict[str, Value]
    reason: str | None = None


def read_values(parameters: Sequence[Parameter], answer: Mapping[str, Any] | None) -> Extracted:
    """A value for each, of its type. What is missing or of another type has its default."""
    values = {one.name: one.default for one in parameters}
    if answer is None:
        return Extracted(values, "no JSON object was found in the model's answer: all are empty")
    reason = None
    for one in parameters:
        given = answer.get(one.name)
        if given is None:
            if one.required:
                reason = reason or f"the parameter {one.name} is required, and was not found"
            continue
        value = _read(one, given)
        if value is None:
            reason = reason or f"the parameter {one.name} is no {one.type}: {given!r}"[:300]
        elif one.options and value not in one.options:
            reason = reason or f"the parameter {one.name} is none of its options: {given!r}"[:300]
        else:
            values[one.name] = value
    return Extracted(values, reason)


def _read(parameter: Parameter, given: Any) -> Value:
    """None if it cannot be read so."""
    item_type = parameter.item_type
    if item_type is None:
        return _READERS[parameter.type](given)
    if not isinstance(given, list):
        return None
    items = map(_READERS[item_type], given)
    return [item for item in items if item is not None]


def _text(given: Any) -> str | None:
    if isinstance(given, bool):
        return str(given).lower()
    if isinstance(given, int | float):
        return str(given)
    return given if isinstance(given, str) else None


def _number(given: Any) -> int | float | None:
    if isinstance(given, bool):
        return int(given)
    if isinstance(given, int | float):
        return given
    if not isinstance(given, str) or len(given) > 400:
        return None
    for read in (int, float):
        try:
            number = read(given)
        except ValueError:
            continue
        if number == number and abs(number) != float("inf"):
            return number
    return None


def _boolean(given: Any) -> bool | None:
    if isinstance(given, str):
        return {"true": True, "false": False}.get(given.strip().lower())
    return bool(given) if isinstance(given, bool | int) else None


def _object(given: Any) -> dict[str, Any] | None:
    return given if isinstance(given, dict) else None


_READERS: Final[dict[str, Callable[[Any], Value]]] = {
    "string": _text,
    "number": _number,
    "boolean": _boolean,
    "object": _object,
}
