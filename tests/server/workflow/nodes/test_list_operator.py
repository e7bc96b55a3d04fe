"""list-operator."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.workflow.node import NodeError
from server.workflow.values import File
from tests.server.workflow.fakes import FakeRun, execute, node

PNG = File(type="image", transfer_method="local_file", name="b.png", extension=".png", size=10)
PDF = File(type="document", transfer_method="remote_url", name="a.pdf", extension=".pdf", size=99)


def operator(
    *filters: tuple[str, str, Any],
    serial: str | None = None,
    order: tuple[str, str] | None = None,
    limit: int | None = None,
) -> Any:
    conditions = [
        {"key": key, "comparison_operator": name, "value": value} for key, name, value in filters
    ]
    data = {
        "variable": ["n", "l"],
        "filter_by": {"enabled": bool(filters), "conditions": conditions},
        "extract_by": {"enabled": serial is not None, "serial": serial},
        "order_by": {"enabled": order is not None, "key": (order or ("", ""))[0]}
        | {"value": (order or ("", "asc"))[1]},
        "limit": {"enabled": limit is not None, "size": limit},
    }
    return node("list-operator", data)


async def result(items: Any, tested: Any) -> Any:
    return (await execute(tested, FakeRun({"n": {"l": items, "y": "a", "two": 2}}))).outputs


FILTERS: list[tuple[list[Any], tuple[str, str, Any], list[Any]]] = [
    (["ab", "b"], ("", "contains", "a"), ["ab"]),
    (["ab", "b"], ("", "not contains", "a"), ["b"]),
    (["ab", "b"], ("", "start with", "{{#n.y#}}"), ["ab"]),
    (["ab", "b"], ("", "end with", "b"), ["ab", "b"]),
    (["ab", "b"], ("", "is", "b"), ["b"]),
    (["ab", "b"], ("", "is not", "b"), ["ab"]),
    (["ab", "b", "z"], ("", "in", "abc"), ["ab", "b"]),
    (["ab", "b", "z"], ("", "not in", "abc"), ["z"]),
    (["ab", ""], ("", "empty", ""), [""]),
    (["ab", ""], ("", "not empty", ""), ["ab"]),
    ([1, 2.5, 3], ("", ">", "2"), [2.5, 3]),
    ([1, 2.5, 3], ("", "≥", "2.5"), [2.5, 3]),
    ([1, 2.5, 3], ("", "<", "{{#n.two#}}"), [1]),
    ([1, 2.5, 3], ("", "≤", 1), [1]),
    ([1, 2.5, 3], ("", "=", "1.0"), [1]),
    ([1, 2.5, 3], ("", "≠", "1"), [2.5, 3]),
    ([True, False], ("", "is", True), [True]),
    ([True, False], ("", "is not", True), [False]),
    ([PNG, PDF], ("type", "in", ["image", "audio"]), [PNG]),
    ([PNG, PDF], ("type", "not in", ["image"]), [PDF]),
    ([PNG, PDF], ("transfer_method", "in", ["remote_url"]), [PDF]),
    ([PNG, PDF], ("extension", "is", ".pdf"), [PDF]),
    ([PNG, PDF], ("name", "contains", "b"), [PNG]),
    ([PNG, PDF], ("size", "<", "50"), [PNG]),
    ([PNG, PDF], ("url", "empty", ""), [PNG, PDF]),
]


@pytest.mark.parametrize(("items", "condition", "kept"), FILTERS)
async def test_filters(items: list[Any], condition: tuple[str, str, Any], kept: list[Any]) -> None:
    """By the kind of the list; values are templates."""
    found = await result(items, operator(condition))
    assert found == {"result": kept, "first_record": kept[0], "last_record": kept[-1]}


async def test_the_order_of_operations() -> None:
    """Filter, extract, order, limit."""
    numbers = [5, 3, 9, 1, 7]
    big = ("", ">", "2")
    found = await result(numbers, operator(big, order=("", "desc"), limit=2))
    assert found == {"result": [9, 7], "first_record": 9, "last_record": 7}
    found = await result(numbers, operator(big, serial="{{#n.two#}}", order=("", "asc"), limit=5))
    assert found["result"] == [3]
    assert (await result(["b", "a"], operator(order=("", "asc"))))["result"] == ["a", "b"]
    assert (await result([PNG, PDF], operator(order=("name", "asc"))))["result"] == [PDF, PNG]
    assert (await result([PNG, PDF], operator(order=("size", "desc"))))["result"] == [PDF, PNG]
    assert (await result(numbers, operator()))["result"] == numbers


@pytest.mark.parametrize("empty", [[], None, "", 0, {}])
async def test_nothing(empty: Any) -> None:
    """An empty list is no error, nor is anything that is false."""
    found = await result(empty, operator(("", "contains", "a"), serial="1", limit=1))
    assert found == {"result": [], "first_record": None, "last_record": None}


@pytest.mark.parametrize(
    ("items", "tested", "message"),
    [
        ("text", operator(), "is not an array type, actual type: string"),
        ([{"a": 1}], operator(), "is not an array type, actual type: array[object]"),
        (["a"], operator(("", "is", True)), "Invalid filter value: True"),
        (["a"], operator(("", ">", "1")), "Invalid condition: >"),
        ([1], operator(("", ">", "one")), "could not convert string to float: 'one'"),
        ([1], operator(("", "contains", "1")), "Invalid condition: contains"),
        ([True], operator(("", "is", "true")), "Boolean filter expects a boolean value"),
        ([PNG], operator(("type", "is", "image")), "Invalid condition: is"),
        ([PNG], operator(("color", "is", "red")), "Invalid key: color"),
        ([PNG], operator(("name", "in", ["a"])), "Invalid key: name"),
        ([PNG], operator(("name", "is", True)), "File filter expects a string value"),
        ([PNG], operator(order=("color", "asc")), "Invalid key: color"),
        (["a"], operator(serial="2"), "Invalid serial index: must be <= 1, got 2"),
        (["a"], operator(serial="0"), "Invalid serial index: must be >= 1, got 0"),
        (["a"], operator(serial="x"), "invalid literal for int()"),
    ],
)
async def test_errors(items: Any, tested: Any, message: str) -> None:
    """In Dify's words."""
    with pytest.raises(NodeError) as error:
        await result(items, tested)
    assert message in error.value.message


