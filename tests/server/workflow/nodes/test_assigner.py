"""assigner, both versions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.workflow.app import GraphSpec, NodeSpec, VariableSpec
from server.workflow.node import NodeError, Run
from server.workflow.values import File, Kind, kind_of
from tests.server.workflow.fakes import FakeRun, app, execute, node, services

FILE = File(type="image", transfer_method="remote_url", url="http://h/a.png")
TARGET = ["conversation", "x"]


def item(operation: str, value: Any = None, *, by: str = "constant", target: Any = TARGET) -> Any:
    return {
        "variable_selector": target,
        "operation": operation,
        "input_type": by,
        "value": value,
    }


def fake(value: Any, declared: str = "", given: Any = None) -> FakeRun:
    conversation = (VariableSpec(name="x", value_type=declared),) if declared else ()
    run = Run(id="r", app=app("advanced-chat", conversation=conversation), services=services())
    return FakeRun({"conversation": {"x": value}, "n": {"y": given}}, run=run)


async def done(value: Any, items: list[Any], declared: str = "", given: Any = None) -> Any:
    run = fake(value, declared, given)
    await execute(node("assigner", {"version": "2", "items": items}), run)
    return run.variables.get(TARGET)


BY = "variable"

# value, operation, constant or variable, what with, result
TABLE: list[tuple[Any, str, str, Any, Any]] = [
    ("a", "over-write", "constant", "b", "b"),
    ("a", "over-write", BY, "b", "b"),
    ("a", "set", "constant", "b", "b"),
    ("a", "clear", BY, None, ""),
    (5, "over-write", BY, 2.5, 2.5),
    (5, "set", "constant", 7, 7),
    (5, "+=", "constant", 2, 7),
    (5, "-=", "constant", 0.5, 4.5),
    (5, "*=", "constant", 3, 15),
    (5, "/=", "constant", 2, 2.5),
    (5, "clear", BY, None, 0),
    (2.5, "clear", BY, None, 0.0),
    (True, "set", "constant", False, False),
    (True, "clear", BY, None, False),
    ({"a": 1}, "over-write", BY, {"b": 2}, {"b": 2}),
    ({"a": 1}, "set", "constant", '{"b": 2}', {"b": 2}),
    ({"a": 1}, "clear", BY, None, {}),
    (["a"], "append", BY, "b", ["a", "b"]),
    (["a"], "extend", BY, ["b", "c"], ["a", "b", "c"]),
    (["a"], "over-write", BY, ["b"], ["b"]),
    (["a", "b"], "remove-first", BY, None, ["b"]),
    (["a", "b"], "remove-last", BY, None, ["a"]),
    ([], "remove-first", BY, None, []),
    (["a"], "clear", BY, None, []),
    ([1], "append", BY, 2.5, [1, 2.5]),
    ([{"a": 1}], "append", BY, {"b": 1}, [{"a": 1}, {"b": 1}]),
    ([True], "append", BY, False, [True, False]),
    ([FILE], "append", BY, FILE, [FILE, FILE]),
    ([], "append", BY, "any", ["any"]),
    ("a", "over-write", BY, None, "a"),
]


@pytest.mark.parametrize(("value", "operation", "by", "given", "result"), TABLE)
async def test_operations(value: Any, operation: str, by: str, given: Any, result: Any) -> None:
    """Each does what Dify's does; a variable that is None leaves the target as it is."""
    source = ["n", "y"] if by == BY else given
    found = await done(value, [item(operation, source, by=by)], given=given)
    assert found == result
    assert type(found) is type(result)


