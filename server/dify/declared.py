"""What an app declares: the inputs that it asks for, its environment and conversation variables.

Pure. Bindings for the environment are laid over what the file has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from server.dify.report import Findings
from server.workflow.app import InputSpec, NodeSpec, VariableSpec
from server.workflow.reading import Reader

__all__ = ["INPUT_TYPES", "form_inputs", "read_variables", "start_inputs"]

INPUT_TYPES: Final = (
    *("text-input", "paragraph", "select", "number", "checkbox"),
    *("file", "file-list", "json_object"),
)

_MOST: Final = 500
"""Inputs, or variables of a kind."""

_READ: Final = frozenset(
    {"variable", "type", "label", "required", "default", "max_length", "options", "hide"}
)


def start_inputs(nodes: Sequence[NodeSpec], findings: Findings) -> tuple[InputSpec, ...]:
    """Of the first start node, which is where runs begin; triggers ask for nothing."""
    for node in nodes:
        if node.type == "start":
            data = Reader(node.data, f"{node.place}.data")
            return tuple(_inputs(_bounded(data, "variables"), findings))
    return ()


def form_inputs(config: Reader, findings: Findings) -> tuple[InputSpec, ...]:
    """Of a `user_input_form`: a list of mappings from the type to the field."""
    fields = [
        _field(item, kind)
        for item in _bounded(config, "user_input_form")
        for kind in item.data
        if item.data[kind] is not None
    ]
    return tuple(_inputs(fields, findings))


def _field(item: Reader, kind: str) -> Reader:
    field = item.table(kind)
    return Reader({"type": kind, **field.data}, field.place)


def _bounded(data: Reader, key: str) -> list[Reader]:
    found = list(data.tables(key))
    if len(found) > _MOST:
        raise data.wrong(key, f"there are {len(found)}; at most {_MOST} are read")
    return found


def _inputs(fields: list[Reader], findings: Findings) -> Iterator[InputSpec]:
    seen: set[str] = set()
    for field in fields:
        name = field.text("variable")
        if not name or name in seen:
            said = f"a second input named {name!r}" if name else "an input without a name"
            findings.add("warning", "input", field.place, f"{said}: left out")
            continue
        seen.add(name)
        yield _input(field, name, findings)


def _input(field: Reader, name: str, findings: Findings) -> InputSpec:
    kind = field.text("type") or "text-input"
    if kind not in INPUT_TYPES:
        findings.add(
            "warning",
            "input",
            field.place,
            f"the input {name!r} is of the type {kind!r}, which is not known: any value is taken",
        )
    most = field.value("max_length")
    return InputSpec(
        name=name,
        type=kind,
        label=_text(field.value("label")) or name,
        required=field.flag("required"),
        default=field.value("default"),
        max_length=field.whole("max_length", 0) or None if most is not None else None,
        options=tuple(_text(option) for option in field.items("options")),
        hidden=field.flag("hide"),
        extra={key: value for key, value in field.data.items() if key not in _READ},
    )


def _text(value: Any) -> str:
    """Labels and options: mostly texts, sometimes {value: ..., label: ...} or a number."""
    if isinstance(value, Mapping):
        value = value.get("value", value.get("en_US"))
    return value if isinstance(value, str) else "" if value is None else str(value)[:1000]


def read_variables(
    workflow: Reader, key: str, bound: Mapping[str, Any]
) -> tuple[VariableSpec, ...]:
    """`environment_variables` or `conversation_variables`; `bound` values go over the file's."""
    return tuple(_variable(each, bound) for each in _bounded(workflow, key))


def _variable(each: Reader, bound: Mapping[str, Any]) -> VariableSpec:
    name = each.text("name")
    if not name:
        raise each.wrong("name", "a variable needs a name")
    kind = each.text("value_type") or "string"
    value = each.value("value")
    if name in bound:
        value = _typed(each, kind, bound[name])
    return VariableSpec(
        name=name,
        value_type=kind,
        value=_zero(kind) if value is None else value,
        description=_text(each.value("description")),
        id=_text(each.value("id")),
    )


def _typed(each: Reader, kind: str, value: Any) -> Any:
    """What a binding says, which on a command line is a text, as the kind that it is declared."""
    if not isinstance(value, str):
        return value
    given = Reader({"value": value}, each.place)
    if kind in ("number", "integer", "float"):
        number = given.number("value", 0.0)
        return int(number) if number.is_integer() and kind != "float" else number
    return given.flag("value") if kind == "boolean" else value


def _zero(kind: str) -> Any:
    """What a variable without a value begins with."""
    if kind.startswith("array"):
        return []
    zeros: dict[str, Any] = {
        "number": 0,
        "integer": 0,
        "float": 0.0,
        "object": {},
        "boolean": False,
    }
    return zeros.get(kind, "")
