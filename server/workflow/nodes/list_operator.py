"""list-operator: filters a list, takes one of it, orders it, cuts it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final, NamedTuple

import trio

from server.workflow.list_filters import file_key, keeps
from server.workflow.node import NodeError, NodeRun, Result, Task
from server.workflow.reading import Reader
from server.workflow.template import Template
from server.workflow.values import Kind, Value, kind_of, plain
from server.workflow.variables import MISSING, Selector, Variables

__all__ = ["ListOperator"]

_AT_ONCE: Final = 2_000
"""Items that are worked through without a thread: about a millisecond."""

_READ_AT_ONCE: Final = 2_000_000
"""Characters that all items together are looked for in, without a thread."""

_KINDS: Final = ("array[string]", "array[number]", "array[boolean]", "array[file]")


class _Filter(NamedTuple):
    key: str
    operator: str
    value: Any
    """A template if it is a text."""


class _Work(NamedTuple):
    """What is to be done, its templates filled in."""

    items: Value
    filters: list[tuple[_Filter, Any]]
    serial: str | None

    @property
    def reads(self) -> int:
        """Characters of filters that are gone through, at worst."""
        texts = (len(value) for _, value in self.filters if isinstance(value, str))
        return sum(texts) * len(self.items) if isinstance(self.items, list) else 0


class ListOperator(Task):
    """In this order: filter, extract, order, limit; each where it is enabled."""

    type: ClassVar[str] = "list-operator"

    def read(self, data: Reader) -> None:
        self._selector = data.selector("variable")
        filter_by, extract_by = data.table("filter_by"), data.table("extract_by")
        order_by, limit = data.table("order_by"), data.table("limit")
        self._filters = tuple(map(_filter, filter_by.tables("conditions")))
        if not filter_by.flag("enabled"):
            self._filters = ()
        self._serial = (
            Template(extract_by.text("serial", "1")) if extract_by.flag("enabled") else None
        )
        self._ordered = order_by.flag("enabled")
        self._order_key = order_by.text("key")
        self._descending = order_by.text("value", "asc") == "desc"
        self._size = limit.whole("size", -1) if limit.flag("enabled") else None

    def reads(self) -> Iterable[Selector]:
        yield self._selector
        for template in (*(each.value for each in self._filters), self._serial):
            if isinstance(template, Template):
                yield from template.selectors

    def at_once(self, run: NodeRun) -> Result | None:
        value = self._value(run)
        if isinstance(value, list) and len(value) > _AT_ONCE:
            return None
        work = self._work(value, run.variables)
        return None if work.reads > _READ_AT_ONCE else self._result(work)

    async def execute(self, run: NodeRun) -> Result:
        result = self.at_once(run)
        if result is not None:
            return result
        work = self._work(self._value(run), run.variables)
        return await trio.to_thread.run_sync(self._result, work, abandon_on_cancel=True)

    def _value(self, run: NodeRun) -> Value:
        value = run.variables.get(self._selector)
        if value is MISSING:
            raise NodeError(f"Variable not found for selector: {list(self._selector)}")
        return value

    def _work(self, value: Value, variables: Variables) -> _Work:
        filters = [
            (each, each.value.text(variables) if isinstance(each.value, Template) else each.value)
            for each in self._filters
        ]
        serial = None if self._serial is None else self._serial.text(variables)
        return _Work(value, filters, serial)

    def _result(self, work: _Work) -> Result:
        value = work.items
        if not value:
            return _result([], {"variable": []})
        kind = kind_of(value)
        if kind not in _KINDS:
            raise NodeError(
                f"Variable {list(self._selector)} is not an array type, actual type: {kind}"
            )
        inputs = {"variable": plain(value)}
        try:
            return _result(self._worked(work, kind), inputs)
        except (ValueError, TypeError, OverflowError) as error:
            raise NodeError(str(error), inputs=inputs, process_data=inputs) from None

    def _worked(self, work: _Work, kind: Kind) -> list[Value]:
        items: list[Value] = work.items
        for each, value in work.filters:
            keep = keeps(kind, each.key, each.operator, value)
            items = [item for item in items if keep(item)]
        if work.serial is not None:
            items = [_extracted(items, int(work.serial))]
        if self._ordered:
            key = file_key(self._order_key) if kind == "array[file]" else None
            items = sorted(items, key=key, reverse=self._descending)
        return items if self._size is None else items[: self._size]


def _filter(data: Reader) -> _Filter:
    value = data.value("value", "")
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str):
        value = Template(value)
    return _Filter(data.text("key"), data.text("comparison_operator", "contains"), value)


def _extracted(items: list[Value], serial: int) -> Value:
    if serial < 1:
        raise ValueError(f"Invalid serial index: must be >= 1, got {serial}")
    if serial > len(items):
        raise ValueError(f"Invalid serial index: must be <= {len(items)}, got {serial}")
    return items[serial - 1]


def _result(items: list[Value], inputs: dict[str, Value]) -> Result:
    outputs = {
        "result": items,
        "first_record": items[0] if items else None,
        "last_record": items[-1] if items else None,
    }
    return Result(outputs=outputs, inputs=inputs, process_data=inputs)
