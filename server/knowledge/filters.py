"""Conditions on the metadata of documents, as knowledge-retrieval nodes have them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from server.workflow.services import ServiceFailed

__all__ = ["OPERATORS", "Fits", "compile_filter"]

Fits: TypeAlias = Callable[[Mapping[str, Any]], bool]

MOST_CONDITIONS: Final = 100


def compile_filter(given: Mapping[str, Any] | None) -> Fits | None:
    """{logical_operator, conditions [{name, comparison_operator, value}]} to a function of a
    document's metadata; None lets all pass. A field that a document lacks is empty and fits no
    other condition. Raises `ServiceFailed` for an operator that there is not."""
    conditions = [_condition(one) for one in (given or {}).get("conditions") or ()]
    if not conditions:
        return None
    if len(conditions) > MOST_CONDITIONS:
        raise _wrong(f"{len(conditions)} conditions; {MOST_CONDITIONS} are allowed")
    every = (given or {}).get("logical_operator") != "or"

    def fits(metadata: Mapping[str, Any]) -> bool:
        found = (condition(metadata) for condition in conditions)
        return all(found) if every else any(found)

    return fits


def _condition(given: Mapping[str, Any]) -> Fits:
    name, sign = str(given.get("name") or ""), str(given.get("comparison_operator") or "")
    wanted = given.get("value")
    holds = OPERATORS.get(sign)
    if holds is None:
        raise _wrong(f"there is no operator {sign!r} for metadata")

    def fits(metadata: Mapping[str, Any]) -> bool:
        actual = metadata.get(name)
        if actual is None or actual == "":
            return sign == "empty"
        return holds(actual, wanted)

    return fits


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _moment(value: Any) -> float | None:
    """Unix seconds, of a number or of a date as ISO 8601 writes it."""
    number = _number(value)
    if number is not None:
        return number
    try:
        found = datetime.fromisoformat(str(value).strip())
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _words(value: Any) -> list[str]:
    if isinstance(value, list | tuple):
        return [_text(item) for item in value]
    return [word.strip() for word in _text(value).split(",")]


def _compared(
    read: Callable[[Any], float | None], compare: Callable[[float, float], bool]
) -> Callable[[Any, Any], bool]:
    def holds(actual: Any, wanted: Any) -> bool:
        left, right = read(actual), read(wanted)
        return left is not None and right is not None and compare(left, right)

    return holds


def _has(actual: Any, wanted: Any) -> bool:
    if isinstance(actual, list):
        return _text(wanted) in map(_text, actual)
    return _text(wanted) in _text(actual)


OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "contains": _has,
    "not contains": lambda actual, wanted: not _has(actual, wanted),
    "start with": lambda actual, wanted: _text(actual).startswith(_text(wanted)),
    "end with": lambda actual, wanted: _text(actual).endswith(_text(wanted)),
    "is": lambda actual, wanted: _text(actual) == _text(wanted),
    "is not": lambda actual, wanted: _text(actual) != _text(wanted),
    "empty": lambda actual, wanted: False,
    "not empty": lambda actual, wanted: True,
    "in": lambda actual, wanted: _text(actual) in _words(wanted),
    "not in": lambda actual, wanted: _text(actual) not in _words(wanted),
    "=": _compared(_number, lambda left, right: left == right),
    "≠": _compared(_number, lambda left, right: left != right),
    ">": _compared(_number, lambda left, right: left > right),
    "<": _compared(_number, lambda left, right: left < right),
    "≥": _compared(_number, lambda left, right: left >= right),
    "≤": _compared(_number, lambda left, right: left <= right),
    "before": _compared(_moment, lambda left, right: left < right),
    "after": _compared(_moment, lambda left, right: left > right),
}
"""By its name; each is asked of a value that is there."""


def _wrong(message: str) -> ServiceFailed:
    return ServiceFailed(f"metadata filter: {message}", "KnowledgeFilterError")
