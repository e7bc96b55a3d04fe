"""Arguments of a tool as its schema wants them: graphs and models write numbers as texts. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from server.workflow.values import File, Value, text_of

__all__ = ["coerced"]

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off", ""})


def coerced(arguments: Mapping[str, Value], schema: Mapping[str, Any]) -> dict[str, Value]:
    """The arguments, each of the type that the schema's property has, where that loses nothing.

    What does not fit stays as it is: the tool says what is wrong with it. None, and empty text for
    what is no text, is as good as absent.
    """
    properties = schema.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    result: dict[str, Value] = {}
    for name, value in arguments.items():
        wanted = properties.get(name)
        kind = wanted.get("type") if isinstance(wanted, Mapping) else None
        if isinstance(kind, list):
            kind = next((one for one in kind if one != "null"), None)
        if value is None or (value == "" and kind not in (None, "string")):
            continue
        result[name] = _as(kind, value)
    return result


def _as(kind: Any, value: Value) -> Value:
    if kind == "string":
        return value if isinstance(value, str | File | list) else text_of(value)
    if not isinstance(value, str):
        return bool(value) if kind == "boolean" and value in (0, 1) else value
    text = value.strip()
    if kind in ("number", "integer"):
        return _number(text, value)
    if kind == "boolean":
        lowered = text.lower()
        return True if lowered in _TRUE else False if lowered in _FALSE else value
    if kind in ("array", "object"):
        return _parsed(text, list if kind == "array" else dict, value)
    return value


def _number(text: str, value: str) -> Value:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return value


def _parsed(text: str, kind: type, value: str) -> Value:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return value
    return found if isinstance(found, kind) else value
