"""assigner: sets conversation variables and loop variables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Final, NamedTuple, cast, get_args

from server.workflow.app import App
from server.workflow.assigning import assigned, check_operation, zero_of
from server.workflow.node import Inline, NodeError, NodeRun, Result
from server.workflow.reading import Reader
from server.workflow.values import Kind, Value, kind_of
from server.workflow.variables import MISSING, Selector, Variables

__all__ = ["Assigner"]


class _Item(NamedTuple):
    target: tuple[str, ...]
    operation: str
    source: tuple[str, ...] | None
    """The variable to do it with; None for a constant."""
    constant: Value
    shown: Any
    """As the export has it."""


class Assigner(Inline):
    """Both versions: one assignment (v1), or a list of them (v2), of which each sees what those
    before it did. Nothing is set if one of them fails."""

    type: ClassVar[str] = "assigner"

    def read(self, data: Reader) -> None:
        self._is_list = data.value("items") is not None
        if self._is_list:
            self._items = tuple(map(_item, data.tables("items")))
        else:
            self._items = (_only_item(data),)

    def reads(self) -> Iterable[Selector]:
        for item in self._items:
            yield item.target
            if item.source:
                yield item.source

    def writes(self) -> Iterable[Selector]:
        return (item.target for item in self._items)

    def evaluate(self, run: NodeRun) -> Result:
        inputs: dict[str, Value] = {}
        if self._is_list:
            inputs["items"] = [item.shown for item in self._items]
        working = run.variables.scope()
        done: dict[tuple[str, ...], Value] = {}
        apply = _apply if self._is_list else _apply_only
        try:
            for item in self._items:
                value = apply(item, working, run.run.app)
                if value is not MISSING:
                    working.set(item.target[0], item.target[1], value)
                    done[item.target[:2]] = value
        except (ValueError, TypeError, ArithmeticError) as error:
            raise NodeError(str(error), inputs=inputs) from None
        for target, value in done.items():
            run.write(target, value)
        if not self._is_list:
            inputs["value"] = _taken(self._items[0], run.variables)
        return Result(inputs=inputs, process_data=_told(done, self._is_list))


def _item(data: Reader) -> _Item:
    operation = data.text("operation")
    is_variable = data.text("input_type", "variable") == "variable"
    source = None
    if is_variable and operation not in _WITHOUT_VALUE and data.value("value") is not None:
        source = data.selector("value")
    elif is_variable:
        source = ()
    return _Item(
        data.selector("variable_selector"), operation, source, data.value("value"), data.data
    )


def _only_item(data: Reader) -> _Item:
    return _Item(
        data.selector("assigned_variable_selector"),
        data.text("write_mode", "over-write"),
        data.selector("input_variable_selector"),
        None,
        None,
    )


_WITHOUT_VALUE: Final = ("clear", "remove-first", "remove-last")


def _apply(item: _Item, variables: Variables, app: App) -> Value:
    """The variable's new value; MISSING to leave it as it is. A part of one cannot be set."""
    if len(item.target) != 2:
        raise ValueError(f"Variable {list(item.target)} not found")
    old = _found(variables, item.target)
    kind = _kind(item.target, old, app)
    check_operation(item.operation, kind, item.source is not None, _shown_type(kind, old))
    given = item.constant
    if item.source:
        given = _found(variables, item.source)
        if given is None:
            return MISSING
    return assigned(item.operation, kind, old, given)


def _apply_only(item: _Item, variables: Variables, app: App) -> Value:
    """As v1 does: types are not checked."""
    old = variables.get(item.target) if len(item.target) == 2 else MISSING
    if old is MISSING:
        raise ValueError("assigned variable not found")
    if item.operation == "clear":
        return zero_of(_kind(item.target, old, app), old)
    given = variables.get(item.source or ())
    if given is MISSING:
        raise ValueError("input value not found")
    if item.operation == "over-write":
        return given
    if item.operation != "append":
        raise ValueError(f"Unsupported write mode: {item.operation}")
    if not isinstance(old, list):
        raise ValueError("append mode requires an array variable")
    return [*old, given]


def _taken(item: _Item, variables: Variables) -> Value:
    """What v1 shows as its input; after the write."""
    return variables.get(item.target if item.operation == "clear" else item.source or ())


def _found(variables: Variables, selector: Sequence[str]) -> Value:
    value = variables.get(selector)
    if value is MISSING:
        raise ValueError(f"Variable {list(selector)} not found")
    return value


_KINDS: Final = frozenset(get_args(Kind))


def _kind(target: Sequence[str], value: Value, app: App) -> Kind:
    """What the variable is declared to be; an empty list does not say what it is a list of."""
    declared = _declared(target, value, app)
    if declared in ("integer", "float"):
        declared = "number"
    return cast(Kind, declared) if declared in _KINDS else kind_of(value)


def _declared(target: Sequence[str], value: Value, app: App) -> str | None:
    if target[0] == "conversation":
        for variable in app.conversation:
            if variable.name == target[1]:
                return variable.value_type
    if value is not None and value != []:
        return None
    for node in app.graph.nodes:
        if node.id == target[0]:
            for each in node.data.get("loop_variables") or ():
                if each.get("label") == target[1]:
                    return str(each.get("var_type"))
    return None


def _shown_type(kind: Kind, value: Value) -> str:
    if kind != "number":
        return kind
    return "float" if isinstance(value, float) else "integer"


def _told(done: dict[tuple[str, ...], Value], with_names: bool) -> dict[str, Value]:
    told: dict[str, Value] = {t[1]: value for t, value in done.items()} if with_names else {}
    told["__updated_variables"] = [
        {
            "name": target[1],
            "selector": list(target),
            "value_type": _shown_type(kind_of(value), value),
            "new_value": value,
        }
        for target, value in done.items()
    ]
    return told