REFUSED: list[tuple[Any, str, str, Any, str]] = [
    ("a", "+=", "constant", 1, "Operation += is not supported for type string"),
    (5, "append", BY, 1, "Operation append is not supported for type integer"),
    (2.5, "extend", BY, [1], "Operation extend is not supported for type float"),
    (["a"], "set", "constant", ["b"], "Operation set is not supported for type array[string]"),
    ("a", "explode", BY, 1, "Operation explode is not supported for type string"),
    (5, "+=", BY, 1, "Input type variable is not supported for operation +="),
    ("a", "set", BY, "b", "Input type variable is not supported for operation set"),
    (["a"], "over-write", "constant", [], "Input type constant is not supported for operation"),
    (["a"], "append", "constant", "b", "Input type constant is not supported for operation append"),
    ("a", "over-write", BY, 5, "Invalid input value 5"),
    (5, "over-write", BY, "5", "Invalid input value 5"),
    (5, "+=", "constant", "1", "Invalid input value 1"),
    (5, "/=", "constant", 0, "Invalid input value 0"),
    (True, "over-write", BY, 1, "Invalid input value 1"),
    ({"a": 1}, "set", "constant", "{", "Invalid input value {"),
    ({"a": 1}, "set", "constant", "[]", "Invalid input value []"),
    (["a"], "append", BY, 5, "Invalid input value 5"),
    (["a"], "extend", BY, ["b", 5], "Invalid input value ['b', 5]"),
    (["a"], "extend", BY, "b", "Invalid input value b"),
    (1 << 4096, "*=", "constant", 2, "more than 4096 bits"),
]


@pytest.mark.parametrize(("value", "operation", "by", "given", "message"), REFUSED)
async def test_refusals(value: Any, operation: str, by: str, given: Any, message: str) -> None:
    """Types are kept; the words are Dify's."""
    run = fake(value, given=given)
    source = ["n", "y"] if by == BY else given
    tested = node("assigner", {"version": "2", "items": [item(operation, source, by=by)]})
    with pytest.raises(NodeError) as error:
        await execute(tested, run)
    assert message in error.value.message
    assert run.written == []


@pytest.mark.parametrize("target", [[], ["conversation"], ["conversation", "x", "a"]])
async def test_only_whole_variables_are_set(target: list[str]) -> None:
    """A part of an object is no variable: setting it would replace the object."""
    with pytest.raises(NodeError, match="not found"):
        await done({"a": "b"}, [item("set", "c", target=target)])


async def test_declared_types_count() -> None:
    """An empty list is one of what it was declared to hold; so is a number that is whole."""
    append = [item("append", ["n", "y"], by=BY)]
    with pytest.raises(NodeError, match="Invalid input value 5"):
        await done([], append, "array[string]", 5)
    assert await done([], append, "array[string]", "a") == ["a"]
    assert await done(None, [item("clear", by=BY)], "array[object]") == []
    assert await done(5, [item("+=", 1)], "integer") == 6


async def test_loop_variables_have_declared_types_too() -> None:
    """They are found in the loop's data."""
    loop = {"loop_variables": [{"label": "found", "var_type": "array[object]"}]}
    graph = GraphSpec((NodeSpec(id="loop", type="loop", data=loop),), ())
    run = Run(id="r", app=app(graph=graph), services=services())
    fake = FakeRun({"loop": {"found": []}, "n": {"y": "text", "z": {"a": 1}}}, run=run)
    target = ["loop", "found"]
    with pytest.raises(NodeError, match="Invalid input value text"):
        await execute(
            node("assigner", {"items": [item("append", ["n", "y"], by=BY, target=target)]}), fake
        )
    await execute(
        node("assigner", {"items": [item("append", ["n", "z"], by=BY, target=target)]}), fake
    )
    assert fake.written == [(("loop", "found"), [{"a": 1}])]


