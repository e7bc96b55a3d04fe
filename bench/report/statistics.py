"""Summaries of samples: the same figures GenAI-Perf and AIPerf print, computed the same way.

Percentiles interpolate linearly between the two nearest values (the default of numpy's
`percentile`, which both tools call); the standard deviation is the population's (divisor n), as
both tools take it for requests. Repetitions of a run are another matter: see `intervals`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final

import msgspec

__all__ = ["PERCENTILES", "STATISTICS", "Summary", "percentile", "pooled", "summarize"]

PERCENTILES: Final = (1, 5, 10, 25, 50, 75, 90, 95, 99)
STATISTICS: Final = ("avg", *(f"p{one}" for one in PERCENTILES), "min", "max", "std")
"""What GenAI-Perf's JSON gives of one metric, in its order."""

_SORTED_AT_MOST: Final = 2_000_000
"""Percentiles of more values than this come from an even sample of them: every n-th one. Their
rank is then off by less than 0.001; average, extremes, deviation and sum stay exact."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a sample says, in the unit of its values."""

    avg: float
    p1: float
    p5: float
    p10: float
    p25: float
    p50: float
    p75: float
    p90: float
    p95: float
    p99: float
    min: float
    max: float
    std: float
    count: int
    sum: float

    def get(self, statistic: str) -> float:
        """`avg`, `p99`, `std`, ... by name; KeyError if there is no such statistic."""
        if statistic not in self.__struct_fields__:
            raise KeyError(statistic)
        return float(getattr(self, statistic))


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The percentile of an ordered, non-empty sample; `percent` from 0 to 100."""
    position = (len(ordered) - 1) * percent / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    step = ordered[above] - ordered[below]
    return ordered[below] + step * (position - below)


def summarize(values: Sequence[float]) -> Summary | None:
    """The sample's figures; None for an empty one: nothing measured is not zero."""
    if not values:
        return None
    count = len(values)
    total = math.fsum(values)
    mean = total / count
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / count)
    ordered = sorted(values[:: math.ceil(count / _SORTED_AT_MOST)])
    ranks = {f"p{percent}": percentile(ordered, percent) for percent in PERCENTILES}
    return Summary(
        avg=mean, min=min(values), max=max(values), std=deviation, count=count, sum=total, **ranks
    )


def pooled(samples: Iterable[Sequence[float]]) -> Summary | None:
    """The figures of several runs' values taken as one sample."""
    return summarize(list(chain.from_iterable(samples)))
