"""Conditions: every operator of dify.md b.6."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.workflow.comparing import BINARY, UNARY
from server.workflow.conditions import Conditions, compile_conditions
from server.workflow.node import NodeError
from server.workflow.reading import Reader
from server.workflow.values import File
from server.workflow.variables import Variables

PNG = File(type="image", transfer_method="local_file", name="a.png", extension=".png", size=10)
PDF = File(type="document", transfer_method="remote_url", name="b.pdf", extension="pdf", size=99)


def conditions(*items: dict[str, Any], join: Any = "and") -> Conditions:
    return compile_conditions(Reader({"logical_operator": join, "conditions": list(items)}, "case"))


def one(operator: Any, expected: Any = None, **more: Any) -> Conditions:
    return conditions(
        {"variable_selector": ["n", "x"], "comparison_operator": operator, "value": expected} | more
    )


def variables(value: Any, **others: Any) -> Variables:
    found = Variables()
    found.add("n", {"x": value} | others)
    return found


# operator, value, expected, holds; checked against graphon 0.8
TABLE: list[tuple[str, Any, Any, bool]] = [
    ("contains", "abc", "b", True),
    ("contains", "abc", "z", False),
    ("contains", "abc", "", True),
    ("contains", "", "", False),
    ("contains", None, "a", False),
    ("contains", ["a", "b"], "a", True),
    ("contains", ["ab"], "a", False),
    ("contains", [1, 2], "1", False),
    ("contains", [True], "true", True),
    ("contains", "True story", True, True),
    ("not contains", "abc", "z", True),
    ("not contains", "", "z", True),
    ("not contains", ["a"], "a", False),
    ("start with", "abc", "ab", True),
    ("start with", "", "", False),
    ("end with", "abc", "bc", True),
    ("end with", "abc", "ab", False),
    ("is", "a", "a", True),
    ("is", "a", "A", False),
    ("is", "", "", True),
    ("is", None, "", False),
    ("is", True, "true", True),
    ("is", True, "True", True),
    ("is", True, "1", True),
    ("is", False, "false", True),
    ("is", True, False, False),
    ("is not", "a", "b", True),
    ("is not", None, "a", False),
    ("is not", True, "false", True),
    ("empty", "", None, True),
    ("empty", " ", None, False),
    ("empty", None, None, True),
    ("empty", [], "", True),
    ("empty", {}, "", True),
    ("empty", 0, "", True),
    ("empty", False, "", True),
    ("not empty", "a", "", True),
    ("not empty", [0], "", True),
    ("is empty", "", "", True),
    ("is not empty", "", "", False),
    ("null", None, "", True),
    ("null", "", "", False),
    ("not null", 0, "", True),
    ("exists", "", "", True),
    ("exists", None, "", False),
    ("not exists", None, "", True),
    ("exists", PNG, "", True),
    ("in", "a", ["a", "b"], True),
    ("in", "z", ["a"], False),
    ("in", "", "no list", False),
    ("not in", "z", ["a"], True),
    ("not in", "", ["a"], True),
    ("all of", ["a", "b", "c"], ["a", "b"], True),
    ("all of", ["a"], ["a", "b"], False),
    ("all of", "abc", ["a", "b"], True),
    ("all of", [], ["a"], False),
    ("all of", [True, False], ["true"], True),
    ("=", 5, "5", True),
    ("=", 5.0, "5", True),
    ("=", 5.5, "5.5", True),
    ("=", 0, "0", True),
    ("=", None, "0", False),
    ("=", True, "true", True),
    ("=", 5, 5, True),
    ("≠", 5, "6", True),
    ("≠", None, "6", False),
    (">", 5, "4.5", True),
    (">", 5, "5", False),
    (">", 10**20 + 1, str(10**20), True),
    ("<", -3, "0", True),
    ("<", 2.5, "2", False),
    ("≥", 5, "5.0", True),
    ("≤", 5, "4", False),
    ("≤", None, "4", False),
    (">=", 5, "5", True),
]


@pytest.mark.parametrize(("operator", "value", "expected", "holds"), TABLE)
def test_operators(operator: str, value: Any, expected: Any, holds: bool) -> None:
    """Each says of each value what Dify says."""
    assert one(operator, expected).holds(variables(value)) is holds


ERRORS: list[tuple[Any, Any, Any, str]] = [
    ("contains", 5, "5", "Invalid actual value type: string or array"),
    ("not contains", {"a": 1}, "a", "Invalid actual value type: string or array"),
    ("start with", 5, "5", "Invalid actual value type: string"),
    ("start with", "a", None, "Expected value must be a string for startswith"),
    ("end with", "a", ["a"], "Expected value must be a string for endswith"),
    ("is", 5, "5", "Invalid actual value type: string or boolean"),
    ("is not", [1], "5", "Invalid actual value type: string or boolean"),
    ("is", True, "maybe", "Expecting value: line 1 column 1 (char 0)"),
    ("is", True, "1.5", "unexpected value: type=<class 'str'>, value=1.5"),
    ("in", "a", "abc", "Invalid expected value type: array"),
    ("not in", "a", None, "Invalid expected value type: array"),
    ("all of", ["a"], "a", "all of operator expects homogeneous list of strings or booleans"),
    ("=", 5, "5.0", "invalid literal for int() with base 10: '5.0'"),
    ("=", 5, None, "Cannot convert <class 'NoneType'> to int"),
    ("=", "5", "5", "Invalid actual value type: number or boolean"),
    (">", "5", "5", "Invalid actual value type: number"),
    (">", 5, "five", "Cannot convert 'five' to number"),
    (">", 5, None, "Cannot convert <class 'NoneType'> to number"),
    ("between", 5, "1", "Unsupported operator: between"),
    (None, "a", "a", "Unsupported operator: None"),
    ("contains", [PNG], "image", "Sub variable is required"),
]


@pytest.mark.parametrize(("operator", "value", "expected", "message"), ERRORS)
def test_comparisons_without_sense_fail_the_node(
    operator: Any, value: Any, expected: Any, message: str
) -> None:
    """With the words that Dify has for it."""
    with pytest.raises(NodeError) as error:
        one(operator, expected).holds(variables(value))
    assert error.value.message == message


def test_a_variable_that_is_not_there_fails_the_node() -> None:
    """Even for "exists": a path that leads nowhere is an error, as in Dify."""
    for selector in (["n", "y"], ["n", "x", "y"], ["m", "x"]):
        group = conditions({"variable_selector": selector, "comparison_operator": "exists"})
        with pytest.raises(NodeError) as error:
            group.holds(variables("a"))
        assert error.value.message == f"Variable {selector} not found"


def test_expected_values_are_templates() -> None:
    """They read other variables; a boolean compares with what another one reads as."""
    assert one("is", "{{#n.y#}}!").holds(variables("a!", y="a"))
    assert one("is", "{{#n.y#}}").holds(variables(True, y=True))
    assert one(">", "{{#n.y#}}").holds(variables(5, y=4.5))
    assert list(one("is", "{{#n.y#}}").reads()) == [("n", "x"), ("n", "y")]


OF_FILES: list[tuple[str, str, list[tuple[str, str, Any]], list[File], bool]] = [
    ("contains", "and", [("type", "in", ["image"])], [PNG, PDF], True),
    ("contains", "and", [("type", "in", ["audio"])], [PNG, PDF], False),
    ("contains", "and", [("type", "in", ["image"]), ("size", ">", "50")], [PNG, PDF], True),
    ("contains", "and", [("name", "is", "a.png"), ("size", ">", "500")], [PNG], False),
    ("contains", "or", [("name", "is", "a.png"), ("size", ">", "500")], [PNG], True),
    ("not contains", "and", [("type", "not in", ["image"])], [PNG, PDF], False),
    ("not contains", "and", [("type", "not in", ["audio"])], [PNG, PDF], True),
    ("all of", "and", [("extension", "is", "png")], [PNG, PDF], True),
    ("contains", "and", [("extension", "is", ".pdf")], [PDF], True),
    ("contains", "and", [("extension", "in", ["pdf"])], [PDF], True),
    ("contains", "and", [("url", "exists", None)], [PNG], False),
    ("contains", "and", [("type", "in", ["image"])], [], False),
    ("not contains", "and", [("type", "not in", ["image"])], [], True),
]


@pytest.mark.parametrize(("operator", "join", "below", "files", "holds"), OF_FILES)
def test_conditions_on_files(
    operator: str, join: str, below: list[tuple[str, str, Any]], files: list[File], holds: bool
) -> None:
    """Each asks any file, or, with "not", all of them."""
    listed = [
        {"key": key, "comparison_operator": name, "value": value} for key, name, value in below
    ]
    group = one(operator, sub_variable_condition={"logical_operator": join, "conditions": listed})
    assert group.holds(variables(files)) is holds


def test_files_have_no_other_attributes() -> None:
    """A condition cannot look into what is not a file's attribute."""
    below = {"conditions": [{"key": "__class__", "comparison_operator": "is", "value": ""}]}
    with pytest.raises(NodeError, match="'__class__' is not a valid FileAttribute"):
        one("contains", sub_variable_condition=below).holds(variables([PNG]))


