"""Confidence intervals, and what each covers.

`student_interval` is over repetitions: it covers everything that differs from run to run. The
bootstrap is over the requests of one run: it covers the chance in which requests this run happened
to have, and nothing that would differ in another one (warm caches, neighbours, the seed).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from statistics import fmean, variance
from typing import Final, NamedTuple

from bench.report.statistics import percentile

__all__ = [
    "Interval",
    "bootstrap_mean",
    "bootstrap_percentile",
    "central",
    "student_interval",
    "student_quantile",
    "welch_ratio",
]

DRAWS: Final = 2000
"""Resamples of a bootstrap. The bounds of a 95 % interval then rest on 50 draws each."""

_RESAMPLED_AT_MOST: Final = 400
"""Means of larger samples are drawn from the normal law of the mean instead of by resampling:
by then they differ by less than the draws' own noise."""


class Interval(NamedTuple):
    """Where the true value lies, with the confidence asked for."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Whether `value` lies inside, bounds included."""
        return self.low <= value <= self.high


def student_interval(values: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """For the mean of independent repetitions; None for fewer than two of them."""
    if len(values) < 2:
        return None
    reach = student_quantile(0.5 + confidence / 2, len(values) - 1)
    half = reach * math.sqrt(variance(values) / len(values))
    return Interval(fmean(values) - half, fmean(values) + half)


def welch_ratio(
    ours: Sequence[float], theirs: Sequence[float], confidence: float = 0.95
) -> Interval | None:
    """For ours/theirs over repetitions of both: Welch's interval on logarithms.

    None for fewer than two repetitions of either, or where a value is not positive.
    """
    if min(len(ours), len(theirs)) < 2 or min(*ours, *theirs) <= 0:
        return None
    logs, other = [math.log(v) for v in ours], [math.log(v) for v in theirs]
    parts = variance(logs) / len(logs), variance(other) / len(other)
    middle, spread = fmean(logs) - fmean(other), math.sqrt(sum(parts))
    if spread == 0:
        return Interval(math.exp(middle), math.exp(middle))
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (len(logs) - 1) + parts[1] ** 2 / (len(other) - 1))
    half = student_quantile(0.5 + confidence / 2, freedom) * spread
    return Interval(math.exp(middle - half), math.exp(middle + half))


def bootstrap_percentile(
    ordered: Sequence[float], percent: float, random: Random, draws: int = DRAWS
) -> list[float]:
    """What `percent` would be in `draws` resamples of an ordered, non-empty sample.

    A resample's r-th smallest value is the one at the r-th smallest of n uniform positions, and
    that position follows Beta(r, n + 1 - r): so the very distribution of the bootstrap is drawn
    without resampling, however large the sample.
    """
    count = len(ordered)
    if count == 1:
        return [ordered[0]] * draws
    place = (count - 1) * percent / 100
    rank, share = math.floor(place) + 1, place - math.floor(place)
    return [_drawn(ordered, rank, share, random) for _ in range(draws)]


def _drawn(ordered: Sequence[float], rank: int, share: float, random: Random) -> float:
    count = len(ordered)
    position = random.betavariate(rank, count + 1 - rank)
    low = ordered[min(int(position * count), count - 1)]
    if not share or rank == count:
        return low
    position += (1 - position) * random.betavariate(1, count - rank)
    high = ordered[min(int(position * count), count - 1)]
    return low + (high - low) * share


def bootstrap_mean(values: Sequence[float], random: Random, draws: int = DRAWS) -> list[float]:
    """What the mean would be in `draws` resamples of a non-empty sample."""
    count = len(values)
    if count <= _RESAMPLED_AT_MOST:
        return [fmean(random.choices(values, k=count)) for _ in range(draws)]
    mean = fmean(values)
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values)) / count
    return [random.gauss(mean, error) for _ in range(draws)]


def central(draws: Sequence[float], confidence: float = 0.95) -> Interval:
    """The middle part of what was drawn."""
    ordered, tail = sorted(draws), (1 - confidence) * 50
    return Interval(percentile(ordered, tail), percentile(ordered, 100 - tail))


def student_quantile(probability: float, freedom: float) -> float:
    """The quantile of Student's t; `probability` above 0.5 and below 1, `freedom` above 0."""
    high = 1.0
    while _student_below(high, freedom) < probability:
        high *= 2
    return _bisected(lambda t: _student_below(t, freedom) - probability, 0.0, high)


def _bisected(rising: Callable[[float], float], low: float, high: float) -> float:
    while high - low > 1e-10 * max(1.0, high):
        middle = (low + high) / 2
        if rising(middle) < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _student_below(t: float, freedom: float) -> float:
    """P(T <= t) for t >= 0, by the regularised incomplete beta function."""
    return 1 - 0.5 * _beta_share(freedom / (freedom + t * t), freedom / 2, 0.5)


def _beta_share(x: float, a: float, b: float) -> float:
    if x in (0.0, 1.0):
        return x
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
        + a * math.log(x) + b * math.log1p(-x)
    )  # fmt: skip
    if x < (a + 1) / (a + b + 2):
        return front * _beta_fraction(x, a, b) / a
    return 1 - front * _beta_fraction(1 - x, b, a) / b


def _beta_fraction(x: float, a: float, b: float) -> float:
    """Its continued fraction, by Lentz's method (Abramowitz and Stegun 26.5.8)."""
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 500):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        step = 1.0
        for part in (even, odd):
            d, c = 1 / (1 + part * d), 1 + part / c
            step = c * d
            value *= step
        if abs(step - 1) < 1e-14:
            break
    return value
