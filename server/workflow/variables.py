"""The variable pool of a run: what each node gave out, by node and by name. Pure.

Rounds of an iteration read through to the pool around them and write into a layer of their own:
nothing is copied, however many rounds there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from server.workflow.values import FILE_ATTRIBUTES, File, Value

__all__ = ["MISSING", "Selector", "Variables"]

Selector: TypeAlias = Sequence[str]
"""A node's id (or sys, env, conversation), a name, and perhaps a path into an object or a file."""


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


MISSING: Final = _Missing()
"""There is no such variable; None is a value."""


class Variables:
    """`variables.get(("node", "text"))`. A `scope()` of it sees it and does not change it."""

    __slots__ = ("_nodes", "_outer")

    def __init__(self, outer: Variables | None = None) -> None:
        self._nodes: dict[str, dict[str, Value]] = {}
        self._outer = outer

    def scope(self) -> Variables:
        """A layer over it, for one round of an iteration."""
        return Variables(self)

    def get(self, selector: Selector) -> Value:
        """What is there, or `MISSING`.

        A path that leads nowhere is as missing as a name that nobody gave out, as in Dify. Lists
        have no path into them.
        """
        value = self._find(selector[0], selector[1]) if len(selector) > 1 else MISSING
        return value if len(selector) == 2 else _follow(value, selector[2:])

    def _find(self, node_id: str, name: str) -> Value:
        layer: Variables | None = self
        while layer is not None:
            names = layer._nodes.get(node_id)
            if names is not None and name in names:
                return names[name]
            layer = layer._outer
        return MISSING

    def set(self, node_id: str, name: str, value: Value) -> None:
        """Write one variable into this layer."""
        self._nodes.setdefault(node_id, {})[name] = value

    def add(self, node_id: str, outputs: Mapping[str, Value]) -> None:
        """Write all that a node gave out into this layer."""
        if outputs:
            self._nodes.setdefault(node_id, {}).update(outputs)

    def forget(self, node_ids: Iterable[str]) -> None:
        """Drop what these nodes gave out in this layer, before they run again."""
        for node_id in node_ids:
            self._nodes.pop(node_id, None)

    def names_of(self, node_id: str) -> dict[str, Value]:
        """All variables of one node, those of inner layers over those of outer ones; a copy."""
        outer = {} if self._outer is None else self._outer.names_of(node_id)
        return outer | self._nodes.get(node_id, {})

    def own_of(self, node_id: str) -> Mapping[str, Value]:
        """Those of one node that were written into this layer."""
        return self._nodes.get(node_id, {})


def _follow(value: Value, path: Selector) -> Value:
    for name in path:
        if isinstance(value, dict):
            value = value.get(name, MISSING)
        elif isinstance(value, File) and name in FILE_ATTRIBUTES:
            value = value.attribute(name)
        else:
            return MISSING
    return value
