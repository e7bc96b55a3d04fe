"""The best that fixed weights can do: what an operator who knows the replicas would configure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Final

from balancer.policies import Ask, Bookless
from balancer.policies.loaded import R

__all__ = ["STATIC_WEIGHTS", "StaticWeights", "parse_weights", "weight_names"]

STATIC_WEIGHTS: Final = "static weights"

_GRID: Final = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.5, 8.0, 12.0, 16.0, 24.0)
"""How many times the requests of the slowest kind of replica another kind gets."""


class StaticWeights(Bookless):
    """Smooth weighted round robin, as Nginx does it: each gets its share, spread evenly."""

    def __init__(self, weights: Sequence[float]) -> None:
        self._weights = weights
        self._due: dict[str, float] = {}
        self._by_name: dict[str, float] = {}

    def pick(self, candidates: Sequence[R], ask: Ask) -> R:
        if not self._by_name:  # the first pick is of all replicas, in the fleet's order
            self._by_name = {one.name: w for one, w in zip(candidates, self._weights, strict=True)}
        due, weights = self._due, self._by_name
        for candidate in candidates:
            due[candidate.name] = due.get(candidate.name, 0.0) + weights[candidate.name]
        chosen = max(candidates, key=lambda candidate: due[candidate.name])
        due[chosen.name] -= sum(weights[candidate.name] for candidate in candidates)
        return chosen


def weight_names(fleet: Sequence[str], fastest_first: Sequence[str]) -> list[str]:
    """A policy name for each weighting to be tried on a fleet of these profiles.

    Replicas of one kind get the same. With more than two kinds a coarser grid is taken.
    """
    grid = _GRID[:: max(1, len(fastest_first) - 1)]
    return [
        f"{STATIC_WEIGHTS} {':'.join(f'{of_kind[kind]:g}' for kind in fleet)}"
        for of_kind in _weightings(fastest_first, grid)
    ]


def _weightings(kinds: Sequence[str], grid: Sequence[float]) -> Iterator[dict[str, float]]:
    for weights in product(grid, repeat=len(kinds) - 1):
        yield dict(zip(kinds, (*weights, 1.0), strict=True))


def parse_weights(policy: str) -> tuple[float, ...]:
    """The weights in a name that `weight_names` gave."""
    return tuple(map(float, policy.removeprefix(STATIC_WEIGHTS).strip().split(":")))
