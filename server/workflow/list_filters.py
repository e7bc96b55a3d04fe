"""What a list-operator keeps of a list, and what it orders files by. Pure.

`ValueError` and `TypeError` say what may not be, in Dify's words.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from server.workflow.values import File, Kind, Value

__all__ = ["file_key", "keeps"]

Keep: TypeAlias = Callable[[Any], bool]

_TEXTS: Final[dict[str, Callable[[str, Any], bool]]] = {
    "contains": lambda item, value: value in item,
    "not contains": lambda item, value: value not in item,
    "start with": lambda item, value: item.startswith(value),
    "end with": lambda item, value: item.endswith(value),
    "is": operator.eq,
    "is not": operator.ne,
    "in": lambda item, value: item in value,
    "not in": lambda item, value: item not in value,
    "empty": lambda item, value: not item,
    "not empty": lambda item, value: bool(item),
}
_NUMBERS: Final[dict[str, Callable[[Any, float], bool]]] = {
    "=": operator.eq,
    "≠": operator.ne,
    "<": operator.lt,
    "≤": operator.le,
    ">": operator.gt,
    "≥": operator.ge,
}
_BOOLEANS: Final = {"is": operator.eq, "is not": operator.ne}
_CHOICES: Final = {name: _TEXTS[name] for name in ("in", "not in")}

_TEXT_KEYS: Final = ("name", "extension", "mime_type", "url", "related_id")
_CHOICE_KEYS: Final = ("type", "transfer_method")


def keeps(kind: Kind, key: str, name: str, value: Value) -> Keep:
    """Whether an item of a list of this kind stays. `key` is an attribute of files."""
    if kind == "array[file]":
        return _of_files(key, name, value)
    if kind == "array[boolean]":
        if not isinstance(value, bool):
            raise TypeError(f"Boolean filter expects a boolean value, got {type(value)}")
        return _compare(_BOOLEANS, name, value)
    if not isinstance(value, str):
        raise ValueError(f"Invalid filter value: {value}")
    if kind == "array[number]":
        return _compare(_NUMBERS, name, float(value))
    return _compare(_TEXTS, name, value)


def _compare(operators: dict[str, Callable[[Any, Any], bool]], name: str, value: Any) -> Keep:
    compare = operators.get(name)
    if compare is None:
        raise ValueError(f"Invalid condition: {name}")
    return lambda item: compare(item, value)


def _of_files(key: str, name: str, value: Value) -> Keep:
    if isinstance(value, bool):
        raise TypeError(f"File filter expects a string value, got {type(value)}")
    find = file_key(key)
    if key in _CHOICE_KEYS:
        keep = _compare(_CHOICES, name, value)
    elif not isinstance(value, str):
        raise ValueError(f"Invalid key: {key}")
    elif key == "size":
        keep = _compare(_NUMBERS, name, float(value))
    else:
        keep = _compare(_TEXTS, name, value)
    return lambda file: keep(find(file))


def file_key(key: str) -> Callable[[File], Any]:
    """What to compare files by."""
    if key == "size":
        return lambda file: file.size
    if key not in (*_TEXT_KEYS, *_CHOICE_KEYS):
        raise ValueError(f"Invalid key: {key}")
    return lambda file: file.attribute(key) or ""