def test_and_or_stop_early() -> None:
    """What comes after the deciding condition is not asked, not even if it would fail."""
    yes = {"variable_selector": ["n", "x"], "comparison_operator": "is", "value": "a"}
    no = {"variable_selector": ["n", "x"], "comparison_operator": "is", "value": "b"}
    broken = {"variable_selector": ["n", "x"], "comparison_operator": ">", "value": "b"}
    assert conditions(yes, broken, join="or").check(variables("a")).results == [True]
    assert conditions(no, broken, join="and").check(variables("a")).results == [False]
    assert conditions(yes, no, join="or").holds(variables("a"))
    assert not conditions(yes, no, join=None).holds(variables("a"))


def test_no_conditions() -> None:
    """All of none hold, any of none does not."""
    assert conditions(join="and").holds(variables(1))
    assert not conditions(join="or").holds(variables(1))
    assert len(conditions()) == 0


def test_what_was_compared_is_told() -> None:
    """Run records show the values on both sides, for all operators that compare."""
    checked = one("contains", "{{#n.y#}}").check(variables("ab", y="b"))
    assert checked.compared == [
        {"actual_value": "ab", "expected_value": "b", "comparison_operator": "contains"}
    ]
    assert one("exists").check(variables("ab")).compared == []


SCALARS = st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from([0.5, 2.0]) | st.text()
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(), SCALARS, max_size=2)
EXPECTED = st.none() | st.text() | st.booleans() | st.lists(st.text() | st.booleans(), max_size=3)


