"""What a webhook's request gives a run, by the fields that its trigger node declares. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from server.workflow.reading import Reader
from server.workflow.values import File, Value, kind_of

__all__ = ["RAW", "Field", "WebhookError", "WebhookFields"]

RAW: Final = "_webhook_raw"
"""The output that holds the request as it came."""


class WebhookError(ValueError):
    """A request that lacks a field, or has one of another type."""


class Field(msgspec.Struct, frozen=True):
    """A field that the request should have."""

    name: str
    type: str
    required: bool


class WebhookFields:
    """Those of a trigger-webhook node."""

    def __init__(self, data: Reader) -> None:
        self.content_type = data.text("content_type", "application/json").lower()
        self._headers = _fields(data, "headers")
        self._params = _fields(data, "params")
        self._body = _fields(data, "body")

    def values(self, request: Mapping[str, Any]) -> dict[str, Value]:
        """`request` has headers, query_params, body (an object or a text), files.

        Names of headers are not told apart by case, and their dashes become underscores. Raises
        `WebhookError`.
        """
        headers = {name.lower(): value for name, value in _table(request, "headers").items()}
        values: dict[str, Value] = {}
        for field in self._headers:
            name = field.name.replace("-", "_")
            values[name] = _typed(field, headers.get(field.name.lower()))
        params = _table(request, "query_params")
        for field in self._params:
            values[field.name] = _typed(field, params.get(field.name))
        for field in self._body:
            values[field.name] = _typed(field, self._of_body(field, request))
        return values | {RAW: dict(request)}

    def _of_body(self, field: Field, request: Mapping[str, Any]) -> Value:
        files = _table(request, "files")
        if field.name in files:
            return files[field.name]
        body = request.get("body")
        if not isinstance(body, Mapping):
            return body
        if field.name not in body and self.content_type.startswith(("text/", "application/octet")):
            return body.get("raw")
        return body.get(field.name)


def _fields(data: Reader, key: str) -> Sequence[Field]:
    return tuple(
        Field(each.text("name"), each.text("type", "string").lower(), each.flag("required"))
        for each in data.tables(key)
    )


def _table(request: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = request.get(key)
    return found if isinstance(found, Mapping) else {}


def _typed(field: Field, value: Any) -> Value:
    if value is None:
        if field.required:
            raise WebhookError(f"Required parameter missing: {field.name}")
        return None
    try:
        value = _read(field.type, value)
        fits = _fits(field.type, value)
    except (ValueError, TypeError, RecursionError):
        fits = False
    if not fits:
        raise WebhookError(f"Parameter '{field.name}' must be of type {field.type}")
    return value


def _read(kind: str, value: Any) -> Value:
    """Requests other than JSON have nothing but texts."""
    if not isinstance(value, str) or kind in ("string", "file"):
        return value
    if kind == "number":
        return float(value) if "." in value or "e" in value.lower() else int(value)
    if kind == "boolean":
        return {"true": True, "1": True, "false": False, "0": False}.get(value.lower(), value)
    return json.loads(value) if kind == "object" or kind.startswith("array") else value


def _fits(kind: str, value: Value) -> bool:
    found = kind_of(value)
    if kind.startswith("array"):
        return found.startswith("array") and (kind in ("array", "array[any]", found) or not value)
    if kind == "file":
        return isinstance(value, File) or found == "array[file]"
    return found == kind or kind not in ("string", "number", "boolean", "object")
