"""What an assigner does to a variable, and to variables of which type. Pure.

The rules and messages are Dify's. `ValueError` says what may not be.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable
from typing import Any, Final

from server.workflow.values import File, Kind, Value

__all__ = ["assigned", "check_operation", "zero_of"]

MOST_BITS: Final = 4096
"""Of a whole number that came out of arithmetic: loops multiply."""

_ARITHMETIC: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+=": operator.add,
    "-=": operator.sub,
    "*=": operator.mul,
    "/=": operator.truediv,
}
_OF_LISTS: Final = frozenset(("append", "extend", "remove-first", "remove-last"))
_WITHOUT_VALUE: Final = frozenset(("clear", "remove-first", "remove-last"))
_OF_ANY: Final = frozenset(("over-write", "clear"))
_SCALARS: Final[dict[str, Any]] = {"string": str, "boolean": bool, "object": dict}
_ITEMS: Final[dict[str, Any]] = {
    "array[any]": str | float | int | dict | File,
    "array[string]": str,
    "array[number]": int | float,
    "array[object]": dict,
    "array[boolean]": bool,
    "array[file]": File,
}
_ZEROS: Final[dict[str, Value]] = {"string": "", "number": 0, "boolean": False}


def check_operation(name: str, kind: Kind, is_variable: bool, shown_type: str) -> None:
    """Whether it can be done to a variable of this kind, with a variable or a constant."""
    if not _is_supported(name, kind):
        raise ValueError(f"Operation {name} is not supported for type {shown_type}")
    if is_variable:
        allowed = name != "set" and name not in _ARITHMETIC
    else:
        allowed = name in ("over-write", "set") or name in _ARITHMETIC
        allowed = allowed and not kind.startswith("array") and kind not in ("file", "none")
    if not allowed and name not in _WITHOUT_VALUE:
        source = "variable" if is_variable else "constant"
        raise ValueError(f"Input type {source} is not supported for operation {name}")


def _is_supported(name: str, kind: Kind) -> bool:
    if name in _OF_ANY:
        return True
    if name in _ARITHMETIC:
        return kind == "number"
    if name in _OF_LISTS:
        return kind.startswith("array")
    return name == "set" and kind in ("object", "string", "number", "boolean")


def assigned(name: str, kind: Kind, value: Value, given: Value) -> Value:
    """What the variable is then; `given` is what it is done with."""
    if name == "clear":
        return zero_of(kind, value)
    if name == "remove-first":
        return value[1:]
    if name == "remove-last":
        return value[:-1]
    given = _read_object(name, kind, given)
    if not _fits(name, kind, given):
        raise ValueError(f"Invalid input value {given}"[:500])
    if name == "append":
        return [*value, given]
    if name == "extend":
        return [*value, *given]
    return _bounded(_ARITHMETIC[name](value, given)) if name in _ARITHMETIC else given


def zero_of(kind: Kind, value: Value = None) -> Value:
    """What a cleared variable is."""
    if kind.startswith("array"):
        return []
    if kind == "object":
        return {}
    if kind not in _ZEROS:
        raise ValueError(f"unsupported variable type: {kind}")
    return 0.0 if isinstance(value, float) else _ZEROS[kind]


def _read_object(name: str, kind: Kind, given: Value) -> Value:
    """An object that is set as a constant may be written as JSON."""
    if name != "set" or kind != "object" or not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except (ValueError, RecursionError):
        raise ValueError(f"Invalid input value {given}"[:500]) from None


def _fits(name: str, kind: Kind, given: Value) -> bool:
    if kind == "number":
        return isinstance(given, int | float) and not (name == "/=" and given == 0)
    if kind in _SCALARS:
        return isinstance(given, _SCALARS[kind])
    item = _ITEMS.get(kind)
    if item is None:
        return kind == "file" and isinstance(given, File)
    if name == "append":
        return isinstance(given, item)
    return isinstance(given, list) and all(isinstance(each, item) for each in given)


def _bounded(number: Any) -> Any:
    if isinstance(number, int) and number.bit_length() > MOST_BITS:
        raise ValueError(f"the number has more than {MOST_BITS} bits")
    return number