async def test_a_variable_that_is_not_there() -> None:
    """Its selector is named."""
    with pytest.raises(NodeError, match=r"Variable not found for selector: \['n', 'l'\]"):
        await execute(operator(), FakeRun())


@given(st.lists(st.integers(-9, 9)), st.integers(-9, 9), st.integers(0, 5))
async def test_numbers_agree_with_a_naive_model(items: list[int], above: int, size: int) -> None:
    """Filter, order and limit are three lines of Python; the input is left alone."""
    before = list(items)
    tested = operator(("", ">", str(above)), order=("", "desc"), limit=size)
    found = await result(items, tested)
    kept = sorted((item for item in items if item > above), reverse=True)[:size]
    assert found["result"] == kept
    assert found["first_record"] == (kept[0] if kept else None)
    assert items == before


async def test_long_filters_are_gone_through_in_a_thread() -> None:
    """Each item is looked for in all of it."""
    run = FakeRun({"n": {"l": ["ab", "b", "z"] * 100, "y": "ab" * 1_000_000}})
    tested = operator(("", "in", "{{#n.y#}}"))
    assert tested.at_once(run) is None
    assert (await execute(tested, run)).outputs["result"] == ["ab", "b"] * 100


async def test_long_lists_are_worked_through_in_a_thread() -> None:
    """So that other runs go on; short ones at once, with the same result."""
    tested = operator(("", "contains", "{{#n.y#}}"), order=("", "desc"), limit=2)
    for count in (100, 40_000):
        items = [f"a{n:06}" for n in range(count)] + ["b"]
        run = FakeRun({"n": {"l": items, "y": "a"}})
        assert (tested.at_once(run) is None) == (count > 1_000)
        result = await execute(tested, run)
        assert result.outputs["result"] == [f"a{count - 1:06}", f"a{count - 2:06}"]
