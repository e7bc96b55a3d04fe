"""Which filters, methods and tests of templates are cheap, and what each costs.

Each has a weight, its work for each character in plain copies (`jinja_cost.CHARACTER`), measured
for the worst of six kinds of text and rounded up, and a growth, how much larger its result is at
most. What is not listed, or is called in another way, is not cheap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from jinja2 import nodes

__all__ = [
    "FILTERS",
    "GUARDED",
    "METHODS",
    "MOST_SPREAD",
    "TESTS",
    "WHOLE",
    "NotCheap",
    "Rule",
]

MOST_SPREAD: Final = 50
"""Characters of a text that a filter for lists may take apart into one item each."""

GUARDED: Final = ("list", "sort", "unique", "min", "max", "join")
"""Such filters. They must be kept from longer texts."""


class NotCheap(Exception):
    """The work of a template is unknown, or too much."""


WHOLE: Final = frozenset(("length", "count", "int", "wordcount"))
"""Filters whose result is sure to be a number."""

TESTS: Final = frozenset(
    (
        *("defined", "undefined", "none", "string", "number", "mapping", "iterable", "sequence"),
        *("boolean", "integer", "float", "true", "false", "even", "odd", "divisibleby", "eq"),
        *("equalto", "==", "ne", "!=", "lt", "<", "gt", ">", "le", "<=", "ge", ">=", "in"),
        *("sameas", "lower", "upper", "lessthan", "greaterthan"),
    )
)

Rule = Callable[[Any], tuple[float, float]]
"""Of a call: what it does with each character, in plain copies; how much larger its result is."""


def _plain(weight: float = 1.0, growth: float = 1.0) -> Rule:
    return lambda call: (weight, growth)


def _bare(weight: float, growth: float = 1.0) -> Rule:
    """One whose arguments could be costly."""

    def rule(call: Any) -> tuple[float, float]:
        if call.args or getattr(call, "kwargs", ()):
            raise NotCheap("arguments")
        return weight, growth

    return rule


def _joining(call: Any) -> tuple[float, float]:
    width = sum(_constant_text(argument) for argument in call.args[:1])
    if any(pair.key not in ("d", "attribute") for pair in call.kwargs):
        raise NotCheap("join")
    width += sum(_constant_text(pair.value) for pair in call.kwargs if pair.key == "d")
    return 2.0 + width, 2.0 + width


def _join_method(call: Any) -> tuple[float, float]:
    width = _constant_text(call.node.node)
    return 20.0 + width, 1.0 + width


def _replacing(call: Any) -> tuple[float, float]:
    if getattr(call, "kwargs", ()) or len(call.args) != 2:
        raise NotCheap("replace")
    width = max(map(_constant_text, call.args))
    return 2.0 + width, 1.0 + width


def _constant_text(node: nodes.Node) -> int:
    if isinstance(node, nodes.Const) and isinstance(node.value, str) and len(node.value) <= 200:
        return len(node.value)
    raise NotCheap("not a short constant")


def _numbers(most: int, weight: float, growth: float) -> Rule:
    """One whose arguments are small constants."""

    def rule(call: Any) -> tuple[float, float]:
        for argument in (*call.args, *(pair.value for pair in call.kwargs)):
            if not isinstance(argument, nodes.Const):
                raise NotCheap("not a constant")
            value = argument.value
            if isinstance(value, int) and abs(value) > most:
                raise NotCheap("a large number")
            if isinstance(value, str) and len(value) > 20:
                raise NotCheap("a long text")
        return weight, growth

    return rule


def _by_attribute(call: Any) -> tuple[float, float]:
    """`map(attribute="name")`; the names of filters are not taken."""
    if call.args or any(pair.key not in ("attribute", "default") for pair in call.kwargs):
        raise NotCheap("map")
    return 3.0, 1.0


def _choosing(call: Any) -> tuple[float, float]:
    """`selectattr("name", "equalto", 3)`."""
    test = call.args[1] if len(call.args) > 1 else None
    if call.kwargs or (test and getattr(test, "value", None) not in TESTS):
        raise NotCheap("selectattr")
    return 20.0, 1.0


FILTERS: Final[dict[str, Rule]] = {
    **dict.fromkeys(("length", "count", "first", "last", "abs", "reverse", "items"), _plain()),
    **dict.fromkeys(("float", "default", "d"), _plain()),
    "int": _bare(2.0),
    "round": _numbers(15, 2.0, 1.0),
    **dict.fromkeys(("string", "safe"), _bare(1.5, 2.0)),
    **dict.fromkeys(("upper", "lower", "capitalize"), _bare(1.0, 3.0)),
    "title": _bare(50.0, 3.0),
    "trim": _plain(),
    **dict.fromkeys(("escape", "e", "forceescape"), _bare(3.0, 6.0)),
    "tojson": _numbers(8, 6.0, 8.0),
    "truncate": _numbers(1_000_000, 1.0, 1.0),
    "indent": _numbers(40, 15.0, 41.0),
    "wordcount": _bare(15.0),
    "join": _joining,
    "replace": _replacing,
    "list": _bare(1.5),
    **dict.fromkeys(("unique", "min", "max"), _plain(3.0)),
    **dict.fromkeys(("sort", "dictsort"), _plain(8.0)),
    "sum": _by_attribute,
    "map": _by_attribute,
    **dict.fromkeys(("selectattr", "rejectattr"), _choosing),
}

METHODS: Final[dict[str, Rule]] = {
    **dict.fromkeys(("items", "keys", "values", "get", "startswith", "endswith"), _plain()),
    **dict.fromkeys(("isdigit", "isalpha", "isalnum", "isnumeric", "isspace"), _plain()),
    **dict.fromkeys(("strip", "lstrip", "rstrip", "removeprefix", "removesuffix"), _plain(2.0)),
    **dict.fromkeys(("upper", "lower", "capitalize", "title"), _plain(2.0, 3.0)),
    **dict.fromkeys(("split", "rsplit", "splitlines"), _plain(20.0, 12.0)),
    **dict.fromkeys(("partition", "rpartition", "count", "find"), _plain(1.0)),
    "replace": _replacing,
    "join": _join_method,
}