@given(st.sampled_from([*UNARY, *BINARY]), VALUES, EXPECTED)
def test_conditions_hold_or_fail_the_node(operator: str, value: Any, expected: Any) -> None:
    """Whatever is compared with whatever, nothing else comes out."""
    with contextlib.suppress(NodeError):
        assert isinstance(one(operator, expected).holds(variables(value)), bool)


def naive(operator: str, value: str, expected: str) -> bool:
    return {
        "contains": expected in value and value != "",
        "not contains": not (expected in value and value != ""),
        "start with": value != "" and value.startswith(expected),
        "end with": value != "" and value.endswith(expected),
        "is": value == expected,
        "is not": value != expected,
        "empty": value == "",
        "not empty": value != "",
        "exists": True,
        "null": False,
    }[operator]


TEXTS = ["contains", "not contains", "start with", "end with", "is", "is not", "empty", "exists"]


@given(st.sampled_from(TEXTS), st.text("ab", max_size=4), st.text("ab", max_size=2))
def test_texts_agree_with_a_naive_model(operator: str, value: str, expected: str) -> None:
    """For texts, each operator is one line of Python."""
    assert one(operator, expected).holds(variables(value)) is naive(operator, value, expected)


@given(st.sampled_from("=≠<>≤≥"), st.integers(), st.integers())
def test_numbers_agree_with_a_naive_model(operator: str, value: int, expected: int) -> None:
    """Whole numbers of any size compare exactly, as far as texts of them become floats."""
    model = {
        "=": value == expected,
        "≠": value != expected,
        "<": value < int(float(expected)),
        ">": value > int(float(expected)),
        "≤": value <= int(float(expected)),
        "≥": value >= int(float(expected)),
    }
    assert one(operator, str(expected)).holds(variables(value)) is model[operator]
