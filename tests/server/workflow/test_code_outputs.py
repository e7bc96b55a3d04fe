"""What code may give out: Dify's checks, their messages and their types."""

from __future__ import annotations

from typing import Any

import pytest

from server.workflow.code_outputs import OutputLimits, OutputSpec, checked, numbers_read
from server.workflow.node import NodeError

BIG = 9_223_372_036_854_775_807


def check(kind: str, value: Any, children: dict[str, OutputSpec] | None = None) -> Any:
    return checked({"x": value}, {"x": OutputSpec(kind, children)})["x"]


PASS = [
    ("string", "a\x00b", "ab"),
    ("string", None, None),
    ("number", 1, 1),
    ("number", 1.5, 1.5),
    ("number", True, 1),
    ("number", BIG, BIG),
    ("number", None, None),
    ("boolean", True, True),
    ("object", {"a": [1, None, "x"][:2], "b": {"c": None}}, {"a": [1, None], "b": {"c": None}}),
    ("object", None, None),
    ("array[string]", ["a\x00", None], ["a", None]),
    ("array[number]", [1, 2.5, False], [1, 2.5, 0]),
    ("array[boolean]", [True, None], [True, None]),
    ("array[object]", [{"a": 1}, None], [{"a": 1}, None]),
    ("array[string]", None, None),
]


@pytest.mark.parametrize(("kind", "value", "expected"), PASS)
def test_values_that_pass(kind: str, value: Any, expected: Any) -> None:
    """None is let through everywhere, NUL is taken out, truth values are numbers where asked."""
    result = check(kind, value)
    assert result == expected
    assert [type(item) for item in [result]] == [type(item) for item in [expected]]


FAIL = [
    ("string", 1, "Output x must be a string, got int instead."),
    ("string", "a" * 400_001, "The length of output variable `x` must be less than 400000"),
    ("number", "1", "Output x is not a number, got <class 'str'> instead."),
    (
        "number",
        BIG + 1,
        f"Output variable `x` is out of range, it must be between {-BIG} and {BIG}",
    ),
    ("number", 1e300, "is out of range"),
    (
        "number",
        1e-30,
        "Output variable `x` has too high precision, it must be less than 20 digits.",
    ),
    ("object", [], "Output x is not an object, got <class 'list'> instead."),
    ("array[string]", "a", "Output x is not an array, got <class 'str'> instead."),
    ("array[string]", ["a"] * 31, "`x` must be less than 30 elements."),
    ("array[string]", ["a", 1], "Output x[1] must be a string, got int instead."),
    ("array[number]", [0] * 1001, "`x` must be less than 1000 elements."),
    ("array[number]", [1, None], "The element at index 1 of output variable `x` must be a number."),
    ("array[object]", [{}] * 31, "`x` must be less than 30 elements."),
    ("array[object]", [1], "Output x[0] is not an object, got <class 'int'> instead at index 0."),
    ("array[boolean]", [1], "Output x[0] is not a boolean, got <class 'int'> instead."),
    ("object", {"a": [1, "b"]}, "Output x.a is not a valid array."),
    ("object", {"a": {"b": 1e300}}, "Output variable `x.a.b` is out of range"),
    ("array[file]", [], "Output type array[file] is not supported."),
]


@pytest.mark.parametrize(("kind", "value", "says"), FAIL)
def test_values_that_do_not(kind: str, value: Any, says: str) -> None:
    """Dify's words, and its name for the error."""
    with pytest.raises(NodeError) as caught:
        check(kind, value)
    assert says in caught.value.message
    assert caught.value.type == "OutputValidationError"


def nested(depth: int) -> dict[str, Any]:
    return {"a": nested(depth - 1)} if depth else {}


def test_objects_go_five_deep() -> None:
    """The result is the first of them."""
    assert check("object", nested(3)) == nested(3)
    for value in (nested(4), {"a": [[[[[[1]]]]]]}):
        with pytest.raises(NodeError, match="Depth limit 5 reached, object too deep") as caught:
            check("object", value)
        assert caught.value.type == "DepthLimitError"


def test_every_declared_output_must_be_there_and_no_other() -> None:
    """On every level that is declared."""
    schema = {"x": OutputSpec("object", {"y": OutputSpec("string")})}
    assert checked({"x": {"y": "a"}}, schema) == {"x": {"y": "a"}}
    with pytest.raises(NodeError, match=r"Output x\.y is missing\."):
        checked({"x": {}}, schema)
    with pytest.raises(NodeError, match="Not all output parameters are validated") as caught:
        checked({"x": {"y": "a"}, "z": 1}, schema)
    assert caught.value.type == "CodeNodeError"
    with pytest.raises(NodeError, match="must return an object"):
        checked([1], schema)


def test_limits_can_be_set() -> None:
    """As in Dify's environment."""
    with pytest.raises(NodeError, match="less than 2 elements"):
        checked(
            {"x": ["a"] * 3},
            {"x": OutputSpec("array[string]")},
            OutputLimits(string_array_length=2),
        )


def test_texts_of_numbers_with_exponents_are_numbers() -> None:
    """Anywhere in a result; nothing else is touched."""
    read = numbers_read(
        {"a": "1e+5", "b": ["-2.5e-3", "1e5", "x1e+5", "1E+5"], "c": {"d": "1.e+2"}}
    )
    assert read == {"a": 1e5, "b": [-0.0025, "1e5", "x1e+5", "1E+5"], "c": {"d": 100.0}}
