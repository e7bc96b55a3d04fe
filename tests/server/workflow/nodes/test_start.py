"""start."""

from __future__ import annotations

import pytest

from server.workflow.node import GraphError, Inline, NodeError
from tests.server.workflow.fakes import FakeRun, execute, node

SCHEMA = '{"type": "object", "required": ["a"]}'


def start(schema: object) -> Inline:
    variable = {"variable": "o", "type": "json_object", "json_schema": schema}
    found = node("start", {"variables": [variable]}, id="s")
    assert isinstance(found, Inline)
    return found


async def test_inputs_come_out() -> None:
    """As they are; sys and env are no outputs of it."""
    run = FakeRun({"s": {"q": "a", "n": None}, "sys": {"query": "a"}})
    result = await execute(node("start", {"variables": None}, id="s"), run)
    assert result.outputs == result.inputs == {"q": "a", "n": None}


async def test_objects_are_held_against_their_schema() -> None:
    """One that is empty or missing is let pass, as in Dify."""
    good = {"o": {"a": 1}}
    assert (await execute(start(SCHEMA), FakeRun({"s": good}))).outputs == good
    assert (await execute(start(SCHEMA), FakeRun({"s": {"o": None}}))).outputs == {"o": None}
    with pytest.raises(NodeError) as error:
        await execute(start(SCHEMA), FakeRun({"s": {"o": {"b": 1}}}))
    assert error.value.message == (
        "JSON object for 'o' does not match schema: \"a\" is a required property"
    )
    with pytest.raises(NodeError, match="JSON object for 'o' must be an object"):
        await execute(start(SCHEMA), FakeRun({"s": {"o": [1]}}))


def test_a_schema_that_is_none_names_its_place() -> None:
    """An empty one is as good as absent."""
    start(" ")
    with pytest.raises(GraphError) as error:
        start("{")
    assert error.value.place == "s.variables[0].json_schema"
