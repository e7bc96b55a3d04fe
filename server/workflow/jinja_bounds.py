"""Bounds of what the parts of a template do: how large a value is at most, how long a node takes.

Both are multiples of the sizes of the variables that the template is given, in characters.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from server.workflow.jinja_calls import NotCheap

__all__ = [
    "BEGIN",
    "CHARACTER",
    "STEP",
    "Cost",
    "Loop",
    "Measured",
    "Rates",
    "Size",
    "add",
    "larger",
    "touch",
]

STEP: Final = 0.4
"""Microseconds that a node of the tree takes, size apart. Those that take longer are in jinja_cost;
all are measured in loops and rounded up."""

BEGIN: Final = 4.0
"""Microseconds to begin a loop, with its charge."""

CHARACTER: Final = 0.003
"""Microseconds for a character that a node copies, at a weight of 1. The weights are in
`jinja_calls`."""

MOST_GROWTH: Final = 10_000.0
MOST_FIXED: Final = 20_000.0

Rates = dict[str, float]
"""For each variable, something for each character of it."""


class Cost:
    """Of a piece of a template: `steps` in microseconds; `near` and `far` are microseconds for
    each character of a variable, once in all or in every round of the loop around."""

    __slots__ = ("far", "near", "steps")

    def __init__(self, steps: float = 0.0) -> None:
        self.steps = steps
        self.near: Rates = {}
        self.far: Rates = {}

    def add(self, other: Cost) -> None:
        """Add what another piece costs."""
        self.steps += other.steps
        add(self.near, other.near)
        add(self.far, other.far)


class Measured(NamedTuple):
    """What a template costs outside of loops, and what each of its loops does: `CHARGE` is given
    the loop's number in this list."""

    outside: Cost
    loops: list[Loop]


class Loop(NamedTuple):
    """What a loop costs: for each round, and once for each time that it begins."""

    steps: float
    far: Rates
    entry: Rates


def add(rates: Rates, others: Rates, factor: float = 1.0) -> None:
    """Add others, times a factor, to the rates."""
    for name, rate in others.items():
        rates[name] = rates.get(name, 0.0) + rate * factor


class Size(NamedTuple):
    """Of an expression, at most."""

    growth: Rates
    """How many times as large as each variable."""
    near: bool
    """Whether it depends on the variable of the innermost loop alone."""
    fixed: float = 0.0
    """Characters besides, of the template's own constants."""
    whole: bool = False
    """Whether it is sure to be a number, never a text."""

    def times(self, factor: float, whole: bool = False) -> Size:
        """A value made of this one that many times. Raises `NotCheap` if that is too large."""
        growth = {name: times * factor for name, times in self.growth.items()}
        if self.fixed * factor > MOST_FIXED or any(g > MOST_GROWTH for g in growth.values()):
            raise NotCheap("growth")
        return Size(growth, self.near, self.fixed * factor, whole)


def larger(one: Size, other: Size) -> Size:
    """What holds for either of two values."""
    growth = dict(one.growth)
    for name, times in other.growth.items():
        growth[name] = max(times, growth.get(name, 0.0))
    return Size(growth, one.near and other.near, max(one.fixed, other.fixed))


def touch(cost: Cost, size: Size, weight: float) -> None:
    """Add the work of going over a value once, at a weight."""
    cost.steps += size.fixed * weight * CHARACTER
    add(cost.near if size.near else cost.far, size.growth, weight * CHARACTER)
