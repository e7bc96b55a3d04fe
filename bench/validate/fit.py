"""Fitting a profile's constants to a recorded run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Final

import msgspec

from bench.engine import Profile
from bench.validate.errors import METRICS
from bench.validate.recording import Served

__all__ = ["fit", "misfit"]

_FACTORS: Final = (
    ("weights_s", "expert_weights_s"),
    ("token_s",),
    ("context_s",),
    ("step_s", "sequence_s"),
    ("link_s",),
)
"""Constants that are scaled together: what they stand for has one cause."""

_TRIALS: Final = 160
_FIRST_STRIDE: Final = 0.15
_PULL: Final = 0.02
"""Of a factor's logarithm, squared: what the run does not tell stays as it was."""

_Point = tuple[float, ...]


def fit(
    profile: Profile,
    measured: Sequence[Served],
    predict: Callable[[Profile], Sequence[Served]],
) -> Profile:
    """`profile` with those constants that predict best what was measured.

    `predict` replays the run and returns the same requests as `measured`, in the same order.
    """
    groups = [group for group in _FACTORS if any(getattr(profile, name) for name in group)]

    def scaled(point: _Point) -> Profile:
        changes = {
            name: getattr(profile, name) * math.exp(logarithm)
            for group, logarithm in zip(groups, point, strict=True)
            for name in group
        }
        return msgspec.structs.replace(profile, **changes)

    def cost(point: _Point) -> float:
        pull = _PULL * sum(logarithm * logarithm for logarithm in point)
        return misfit(measured, predict(scaled(point))) + pull

    return scaled(_lowest(cost, len(groups)))


def misfit(measured: Sequence[Served], predicted: Sequence[Served]) -> float:
    """How far off a prediction is: the mean over requests and metrics of |ln(predicted/measured)|,
    and, weighing as much, the same of the metrics' means. One request counts at most as a factor
    of e.
    """
    return fmean(_misfit(of, measured, predicted) for of in METRICS.values())


def _misfit(
    of: Callable[[Served], float | None], measured: Sequence[Served], predicted: Sequence[Served]
) -> float:
    pairs = [
        (ours, theirs)
        for one, other in zip(measured, predicted, strict=True)
        if (ours := of(one)) and (theirs := of(other))
    ]
    if not pairs:
        return 0.0
    each = fmean(min(1.0, abs(math.log(theirs / ours))) for ours, theirs in pairs)
    sums = [sum(side) for side in zip(*pairs, strict=True)]
    return each + abs(math.log(sums[1] / sums[0]))


def _lowest(cost: Callable[[_Point], float], dimensions: int) -> _Point:
    """Nelder and Mead's search from the origin: a simplex that turns away from its worst corner."""
    start = (0.0,) * dimensions
    corners = [start] + [
        tuple(_FIRST_STRIDE if i == j else 0.0 for j in range(dimensions))
        for i in range(dimensions)
    ]
    simplex = sorted((cost(corner), corner) for corner in corners)
    trials = len(simplex)
    while trials < _TRIALS and simplex[-1][0] - simplex[0][0] > 1e-4:
        found, tried = _better_corner(cost, simplex)
        trials += tried
        if found is None:
            best = simplex[0][1]
            simplex = [simplex[0]] + [
                (cost(shrunk), shrunk)
                for _, corner in simplex[1:]
                for shrunk in [_towards(best, corner, 0.5)]
            ]
            trials += dimensions
        else:
            simplex[-1] = found
        simplex.sort()
    return simplex[0][1]


def _better_corner(
    cost: Callable[[_Point], float], simplex: Sequence[tuple[float, _Point]]
) -> tuple[tuple[float, _Point] | None, int]:
    """One to take the worst corner's place, or None; and how many were tried."""
    worst_cost, worst = simplex[-1]
    others = [corner for _, corner in simplex[:-1]]
    centre = tuple(map(fmean, zip(*others, strict=True)))

    def tried(share: float) -> tuple[float, _Point]:
        corner = _towards(centre, worst, share)
        return cost(corner), corner

    mirrored = tried(-1.0)
    if mirrored[0] < simplex[0][0]:
        return min(mirrored, tried(-2.0)), 2
    if mirrored[0] < simplex[-2][0]:
        return mirrored, 1
    nearer = tried(-0.5 if mirrored[0] < worst_cost else 0.5)
    if nearer[0] < min(mirrored[0], worst_cost):
        return nearer, 2
    return None, 2


def _towards(begin: _Point, end: _Point, share: float) -> _Point:
    return tuple(a + share * (b - a) for a, b in zip(begin, end, strict=True))
