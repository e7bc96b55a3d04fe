"""JSON Schemas that come with apps, and values held against them. Pure.

Schemas are hostile: references are never fetched, regular expressions run in linear time, and
those whose check could take exponential time are refused when they are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

__all__ = ["Schema", "SchemaError"]

MOST_PARTS: Final = 20_000
"""Subschemas after references are followed; real ones have some dozens. What stands in one
counts too, a twentieth: lists of choices may be long, and referred to often."""
_IN_A_PART: Final = 20

_FOLD: Final = (
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "patternProperties",
    "dependencies",
)
"""Keywords by which several subschemas look at the same part of a value."""


class SchemaError(ValueError):
    """A schema that is none, or that could take too long to check."""


class Schema:
    """A compiled draft 7 schema, given as a mapping or as JSON text. Raises `SchemaError`."""

    __slots__ = ("_validator",)

    def __init__(self, source: Mapping[str, Any] | str) -> None:
        import jsonschema_rs

        schema = _parsed(source)
        _bound(schema)
        try:
            self._validator = jsonschema_rs.Draft7Validator(
                schema,
                retriever=_refuse,
                pattern_options=jsonschema_rs.RegexOptions(size_limit=1 << 20),
            )
        except (ValueError, TypeError) as error:
            message = getattr(error, "message", str(error))
            raise SchemaError(f"Invalid JSON schema: {message}"[:500]) from None

    def complaint(self, value: Any) -> str | None:
        """What is wrong with a value; None if nothing is."""
        found = self.misfit(value)
        return None if found is None else found[0]

    def misfit(self, value: Any) -> tuple[str, list[str | int]] | None:
        """The same, and the path to it in the value."""
        for error in self._validator.iter_errors(value):
            return str(error.message)[:500], error.instance_path
        return None


def _parsed(source: Mapping[str, Any] | str) -> dict[str, Any]:
    if isinstance(source, str):
        try:
            source = json.loads(source)
        except (ValueError, RecursionError) as error:
            raise SchemaError(f"json_schema is not valid JSON: {error}"[:500]) from None
    if not isinstance(source, Mapping):
        raise SchemaError(f"json_schema must be a JSON object, got {type(source).__name__}")
    return dict(source)


def _refuse(uri: str) -> Any:
    raise ValueError(f"references to other documents are not followed: {uri}")


def _bound(schema: dict[str, Any]) -> None:
    """Refuse what could be exponential: definitions that refer to each other twofold many levels
    deep, and schemas that contain themselves where several parts look at one value."""
    walk = _Walk(schema)
    try:
        walk.visit(schema, ())
    except RecursionError:
        raise SchemaError("Invalid JSON schema: it is nested too deeply") from None
    if walk.recursive and walk.folds:
        raise SchemaError(
            "Invalid JSON schema: one that refers to itself must do without " + ", ".join(_FOLD)
        )


class _Walk:
    def __init__(self, root: dict[str, Any]) -> None:
        self.root = root
        self.parts = 0
        self.recursive = False
        self.folds = False

    def visit(self, part: Any, followed: tuple[str, ...]) -> None:
        if not isinstance(part, dict | list):
            return
        self.parts += len(part) // _IN_A_PART + isinstance(part, dict)
        if self.parts > MOST_PARTS:
            raise SchemaError(f"Invalid JSON schema: more than {MOST_PARTS} subschemas")
        if isinstance(part, list):
            for each in part:
                self.visit(each, followed)
            return
        self.folds = self.folds or any(name in part for name in _FOLD)
        for each in part.values():
            if isinstance(each, dict | list):
                self.visit(each, followed)
        self._follow(part.get("$ref"), followed)

    def _follow(self, reference: Any, followed: tuple[str, ...]) -> None:
        if not isinstance(reference, str):
            return
        if reference in followed:
            self.recursive = True
            return
        self.visit(_lookup(self.root, reference), (*followed, reference))


def _lookup(root: Any, reference: str) -> Any:
    for name in _path(reference):
        if isinstance(root, dict):
            root = root.get(name)
        elif isinstance(root, list) and name.isdigit() and int(name) < len(root):
            root = root[int(name)]
        else:
            return None
    return root


def _path(reference: str) -> Iterator[str]:
    for name in reference.partition("#")[2].split("/")[1:]:
        yield name.replace("~1", "/").replace("~0", "~")
