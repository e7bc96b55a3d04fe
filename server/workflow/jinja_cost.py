"""How much work a template is, from its syntax tree: what is sure to be cheap, and what is not.

Every expression has a bound on its size, as multiples of the sizes of the variables that the
template was given. What the bound cannot be known for (products of strings, `range`, macros,
formats, calls) is not cheap. Loops are charged when they begin, by how many rounds they make of how
costly a body: a filter put around what they go through does it, so that no nesting is out of sight.

A node that reads only the variable of the loop right around it sees each part of what the loop
goes through once: over all rounds its work is bounded as if it stood outside. A node that reads
anything else does that work again in every round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from jinja2 import nodes

from server.workflow.jinja import ITEM
from server.workflow.jinja_bounds import (
    BEGIN,
    CHARACTER,
    STEP,
    Cost,
    Loop,
    Measured,
    Rates,
    Size,
    add,
    larger,
    touch,
)
from server.workflow.jinja_calls import (
    FILTERS,
    GUARDED,
    METHODS,
    MOST_SPREAD,
    TESTS,
    WHOLE,
    NotCheap,
)

__all__ = ["CHARGE", "measured"]

CHARGE: Final = "__charge__"
"""The filter that charges a loop: `iterable | __charge__(number)`."""

MOST_NODES: Final = 2000
MOST_REPEATED: Final = 2000
"""Characters of a constant that is repeated: jinja2 computes it when it compiles."""


_Names = dict[str, Size]


def measured(tree: nodes.Template) -> Measured:
    """The cost; loops get their charges put into the tree. Raises `NotCheap`."""
    walk = _Walk()
    outside = walk.block(tree.body, {}, 0)
    add(outside.far, outside.near)
    return Measured(outside, walk.loops)


class _Walk:
    def __init__(self) -> None:
        self.loops: list[Loop] = []
        self._seen = 0

    # Statements

    def block(self, body: list[Any], names: _Names, depth: int) -> Cost:
        cost = Cost()
        for statement in body:
            cost.add(self._statement(statement, names, depth))
        return cost

    def _statement(self, node: nodes.Node, names: _Names, depth: int) -> Cost:
        self._count()
        if isinstance(node, nodes.Output):
            return self._output(node, names)
        if isinstance(node, nodes.If):
            return self._if(node, names, depth)
        if isinstance(node, nodes.For):
            return self._for(node, names, depth)
        if isinstance(node, nodes.Assign):
            return self._assign(node, names)
        raise NotCheap(type(node).__name__)

    def _output(self, node: nodes.Output, names: _Names) -> Cost:
        cost = Cost()
        for part in node.nodes:
            if isinstance(part, nodes.TemplateData):
                cost.steps += STEP + len(part.data) * CHARACTER
            else:
                size = self._sized(part, names, cost)
                touch(cost, size, 2.0)  # a list is written out as its repr
        return cost

    def _if(self, node: nodes.If, names: _Names, depth: int) -> Cost:
        cost = Cost()
        self._sized(node.test, names, cost)
        cost.add(self.block(node.body, names, depth))
        cost.add(self.block([*node.elif_], names, depth))
        cost.add(self.block(node.else_, names, depth))
        return cost

    def _assign(self, node: nodes.Assign, names: _Names) -> Cost:
        cost = Cost()
        size = self._sized(node.node, names, cost)
        for name in _targets(node.target):
            names[name] = larger(size, names.get(name, size))
        return cost

    def _for(self, node: nodes.For, names: _Names, depth: int) -> Cost:
        if node.recursive or depth > 8:
            raise NotCheap("recursive for")
        cost = Cost(BEGIN)
        given = self._gone_through(node.iter, names, cost)
        item = given._replace(near=True)
        inner = {name: size._replace(near=False) for name, size in names.items()}
        inner.update((name, item) for name in [*_targets(node.target), "loop"])
        body = Cost(STEP)
        if node.test is not None:
            self._sized(node.test, inner, body)
        body.add(self.block(node.body, inner, depth + 1))
        cost.add(self.block(node.else_, names, depth))
        entry = body.near
        if given.near and depth > 0:
            add(cost.near, entry)
            entry = {}
        node.iter = _charged(node.iter, len(self.loops))
        self.loops.append(Loop(body.steps, body.far, entry))
        return cost

    def _gone_through(self, node: Any, names: _Names, cost: Cost) -> Size:
        """What a loop goes through. `range` may stand there: its length is charged like any."""
        if not _is_range(node):
            return self._sized(node, names, cost)
        size = self._all(iter(node.args), names, cost)
        return Size({}, size.near, 0.0, True)

    # Expressions

    def _sized(self, node: nodes.Node, names: _Names, cost: Cost) -> Size:
        """Its size; what it costs is added to `cost`."""
        self._count()
        cost.steps += _STEPS.get(type(node), STEP)
        for kind, rule in _RULES:
            if isinstance(node, kind):
                size: Size = rule(self, node, names, cost)
                return size.times(1.0, size.whole)
        raise NotCheap(type(node).__name__)

    def _all(self, parts: Iterator[nodes.Node], names: _Names, cost: Cost) -> Size:
        sizes = [self._sized(part, names, cost) for part in parts]
        growth: Rates = {}
        for size in sizes:
            add(growth, size.growth)
        return Size(
            growth,
            all(size.near for size in sizes),
            sum(size.fixed for size in sizes),
        )

    def _name(self, node: nodes.Name, names: _Names, cost: Cost) -> Size:
        return names.get(node.name) or Size({node.name: 1.0}, False)

    def _const(self, node: nodes.Const, names: _Names, cost: Cost) -> Size:
        value = node.value
        if isinstance(value, str):
            return Size({}, True, len(value) + 4)
        if isinstance(value, int) and abs(value) > 1 << 64:
            raise NotCheap("number")
        return Size({}, True, 20.0, isinstance(value, int | float))

    def _below(self, node: Any, names: _Names, cost: Cost) -> Size:
        """An attribute, an item or a slice: no larger than what it is of."""
        size = self._sized(node.node, names, cost)
        if isinstance(node, nodes.Getitem):
            at = self._sized(node.arg, names, cost)
            size = size._replace(near=size.near and at.near)
        if isinstance(node, nodes.Getattr) and _is_loop(node.node) and node.attr in _COUNTS:
            return Size({}, True, 8.0, True)
        return size._replace(whole=False)

    def _slice(self, node: nodes.Slice, names: _Names, cost: Cost) -> Size:
        return self._all(filter(None, (node.start, node.stop, node.step)), names, cost)

    def _together(self, node: nodes.Node, names: _Names, cost: Cost) -> Size:
        """All its parts in one, or one of them."""
        size = self._all(node.iter_child_nodes(), names, cost)
        touch(cost, size, 2.0)
        return size.times(2.0) if isinstance(node, nodes.Concat) else size

    def _asked(self, node: nodes.Node, names: _Names, cost: Cost) -> Size:
        """A comparison: its parts are looked at, the answer is small."""
        size = self._all(node.iter_child_nodes(), names, cost)
        touch(cost, size, 1.5)
        return Size({}, size.near, 8.0, True)

    def _test(self, node: nodes.Test, names: _Names, cost: Cost) -> Size:
        if node.name not in TESTS or node.dyn_args or node.dyn_kwargs or node.kwargs:
            raise NotCheap(node.name)
        return self._asked(node, names, cost)

    def _computed(self, node: Any, names: _Names, cost: Cost) -> Size:
        return self._all(node.iter_child_nodes(), names, cost)

    def _modulo(self, node: nodes.Mod, names: _Names, cost: Cost) -> Size:
        left = self._sized(node.left, names, cost)
        if not left.whole:
            raise NotCheap("% may format a text")
        self._sized(node.right, names, cost)
        return left

    def _product(self, node: nodes.Mul, names: _Names, cost: Cost) -> Size:
        for one, other in ((node.left, node.right), (node.right, node.left)):
            if isinstance(one, nodes.Const) and isinstance(one.value, int) and one.value <= 1000:
                size = self._sized(other, names, cost)
                if size.fixed * one.value > MOST_REPEATED and not size.whole:
                    raise NotCheap("a long constant")
                touch(cost, size, one.value)
                return size.times(max(1, one.value), size.whole)
        raise NotCheap("*")

    def _filter(self, node: nodes.Filter, names: _Names, cost: Cost) -> Size:
        rule = FILTERS.get(node.name)
        if rule is None or node.node is None or node.dyn_args or node.dyn_kwargs:
            raise NotCheap(node.name)
        weight, growth = rule(node)
        parts = [node.node, *node.args, *(pair.value for pair in node.kwargs)]
        size = self._all(iter(parts), names, cost)
        touch(cost, size, weight)
        if node.name in GUARDED:
            size = size._replace(fixed=size.fixed + MOST_SPREAD * ITEM)
        return size.times(growth, node.name in WHOLE)

    def _call(self, node: nodes.Call, names: _Names, cost: Cost) -> Size:
        method = node.node
        if not isinstance(method, nodes.Getattr) or node.dyn_args or node.dyn_kwargs or node.kwargs:
            raise NotCheap("call")
        rule = METHODS.get(method.attr)
        if rule is None:
            raise NotCheap(method.attr)
        weight, growth = rule(node)
        size = self._all(iter([method.node, *node.args]), names, cost)
        touch(cost, size, weight)
        return size.times(growth)

    def _count(self) -> None:
        self._seen += 1
        if self._seen > MOST_NODES:
            raise NotCheap("nodes")


_RULES: Final[tuple[tuple[Any, Callable[..., Size]], ...]] = (
    (nodes.Name, _Walk._name),
    (nodes.Const, _Walk._const),
    ((nodes.Getattr, nodes.Getitem), _Walk._below),
    (nodes.Slice, _Walk._slice),
    (nodes.Filter, _Walk._filter),
    (nodes.Test, _Walk._test),
    (nodes.Call, _Walk._call),
    (nodes.Mod, _Walk._modulo),
    (nodes.Mul, _Walk._product),
    ((nodes.Compare, nodes.Operand, nodes.Not), _Walk._asked),
    (
        (
            *(nodes.And, nodes.Or, nodes.CondExpr, nodes.Concat, nodes.Add),
            *(nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair),
        ),
        _Walk._together,
    ),
    ((nodes.Sub, nodes.Div, nodes.FloorDiv, nodes.Neg, nodes.Pos), _Walk._computed),
)


_STEPS: Final[dict[type[nodes.Node], float]] = {
    nodes.Getattr: 2.5,
    nodes.Getitem: 1.5,
    nodes.Call: 2.0,
    nodes.Filter: 2.5,
}


def _charged(iterable: Any, number: int) -> nodes.Filter:
    args: list[nodes.Expr] = [nodes.Const(number)]
    return nodes.Filter(iterable, CHARGE, args, [], None, None, lineno=iterable.lineno)


def _targets(target: nodes.Node) -> list[str]:
    if isinstance(target, nodes.Name):
        return [target.name]
    if isinstance(target, nodes.Tuple):
        return [name for item in target.items for name in _targets(item)]
    raise NotCheap(type(target).__name__)


def _is_range(node: nodes.Node) -> bool:
    if not isinstance(node, nodes.Call) or node.kwargs or node.dyn_args or node.dyn_kwargs:
        return False
    return isinstance(node.node, nodes.Name) and node.node.name == "range"


def _is_loop(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Name) and node.name == "loop"


_COUNTS: Final = frozenset(
    ("index", "index0", "revindex", "revindex0", "first", "last", "length", "depth", "depth0")
)
