"""if-else."""

from __future__ import annotations

from typing import Any

import pytest

from server.workflow.node import GraphError, NodeError
from tests.server.workflow.fakes import FakeRun, execute, node


def condition(value: str, operator: str = "is") -> dict[str, Any]:
    return {"variable_selector": ["n", "x"], "comparison_operator": operator, "value": value}


def case(id: str, *conditions: dict[str, Any], join: str = "and") -> dict[str, Any]:
    return {"case_id": id, "logical_operator": join, "conditions": list(conditions)}


CASES = [
    case("true", condition("a")),
    case("c2", condition("b"), condition("c"), join="or"),
    case("c3", condition("b")),
]


@pytest.mark.parametrize(
    ("value", "handle", "results"),
    [("a", "true", 1), ("b", "c2", 2), ("c", "c2", 2), ("z", "false", 3)],
)
async def test_the_first_case_that_holds(value: str, handle: str, results: int) -> None:
    """It is the handle; none is "false"."""
    result = await execute(node("if-else", {"cases": CASES}), FakeRun({"n": {"x": value}}))
    assert result.handle == handle
    assert result.outputs == {"result": handle != "false", "selected_case_id": handle}
    assert len(result.process_data["condition_results"]) == results
    assert result.inputs["conditions"][0]["actual_value"] == value


async def test_the_record_has_what_decides() -> None:
    """Without what editors note beside it."""
    noted = {**case("true", {**condition("a"), "id": "7", "varType": "string"}), "id": "true"}
    run = FakeRun({"n": {"x": "a"}})
    result = await execute(node("if-else", {"cases": [noted]}), run)
    shown = case("true", {**condition("a"), "sub_variable_condition": None})
    assert result.process_data["condition_results"][0]["group"] == shown


async def test_the_old_form_is_one_case() -> None:
    """Conditions in the node itself are the case "true"."""
    tested = node("if-else", {"logical_operator": "and", "conditions": [condition("a")]})
    assert (await execute(tested, FakeRun({"n": {"x": "a"}}))).handle == "true"
    result = await execute(tested, FakeRun({"n": {"x": "b"}}))
    assert result.handle == "false"
    assert result.process_data["condition_results"][0]["group"] == "default"


async def test_a_failure_tells_how_far_it_came() -> None:
    """The cases before it, and the words of the comparison."""
    cases = [case("true", condition("a")), case("c2", condition("5", ">"))]
    with pytest.raises(NodeError) as error:
        await execute(node("if-else", {"cases": cases}), FakeRun({"n": {"x": "b"}}))
    assert error.value.message == "Invalid actual value type: number"
    assert len(error.value.process_data["condition_results"]) == 1


def test_it_branches_and_says_what_it_reads() -> None:
    """Of all cases, with the templates in their values."""
    tested = node("if-else", {"cases": [*CASES, case("c4", condition("{{#m.y#}}"))]})
    assert tested.branches
    assert set(tested.reads()) == {("n", "x"), ("m", "y")}


def test_cases_that_are_none_name_their_place() -> None:
    """The report says where."""
    with pytest.raises(GraphError, match=r"node\.cases\[0\]\.conditions\[0\]: expected a mapping"):
        node("if-else", {"cases": [{"conditions": ["x"]}]})
