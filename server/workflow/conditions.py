"""Conditions over variables, compiled once: of if-else, and of loops that break. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from server.workflow.comparing import BINARY, UNARY, as_boolean, canonical
from server.workflow.node import NodeError
from server.workflow.reading import Reader
from server.workflow.template import Template
from server.workflow.values import FILE_ATTRIBUTES, File, Value, kind_of
from server.workflow.variables import MISSING, Selector, Variables

__all__ = ["Checked", "Conditions", "compile_conditions"]

_OF_FILES: Final = frozenset(("contains", "not contains", "all of"))
"""What a list of files can be asked: each through conditions on the files' attributes."""


class Checked(NamedTuple):
    """How conditions came out, as run records show it."""

    holds: bool
    results: list[bool]
    """Up to the one that decided."""
    compared: list[dict[str, Any]]
    """actual_value, expected_value and comparison_operator of those that compared."""


def compile_conditions(data: Reader, key: str = "conditions") -> Conditions:
    """Those listed under `key` of a case or a loop, joined by its `logical_operator`.

    An operator that is not known fails the node that asks it, not the import. Raises `GraphError`
    for what is no list of conditions at all.
    """
    conditions = [_Condition(each) for each in data.tables(key)]
    return Conditions(conditions, data.text("logical_operator", "and") == "or")


class Conditions:
    """Several conditions joined by "and" or "or". None at all hold for "and" only, as in Dify."""

    __slots__ = ("_any", "_conditions")

    def __init__(self, conditions: Sequence[_Condition], any_of_them: bool) -> None:
        self._conditions = tuple(conditions)
        self._any = any_of_them

    def __len__(self) -> int:
        return len(self._conditions)

    def reads(self) -> Iterable[Selector]:
        """The variables that they look at."""
        for condition in self._conditions:
            yield from condition.reads()

    def holds(self, variables: Variables) -> bool:
        """Raises `NodeError`: a variable is not there, or the comparison makes no sense."""
        return self.check(variables).holds

    def check(self, variables: Variables) -> Checked:
        """The same, with what was compared. Stops at the condition that decides."""
        results: list[bool] = []
        compared: list[dict[str, Any]] = []
        for condition in self._conditions:
            try:
                result = condition.check(variables, compared)
            except (ValueError, TypeError, OverflowError, RecursionError) as error:
                raise NodeError(str(error), inputs={"conditions": compared}) from None
            results.append(result)
            if result is self._any:
                return Checked(result, results, compared)
        return Checked(not self._any, results, compared)


class _Condition:
    __slots__ = ("_each", "_expected", "_operator", "_selector")

    def __init__(self, data: Reader) -> None:
        self._selector = data.selector("variable_selector")
        self._operator = canonical(data.text("comparison_operator", "None"))
        self._expected = _expectation(data.value("value"))
        below = data.table("sub_variable_condition")
        self._each = _FileConditions(below) if below.data else None

    def reads(self) -> Iterable[Selector]:
        yield self._selector
        if isinstance(self._expected, Template):
            yield from self._expected.selectors

    def check(self, variables: Variables, compared: list[dict[str, Any]]) -> bool:
        value = variables.get(self._selector)
        if value is MISSING:
            raise ValueError(f"Variable {list(self._selector)} not found")
        if self._operator in _OF_FILES and self._asks_files(value):
            return self._check_files(value)
        expected = self._expected
        if isinstance(expected, Template):
            expected = expected.text(variables)
        if self._operator in UNARY:
            _note(compared, value, self._operator, expected)
            return UNARY[self._operator](value)
        if expected is not None and _is_boolean(value):
            expected = _as_booleans(expected)
        _note(compared, value, self._operator, expected)
        return _comparison(self._operator)(value, expected)

    def _asks_files(self, value: Value) -> bool:
        """An empty list is one of files if there are conditions on files."""
        if not isinstance(value, list):
            return False
        return kind_of(value) == "array[file]" if value else self._each is not None

    def _check_files(self, files: list[File]) -> bool:
        if self._each is None:
            raise ValueError("Sub variable is required")
        return self._each.hold(files)


def _note(compared: list[dict[str, Any]], value: Value, operator: str, expected: Any) -> None:
    if operator not in ("exists", "not exists"):
        compared.append(
            {"actual_value": value, "expected_value": expected, "comparison_operator": operator}
        )


def _expectation(value: Any) -> Any:
    """A template if it has placeholders; numbers, which YAML has guessed, are read as text."""
    if isinstance(value, str):
        template = Template(value)
        return template if template.selectors else value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value


def _comparison(name: str) -> Callable[[Value, Any], bool]:
    compare = BINARY.get(name)
    if compare is None:
        raise ValueError(f"Unsupported operator: {name}")
    return compare


def _is_boolean(value: Value) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, bool) for item in value)
    return isinstance(value, bool)


def _as_booleans(expected: Any) -> Any:
    if isinstance(expected, list):
        return [as_boolean(item) for item in expected]
    return as_boolean(expected)


class _FileConditions:
    """Conditions on the attributes of files: each asks whether any file is so, or, if its
    operator says "not", whether all are."""

    __slots__ = ("_any", "_conditions")

    def __init__(self, data: Reader) -> None:
        self._any = data.text("logical_operator", "and") == "or"
        self._conditions = [
            (
                each.text("key"),
                canonical(each.text("comparison_operator", "None")),
                each.value("value"),
            )
            for each in data.tables("conditions")
        ]

    def hold(self, files: list[File]) -> bool:
        results = [self._one(files, *condition) for condition in self._conditions]
        return any(results) if self._any else all(results)

    def _one(self, files: list[File], key: str, operator: str, expected: Any) -> bool:
        if key not in FILE_ATTRIBUTES:
            raise ValueError(f"'{key}' is not a valid FileAttribute")
        if key == "extension":
            expected = _dotted(expected)
        join = all if "not" in operator else any
        return join(_of_attribute(file, key, operator, expected) for file in files)


def _of_attribute(file: File, key: str, operator: str, expected: Any) -> bool:
    value = file.attribute(key)
    if key == "extension" and value:
        value = _dotted(value)
    if operator in UNARY:
        return UNARY[operator](value)
    return _comparison(operator)(value, expected)


def _dotted(extension: Any) -> Any:
    if isinstance(extension, list):
        return [_dotted(each) for each in extension]
    if not isinstance(extension, str):
        raise TypeError("Expected value must be a string when key is FileAttribute.EXTENSION")
    return extension if not extension or extension.startswith(".") else "." + extension
