"""Reading the data of exports."""

from __future__ import annotations

from typing import Any

import pytest

from server.workflow.reading import GraphError, Reader


def reader(**data: Any) -> Reader:
    return Reader(data, "nodes[3].data")


def test_null_is_as_good_as_absent() -> None:
    """Exports write null for what was never set."""
    data = reader(a=None)
    assert data.text("a", "d") == "d"
    assert data.flag("a", True) is True
    assert data.number("a", 2) == 2.0
    assert data.items("a") == []
    assert data.table("a").data == {}
    assert data.selector("a") == ()
    assert list(data.tables("a")) == []


@pytest.mark.parametrize(
    ("found", "flag"), [(True, True), ("false", False), ("True", True), (1, True), ("", False)]
)
def test_flags(found: Any, flag: bool) -> None:
    """Texts and numbers are read as flags too."""
    assert reader(a=found).flag("a") is flag


@pytest.mark.parametrize(("found", "number"), [("3", 3.0), (2, 2.0), (" ", 9.0), ("1e2", 100.0)])
def test_numbers(found: Any, number: float) -> None:
    """An empty field of the editor is no number."""
    assert reader(a=found).number("a", 9) == number


@pytest.mark.parametrize(
    ("found", "selector"),
    [(["n", "x"], ("n", "x")), ("n.x.y", ("n", "x", "y")), ([17, "x"], ("17", "x"))],
)
def test_selectors(found: Any, selector: tuple[str, ...]) -> None:
    """Ids that YAML took for numbers are texts again."""
    assert reader(a=found).selector("a") == selector


@pytest.mark.parametrize(
    ("method", "found"),
    [
        ("text", {}),
        ("flag", []),
        ("number", "many"),
        ("number", float("nan")),
        ("number", 10**400),
        ("whole", float("inf")),
        ("whole", float("nan")),
        ("table", []),
        ("items", "x"),
        ("selector", [None]),
        ("selector", 5),
    ],
)
def test_wrong_values_name_their_place(method: str, found: Any) -> None:
    """The path in the file is in the message."""
    arguments = (9,) if method in ("number", "whole") else ()
    with pytest.raises(GraphError) as error:
        getattr(reader(a=found), method)("a", *arguments)
    assert error.value.place == "nodes[3].data.a"
    assert str(error.value).startswith("nodes[3].data.a: expected")


def test_places_of_lists_count() -> None:
    """The third of a list is named as such."""
    tables = list(reader(a=[{}, {"b": {}}]).tables("a"))
    assert tables[1].table("b").place == "nodes[3].data.a[1].b"
    with pytest.raises(GraphError, match=r"nodes\[3\]\.data\.a\[0\]: expected a mapping"):
        list(reader(a=[1]).tables("a"))
