"""JSON Schemas of apps."""

from __future__ import annotations

import time
from typing import Any

import pytest

from server.workflow.schemas import Schema, SchemaError

TREE = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "below": {"type": "array", "items": {"$ref": "#"}}},
    "required": ["name"],
}


def test_complaints() -> None:
    """The first thing that is wrong, or nothing."""
    schema = Schema('{"type": "object", "required": ["a"]}')
    assert schema.complaint({"a": 1}) is None
    assert schema.complaint({}) == '"a" is a required property'


def test_a_tree_may_refer_to_itself() -> None:
    """Recursion down a value is bounded by the value."""
    schema = Schema(TREE)
    assert schema.complaint({"name": "a", "below": [{"name": "b"}]}) is None
    assert schema.complaint({"name": "a", "below": [{}]}) is not None


def choices(number: int, referred: int) -> dict[str, Any]:
    """One long list of choices that many properties refer to."""
    return {
        "definitions": {"a": {"enum": list(range(number))}},
        "properties": {f"p{n}": {"$ref": "#/definitions/a"} for n in range(referred)},
    }


def test_long_lists_of_choices_are_taken() -> None:
    """Countries, time zones and the like, in several places."""
    assert Schema(choices(300, referred=50)).complaint({"p1": 400}) is not None


def doubling(levels: int) -> dict[str, Any]:
    """Each level asks the next one twice."""
    definitions: dict[str, Any] = {
        str(n): {"allOf": [{"$ref": f"#/definitions/{n + 1}"}] * 2} for n in range(levels)
    }
    return {"$ref": "#/definitions/0", "definitions": definitions | {str(levels): {}}}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{", "json_schema is not valid JSON"),
        ("[]", "json_schema must be a JSON object, got list"),
        ({"type": "thing"}, "Invalid JSON schema"),
        ({"pattern": "("}, "Invalid JSON schema"),
        ({"$ref": "http://127.0.0.1:9/schema"}, "not followed"),
        ({"$ref": "file:///etc/passwd"}, "not followed"),
        (doubling(30), "more than 20000 subschemas"),
        (choices(50_000, referred=2_000), "more than 20000 subschemas"),
        ({"allOf": [{"$ref": "#"}, {"$ref": "#"}]}, "refers to itself"),
        ({"properties": {"x": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}}}, "refers to itself"),
    ],
)
def test_refused(source: Any, message: str) -> None:
    """Schemas that are none, that would be fetched, or that could take for ever."""
    began = time.perf_counter()
    with pytest.raises(SchemaError, match=message):
        Schema(source)
    assert time.perf_counter() - began < 1


def test_deep_schemas_are_refused() -> None:
    """Not a stack overflow."""
    source = '{"not":' * 5000 + "{}" + "}" * 5000
    with pytest.raises(SchemaError):
        Schema(source)


def test_expressions_run_in_linear_time() -> None:
    """One that explodes elsewhere returns at once."""
    schema = Schema({"properties": {"a": {"pattern": "^(a+)+$"}}})
    began = time.perf_counter()
    assert schema.complaint({"a": "a" * 5000 + "!"}) is not None
    assert time.perf_counter() - began < 0.1
