"""What each comparison operator says of a value. Pure.

The semantics and the texts of the errors are Dify's, since workflows branch on both. A comparison
that makes no sense raises `ValueError` or `TypeError`; whoever evaluates it names the node.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from server.workflow.values import Value

__all__ = ["BINARY", "UNARY", "Binary", "Unary", "as_boolean", "canonical"]

Unary: TypeAlias = Callable[[Value], bool]
Binary: TypeAlias = Callable[[Value, Any], bool]


def _contains(value: Value, expected: Any) -> bool:
    if not value:
        return False
    if isinstance(value, str):
        return (expected if isinstance(expected, str) else str(expected)) in value
    if isinstance(value, list):
        return expected in value
    raise ValueError("Invalid actual value type: string or array")


def _not_contains(value: Value, expected: Any) -> bool:
    return not _contains(value, expected)


def _start_with(value: Value, expected: Any) -> bool:
    return bool(value) and _text(value).startswith(_affix(expected, "startswith"))


def _end_with(value: Value, expected: Any) -> bool:
    return bool(value) and _text(value).endswith(_affix(expected, "endswith"))


def _text(value: Value) -> str:
    if not isinstance(value, str):
        raise TypeError("Invalid actual value type: string")
    return value


def _affix(expected: Any, name: str) -> str:
    if not isinstance(expected, str):
        raise TypeError(f"Expected value must be a string for {name}")
    return expected


def _is(value: Value, expected: Any) -> bool:
    return value is not None and _string_or_boolean(value) == expected


def _is_not(value: Value, expected: Any) -> bool:
    return value is not None and _string_or_boolean(value) != expected


def _string_or_boolean(value: Value) -> str | bool:
    if not isinstance(value, str | bool):
        raise ValueError("Invalid actual value type: string or boolean")
    return value


def _in(value: Value, expected: Any) -> bool:
    return bool(value) and value in _list(expected)


def _not_in(value: Value, expected: Any) -> bool:
    return not value or value not in _list(expected)


def _list(expected: Any) -> list[Any]:
    if not isinstance(expected, list):
        raise ValueError("Invalid expected value type: array")
    return expected


def _all_of(value: Value, expected: Any) -> bool:
    kinds = {type(item) for item in expected} if isinstance(expected, list) else {None}
    if not (kinds <= {str} or kinds <= {bool}):
        raise ValueError("all of operator expects homogeneous list of strings or booleans")
    if not value or not isinstance(value, list | str):
        return False
    if isinstance(value, str) and kinds == {bool}:
        return False
    return all(item in value for item in expected)


def _equal(value: Value, expected: Any) -> bool:
    return value is not None and value == _same_number(value, expected)


def _not_equal(value: Value, expected: Any) -> bool:
    return value is not None and value != _same_number(value, expected)


def _same_number(value: Value, expected: Any) -> Any:
    for kind, allowed in (
        (bool, bool | int | str),
        (int, int | float | str),
        (float, int | float | str),
    ):
        if isinstance(value, kind):
            if isinstance(expected, allowed):
                return kind(expected)
            raise ValueError(f"Cannot convert {type(expected)} to {kind.__name__}")
    raise ValueError("Invalid actual value type: number or boolean")


def _ordered(compare: Callable[[Any, Any], bool]) -> Binary:
    def ordered(value: Value, expected: Any) -> bool:
        if value is None:
            return False
        if not isinstance(value, int | float):
            raise ValueError("Invalid actual value type: number")
        return compare(value, _number(value, expected))

    return ordered


def _number(value: float, expected: Any) -> float:
    """Whole numbers compare as such: no digit of a large one is lost to a float."""
    if isinstance(expected, int | float):
        return expected
    if not isinstance(expected, str):
        raise ValueError(f"Cannot convert {type(expected)} to number")
    try:
        number = float(expected)
    except ValueError:
        raise ValueError(f"Cannot convert '{expected}' to number") from None
    return int(number) if isinstance(value, int) and number.is_integer() else number


def as_boolean(expected: Any) -> bool:
    """What a boolean is compared with: "true", "false", a whole number, or a boolean.

    "True" and "False" count too: that is how a boolean reads in a template.
    """
    found = expected
    if isinstance(expected, str):
        found = json.loads(expected.lower() if expected in ("True", "False") else expected)
    if isinstance(found, int):
        return bool(found)
    raise TypeError(f"unexpected value: type={type(expected)}, value={expected}")


def _is_none(value: Value) -> bool:
    return value is None


def _is_there(value: Value) -> bool:
    return value is not None


UNARY: Final[dict[str, Unary]] = {
    "empty": operator.not_,
    "not empty": bool,
    "null": _is_none,
    "not null": _is_there,
    "exists": _is_there,
    "not exists": _is_none,
}
"""Operators that look at the value alone."""

BINARY: Final[dict[str, Binary]] = {
    "contains": _contains,
    "not contains": _not_contains,
    "start with": _start_with,
    "end with": _end_with,
    "is": _is,
    "is not": _is_not,
    "in": _in,
    "not in": _not_in,
    "all of": _all_of,
    "=": _equal,
    "≠": _not_equal,
    ">": _ordered(operator.gt),
    "<": _ordered(operator.lt),
    "≥": _ordered(operator.ge),
    "≤": _ordered(operator.le),
}
"""Operators that compare it with something."""

_OTHER_NAMES: Final = {
    "is empty": "empty",
    "is not empty": "not empty",
    "is null": "null",
    "is not null": "not null",
    "==": "=",
    "!=": "≠",
    ">=": "≥",
    "<=": "≤",
}


def canonical(name: str) -> str:
    """The name under which an operator is known here; some exports use others."""
    return _OTHER_NAMES.get(name, name)
