"""variable-aggregator."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.workflow.fakes import FakeRun, execute, node


@pytest.mark.parametrize(
    ("given", "outputs", "inputs"),
    [
        ({"a": {"x": 1}, "b": {"y": 2}}, {"output": 1}, {"x": 1}),
        ({"b": {"y": 2}}, {"output": 2}, {"y": 2}),
        ({"a": {"x": None}, "b": {"y": 2}}, {"output": None}, {"x": None}),
        ({"a": {"x": ""}, "b": {"y": 2}}, {"output": ""}, {"x": ""}),
        ({}, {}, {}),
    ],
)
async def test_the_first_that_is_there(
    given: dict[str, Any], outputs: dict[str, Any], inputs: dict[str, Any]
) -> None:
    """None and "" are there; without any, nothing comes out."""
    tested = node("variable-aggregator", {"variables": [["a", "x"], ["b", "y"], []]})
    result = await execute(tested, FakeRun(given))
    assert result.outputs == outputs
    assert result.inputs == inputs


async def test_groups() -> None:
    """Each has its own output, with `output` below; one that finds nothing has none."""
    groups = [
        {"group_name": "one", "variables": [["a", "x"], ["b", "y"]]},
        {"group_name": "two", "variables": [["c", "z"]]},
        {"group_name": "three", "variables": [["b", "y", "k"]]},
    ]
    settings = {"group_enabled": True, "groups": groups}
    tested = node("variable-aggregator", {"variables": [], "advanced_settings": settings})
    result = await execute(tested, FakeRun({"b": {"y": {"k": 3}}}))
    assert result.outputs == {"one": {"output": {"k": 3}}, "three": {"output": 3}}
    assert result.inputs == {"y": {"k": 3}, "y.k": 3}


async def test_groups_that_are_off_do_not_count() -> None:
    """The editor leaves them in the file."""
    settings = {"group_enabled": False, "groups": [{"group_name": "one", "variables": []}]}
    data = {"variables": [["a", "x"]], "advanced_settings": settings}
    result = await execute(node("variable-aggregator", data), FakeRun({"a": {"x": 1}}))
    assert result.outputs == {"output": 1}