async def test_items_see_one_another_and_are_written_together() -> None:
    """Each target once, in the order of its first change; all or nothing."""
    run = fake(1)
    run.variables.set("conversation", "l", ["a"])
    items = [
        item("+=", 1),
        item("append", ["n", "y"], by=BY, target=["conversation", "l"]),
        item("*=", 10),
    ]
    run.variables.set("n", "y", "b")
    result = await execute(node("assigner", {"items": items}), run)
    assert run.written == [(("conversation", "x"), 20), (("conversation", "l"), ["a", "b"])]
    assert result.outputs == {}
    assert result.process_data["x"] == 20
    assert result.process_data["__updated_variables"][0] == {
        "name": "x",
        "selector": ["conversation", "x"],
        "value_type": "integer",
        "new_value": 20,
    }
    with pytest.raises(NodeError, match=r"Variable \['conversation', 'gone'\] not found"):
        await execute(
            node("assigner", {"items": [*items, item("clear", target=["conversation", "gone"])]}),
            run,
        )
    assert len(run.written) == 2


def v1(mode: str | None, **more: Any) -> Any:
    data = {
        "assigned_variable_selector": TARGET,
        "write_mode": mode,
        "input_variable_selector": ["n", "y"],
    }
    return node("assigner", data | more)


@pytest.mark.parametrize(
    ("mode", "value", "given", "result", "shown"),
    [
        ("over-write", "a", "b", "b", "b"),
        ("over-write", "a", 5, 5, 5),
        (None, "a", "b", "b", "b"),
        ("append", ["a"], "b", ["a", "b"], "b"),
        ("clear", "a", "b", "", ""),
        ("clear", ["a"], "b", [], []),
    ],
)
async def test_version_1(mode: str | None, value: Any, given: Any, result: Any, shown: Any) -> None:
    """One variable into another; types are not checked."""
    run = fake(value, given=given)
    told = await execute(v1(mode), run)
    assert run.written == [(("conversation", "x"), result)]
    assert told.inputs == {"value": shown}
    assert told.process_data["__updated_variables"][0]["new_value"] == result


@pytest.mark.parametrize(
    ("mode", "more", "message"),
    [
        ("append", {}, "append mode requires an array variable"),
        ("over-write", {"input_variable_selector": ["n", "z"]}, "input value not found"),
        ("clear", {"assigned_variable_selector": ["c", "x"]}, "assigned variable not found"),
        ("explode", {}, "Unsupported write mode: explode"),
    ],
)
async def test_version_1_refusals(mode: str, more: dict[str, Any], message: str) -> None:
    """In Dify's words."""
    with pytest.raises(NodeError, match=message):
        await execute(v1(mode, **more), fake("a", given="b"))


def test_what_it_writes_and_reads() -> None:
    """The stream order waits for what it writes."""
    tested = node("assigner", {"items": [item("append", ["n", "y"], by=BY)]})
    assert list(tested.writes()) == [("conversation", "x")]
    assert list(tested.reads()) == [("conversation", "x"), ("n", "y")]
    assert list(v1("append").writes()) == [("conversation", "x")]


SCALARS = st.booleans() | st.integers(-9, 9) | st.sampled_from([0.5]) | st.text(max_size=3)
VALUES = (
    SCALARS
    | st.lists(SCALARS, max_size=3)
    | st.dictionaries(st.text(max_size=2), SCALARS, max_size=2)
)
OPERATIONS = ["over-write", "clear", "append", "extend", "set", "+=", "-=", "*=", "/="]
KINDS: list[Kind] = ["string", "boolean", "object", "array[string]", "array[boolean]"]


@settings(max_examples=40)
@given(VALUES, st.sampled_from(OPERATIONS), st.sampled_from([BY, "constant"]), VALUES)
async def test_types_are_kept(value: Any, operation: str, by: str, given: Any) -> None:
    """What a variable holds after v2 is of the kind that it was, or the node has failed."""
    kind = kind_of(value)
    source = ["n", "y"] if by == BY else given
    try:
        found = await done(value, [item(operation, source, by=by)], kind, given)
    except NodeError:
        return
    if kind == "number":  # a boolean is one, as in Python
        assert isinstance(found, int | float)
    elif kind == "array[number]":
        assert all(isinstance(each, int | float) for each in found)
    elif kind in KINDS and found != []:
        assert kind_of(found) == kind
