"""if-else: the first case whose conditions hold chooses the branch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

from server.workflow.conditions import Conditions, compile_conditions
from server.workflow.node import Inline, NodeError, NodeRun, Result
from server.workflow.reading import Reader
from server.workflow.variables import Selector

__all__ = ["IfElse"]


class _Case(NamedTuple):
    id: str
    conditions: Conditions
    group: Any
    """As run records name it."""


class IfElse(Inline):
    """Handles: each case's id, and "false" if none holds. Old exports have one case, "true",
    written into the node itself."""

    type: ClassVar[str] = "if-else"
    branches: ClassVar[bool] = True

    def read(self, data: Reader) -> None:
        if data.value("cases") is None:
            self._cases = [_Case("true", compile_conditions(data), "default")]
        else:
            self._cases = [_case(each) for each in data.tables("cases")]

    def reads(self) -> Iterable[Selector]:
        for case in self._cases:
            yield from case.conditions.reads()

    def evaluate(self, run: NodeRun) -> Result:
        variables = run.variables
        results: list[dict[str, Any]] = []
        compared: list[dict[str, Any]] = []
        for case in self._cases:
            try:
                checked = case.conditions.check(variables)
            except NodeError as error:
                error.process_data = {"condition_results": results}
                raise
            compared = checked.compared
            results.append(
                {"group": case.group, "results": checked.results, "final_result": checked.holds}
            )
            if checked.holds:
                return _result(True, case.id, compared, results)
        return _result(False, "false", compared, results)


def _case(data: Reader) -> _Case:
    case_id = data.text("case_id") or "true"
    group = {
        "case_id": case_id,
        "logical_operator": data.text("logical_operator") or "and",
        "conditions": [_shown(each) for each in data.tables("conditions")],
    }
    return _Case(case_id, compile_conditions(data), group)


def _shown(condition: Reader) -> dict[str, Any]:
    """A condition in a run's record: what decides, without the editor's notes."""
    names = ("variable_selector", "comparison_operator", "value", "sub_variable_condition")
    return {name: condition.data.get(name) for name in names}


def _result(
    holds: bool, case_id: str, compared: list[dict[str, Any]], results: list[dict[str, Any]]
) -> Result:
    return Result(
        outputs={"result": holds, "selected_case_id": case_id},
        inputs={"conditions": compared},
        process_data={"condition_results": results},
        handle=case_id,
    )
