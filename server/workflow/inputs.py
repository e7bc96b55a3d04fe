"""What a user gave, checked against what the app asks for. Pure.

The rules and the messages are Dify's: clients get them with a 400.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from server.workflow.app import InputSpec
from server.workflow.given_files import FileError, FileRules, Upload, given_file
from server.workflow.limits import Limits
from server.workflow.reading import Reader
from server.workflow.schemas import Schema, SchemaError
from server.workflow.sizes import MOST_DEPTH, TooLarge, weigh
from server.workflow.texts import cleaned, is_whole, whole
from server.workflow.values import File, Value

__all__ = ["MOST_NESTED", "InputError", "SchemaCheck", "checked", "of_event"]

MOST_NESTED: Final = MOST_DEPTH
"""Levels of lists and objects in an input: what walks over values recurses."""

_USUAL: Final = Limits()
_NUL: Final = "\x00"


class InputError(ValueError):
    """An input that may not be. `name` is the variable's."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name
        self.message = message


def checked(
    specs: Sequence[InputSpec],
    given: Mapping[str, Any],
    *,
    upload: Upload | None = None,
    most_items: int = _USUAL.value_items,
) -> dict[str, Value]:
    """The inputs that the app declares, in its order; others are dropped.

    What was not given is its default, or None. `upload` finds uploaded files by their ids; no
    input may have more than `most_items` in its lists and objects. Raises `InputError`.
    """
    return {
        spec.name: _clean(spec.name, _one(spec, given.get(spec.name), upload), most_items)
        for spec in specs
    }


def of_event(given: Mapping[str, Any], *, most_items: int = _USUAL.value_items) -> dict[str, Value]:
    """What began a run in place of a user: a request, an event. No app declares its fields.
    Raises `InputError`."""
    return {name: _clean(name, value, most_items) for name, value in given.items()}


def _one(spec: InputSpec, value: Any, upload: Upload | None) -> Value:
    if value is None:
        if spec.required:
            raise InputError(spec.name, f"{spec.name} is required in input form")
        value = spec.default
        if value is None or (value == "" and spec.type not in _TEXTS):
            return "" if value == "" and spec.type == "select" else None
    check = _CHECKS.get(spec.type)
    return check(spec, value, upload) if check else value


def _text(spec: InputSpec, value: Any, upload: Upload | None) -> str:
    if not isinstance(value, str):
        raise InputError(
            spec.name, f"(type '{spec.type}') {spec.name} in input form must be a string"
        )
    if spec.max_length and len(value) > spec.max_length:
        raise _wrong(spec, f"must be less than {spec.max_length} characters")
    return value


def _select(spec: InputSpec, value: Any, upload: Upload | None) -> str:
    if not isinstance(value, str):
        raise InputError(
            spec.name, f"(type '{spec.type}') {spec.name} in input form must be a string"
        )
    if value not in spec.options:
        raise _wrong(spec, f"must be one of the following: {list(spec.options)}")
    return value


def _number(spec: InputSpec, value: Any, upload: Upload | None) -> float | None:
    if isinstance(value, int | float):
        return value
    if not isinstance(value, str):
        raise _wrong(spec, "must be a valid number")
    if not value.strip():
        return None
    try:
        return float(value) if "." in value else int(value)
    except ValueError:
        raise _wrong(spec, "must be a valid number") from None


_BOOLEANS: Final = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}


def _checkbox(spec: InputSpec, value: Any, upload: Upload | None) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _BOOLEANS:
        return _BOOLEANS[value.strip().lower()]
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    raise _wrong(spec, "must be a boolean")


def _file(spec: InputSpec, value: Any, upload: Upload | None) -> File:
    if not isinstance(value, Mapping | File):
        raise _wrong(spec, "must be a file")
    return _read_file(spec, value, upload)


def _file_list(spec: InputSpec, value: Any, upload: Upload | None) -> list[File]:
    if not isinstance(value, list) or not all(isinstance(each, Mapping | File) for each in value):
        raise _wrong(spec, "must be a list of files")
    if spec.max_length and len(value) > spec.max_length:
        raise _wrong(spec, f"must be less than {spec.max_length} files")
    return [_read_file(spec, each, upload) for each in value]


def _read_file(spec: InputSpec, value: Any, upload: Upload | None) -> File:
    try:
        return given_file(value, FileRules.of(spec.extra), upload)
    except FileError as error:
        raise InputError(spec.name, str(error)) from None


def _object(spec: InputSpec, value: Any, upload: Upload | None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(spec, "must be a dict")
    return value


_CHECKS: Final[dict[str, Callable[[InputSpec, Any, Upload | None], Value]]] = {
    "text-input": _text,
    "paragraph": _text,
    "select": _select,
    "number": _number,
    "checkbox": _checkbox,
    "file": _file,
    "file-list": _file_list,
    "json_object": _object,
}
_TEXTS: Final = ("text-input", "paragraph", "external_data_tool")


def _wrong(spec: InputSpec, what: str) -> InputError:
    return InputError(spec.name, f"{spec.name} in input form {what}")


def _clean(name: str, value: Value, most_items: int) -> Value:
    """Without NULs and halves of surrogate pairs, which stores, engines and clients choke on;
    refused if nested too deeply, or with too many items."""
    if isinstance(value, str):
        return whole(value).replace(_NUL, "")
    if not isinstance(value, dict | list):
        return value
    try:
        _, texts = weigh({name: value}, sys.maxsize, most_items)
    except TooLarge:
        raise InputError(name, _too_much(name, most_items)) from None
    together = "".join(texts)
    return value if is_whole(together) and _NUL not in together else cleaned(value, _NUL)


def _too_much(name: str, most_items: int) -> str:
    return (
        f"{name} in input form is nested more than {MOST_NESTED} deep, or has more than "
        f"{most_items} items in lists and objects"
    )


class SchemaCheck:
    """The `json_schema` of a json_object variable, which the start node holds the input against.
    Raises `GraphError` for one that cannot be used."""

    __slots__ = ("_schema",)

    def __init__(self, data: Reader) -> None:
        try:
            self._schema = Schema(data.value("json_schema"))
        except SchemaError as error:
            raise data.wrong("json_schema", str(error)) from None

    def __call__(self, name: str, value: Value) -> None:
        """Raises `InputError`."""
        if not isinstance(value, dict):
            raise InputError(name, f"JSON object for '{name}' must be an object")
        complaint = self._schema.complaint(value)
        if complaint is not None:
            raise InputError(name, f"JSON object for '{name}' does not match schema: {complaint}")
