"""The variable pool: paths, layers, and what is not there."""

from __future__ import annotations

from typing import Any

import pytest

from server.workflow.values import File
from server.workflow.variables import MISSING, Variables

FILE = File(type="image", transfer_method="remote_url", name="a.png", url="http://h/a.png", size=3)


def pool() -> Variables:
    variables = Variables()
    variables.add(
        "n", {"text": "t", "none": None, "object": {"a": {"b": 1}, "nil": None}, "file": FILE}
    )
    variables.set("n", "list", [{"a": 1}])
    variables.set("n", "deep", {"file": FILE})
    return variables


@pytest.mark.parametrize(
    ("selector", "value"),
    [
        (("n", "text"), "t"),
        (("n", "none"), None),
        (("n", "object", "a"), {"b": 1}),
        (("n", "object", "a", "b"), 1),
        (("n", "object", "nil"), None),
        (("n", "file", "name"), "a.png"),
        (("n", "file", "size"), 3),
        (("n", "file", "mime_type"), None),
        (("n", "deep", "file", "url"), "http://h/a.png"),
        (("n", "object", "zzz"), MISSING),
        (("n", "object", "a", "zzz"), MISSING),
        (("n", "object", "nil", "zzz"), MISSING),
        (("n", "none", "zzz"), MISSING),
        (("n", "file", "zzz"), MISSING),
        (("n", "file", "as_dict"), MISSING),
        (("n", "list", "0"), MISSING),
        (("n", "text", "upper"), MISSING),
        (("n", "zzz"), MISSING),
        (("zzz", "text"), MISSING),
        (("n",), MISSING),
        ((), MISSING),
    ],
)
def test_selectors(selector: tuple[str, ...], value: Any) -> None:
    """A path goes into objects and files; where it leads nowhere, nothing is there."""
    assert pool().get(selector) is value or pool().get(selector) == value


def test_missing_is_false() -> None:
    """It can stand in a condition, and says what it is."""
    assert not MISSING
    assert repr(MISSING) == "MISSING"


def test_a_scope_reads_through_and_writes_into_itself() -> None:
    """A round sees what is around it and changes nothing there."""
    outer = pool()
    inner = outer.scope()
    inner.set("n", "text", "inner")
    inner.set("m", "x", 1)
    assert inner.get(("n", "text")) == "inner"
    assert inner.get(("n", "object", "a", "b")) == 1
    assert outer.get(("n", "text")) == "t"
    assert outer.get(("m", "x")) is MISSING
    assert inner.names_of("n") == outer.names_of("n") | {"text": "inner"}
    assert inner.own_of("n") == {"text": "inner"}


def test_a_none_in_a_scope_hides_what_is_outside() -> None:
    """None is a value."""
    inner = pool().scope()
    inner.set("n", "text", None)
    assert inner.get(("n", "text")) is None


def test_forget_drops_this_layer_only() -> None:
    """A loop's round begins without what the last one gave out, but with what is around."""
    outer = pool()
    inner = outer.scope()
    inner.set("n", "text", "inner")
    inner.forget(["n", "unknown"])
    assert inner.get(("n", "text")) == "t"
