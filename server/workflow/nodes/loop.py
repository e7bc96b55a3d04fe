"""loop: the nodes inside, again and again until a condition holds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, ClassVar, Final

from server.workflow.conditions import compile_conditions
from server.workflow.node import NodeError, NodeRun, Result, Work
from server.workflow.node_run import EngineNodeRun
from server.workflow.reading import Reader
from server.workflow.rounds import Container, Rounds
from server.workflow.values import Value
from server.workflow.variables import MISSING, Selector, Variables

__all__ = ["Loop"]

_ZERO: Final[dict[str, Any]] = {"string": "", "number": 0, "boolean": False, "object": {}}


class Loop(Container):
    """Gives out its loop variables as they are in the end, and `loop_round`.

    They stand under the node's id in the variables around it, where the nodes inside change them.
    Nodes inside see what others of the same round gave out, not what the last round's did.
    """

    type: ClassVar[str] = "loop"
    work: ClassVar[Work] = "none"

    def read(self, data: Reader) -> None:
        self._count = max(data.whole("loop_count", 1), 1)
        self._until = compile_conditions(data, "break_conditions")
        self._variables = [_LoopVariable(each) for each in data.tables("loop_variables")]

    def reads(self) -> Iterable[Selector]:
        yield from self._until.reads()
        for each in self._variables:
            if each.selector is not None:
                yield each.selector

    async def execute(self, run: NodeRun) -> Result:
        assert isinstance(run, EngineNodeRun)
        begun = {each.label: each.first(run.variables) for each in self._variables}
        run.variables.add(self.id, begun)
        inputs: dict[str, Value] = {"loop_count": self._count, **begun}
        with Rounds(run, self.body, inputs, self._count) as rounds:
            rounds.steps = self._count
            count, broke, maps = await self._go(run, rounds)
            outputs = self._now(run.variables) | {"loop_round": count}
            reason = "loop_break" if broke else "loop_completed"
            event = {"completed_reason": reason}
            metadata = rounds.done(outputs, event=event, loop_variable_map=maps)
        return Result(outputs=outputs, inputs=inputs, metadata=metadata)

    async def _go(
        self, run: EngineNodeRun, rounds: Rounds
    ) -> tuple[int, bool, dict[str, dict[str, Value]]]:
        """How many rounds there were, whether they were broken off, the variables after each."""
        maps: dict[str, dict[str, Value]] = {}
        if self._holds_before(run.variables):
            return 0, True, maps
        for index in range(self._count):
            run.variables.forget(self.body.inner_ids)
            rounds.announce(index)
            level = await rounds.go(index, run.variables)
            run.level.merge(level.outputs)
            maps[str(index)] = self._now(run.variables)
            if level.error is not None:
                raise NodeError(level.error.message, "LoopNodeError")
            if level.broke or (len(self._until) and self._until.holds(run.variables)):
                return index + 1, True, maps
        return self._count, False, maps

    def _holds_before(self, variables: Variables) -> bool:
        """Before the first round, what nodes inside give out is not there yet."""
        try:
            return bool(len(self._until)) and self._until.holds(variables)
        except NodeError:
            return False

    def _now(self, variables: Variables) -> dict[str, Value]:
        return {
            each.label: _or_none(variables.get((self.id, each.label))) for each in self._variables
        }


class _LoopVariable:
    """A loop variable and what it begins with."""

    def __init__(self, data: Reader) -> None:
        self.label = data.text("label")
        self.selector = data.selector("value") if data.text("value_type") == "variable" else None
        self._constant = None if self.selector is not None else _constant(data)

    def first(self, variables: Variables) -> Value:
        """Raises `NodeError` if the variable that it is read from is not there."""
        if self.selector is None:
            return self._constant
        found = variables.get(self.selector)
        if found is MISSING:
            raise NodeError(f"Invalid value for loop variable {self.label}", "ValueError")
        return found


def _constant(data: Reader) -> Value:
    """A constant of the loop variable's type; the editor writes all but texts as JSON."""
    kind = data.text("var_type", "string")
    value = data.value("value")
    if kind == "string" and isinstance(value, str):
        return value
    if value is None or value == "":
        return [] if kind.startswith("array") else _ZERO.get(kind)
    if not isinstance(value, str):
        return str(value) if kind == "string" else value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise data.wrong("value", f"expected a {kind} as JSON, got {value!r}"[:200]) from None


def _or_none(value: Value) -> Value:
    return None if value is MISSING else value
