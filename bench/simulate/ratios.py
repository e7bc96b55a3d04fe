"""How much worse than the best policy each one is, seed by seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Final, NamedTuple

from bench.report.intervals import Interval, student_interval
from bench.simulate.cell import competes
from bench.simulate.figures import Row
from bench.simulate.table import COLUMNS, Column, Line

__all__ = ["JUDGED", "Ratio", "paired_ratio", "ratios_of", "worst_of"]


def _ttft(statistic: str) -> Column:
    def value(row: Row) -> float | None:
        # Where there are tiers, of those for which somebody waits.
        summaries = [tier.ttft_s for tier in row.tiers if tier.tier == "interactive"]
        summary = summaries[0] if summaries else row.ttft_s
        return summary.get(statistic) if summary else None

    return Column(f"TTFT {statistic}", value, ",.3f")


_TOKENS: Final = next(column for column in COLUMNS if column.title == "tokens/s")
JUDGED: Final = (_ttft("p90"), _ttft("p99"), _TOKENS)
"""Where there are tiers TTFT is that of interactive requests; tokens per second are all."""


class Ratio(NamedTuple):
    """One policy against the best of one figure on one workload."""

    workload: str
    column: Column
    policy: str
    best: str
    """The policy with the best mean; this very one, if it is that."""
    times: float
    """How many times longer it takes, or how many times fewer tokens it makes: 1 or more."""
    interval: Interval | None
    """Of `times`, at 95 %: Student's, on logarithms, of the differences seed by seed. It may hold
    values below 1: then the best one need not be better. None with one seed."""


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, Interval | None]:
    """The geometric mean of ours/theirs, one pair for each seed, and its 95 % interval.

    Raises ValueError for values that cannot be compared: none, not as many, or not above 0.
    """
    if not ours or len(ours) != len(theirs) or min(*ours, *theirs) <= 0:
        raise ValueError(f"no ratios of {ours} to {theirs}")
    logs = [math.log(one / other) for one, other in zip(ours, theirs, strict=True)]
    interval = student_interval(logs)
    if interval is not None:
        interval = Interval(math.exp(interval.low), math.exp(interval.high))
    return math.exp(fmean(logs)), interval


def ratios_of(tables: Mapping[str, Sequence[Line]]) -> list[Ratio]:
    """Of every workload, figure and policy, as far as they were measured; limits left out."""
    return [
        ratio
        for workload, lines in tables.items()
        for column in JUDGED
        for ratio in _ratios(workload, column, [line for line in lines if competes(line.policy)])
    ]


def worst_of(ratios: Iterable[Ratio]) -> dict[str, Ratio]:
    """For each policy where it is farthest from the best; the best of the policies first."""
    worst: dict[str, Ratio] = {}
    for ratio in ratios:
        known = worst.get(ratio.policy)
        if known is None or ratio.times > known.times:
            worst[ratio.policy] = ratio
    return dict(sorted(worst.items(), key=lambda item: item[1].times))


def _ratios(workload: str, column: Column, lines: Sequence[Line]) -> list[Ratio]:
    values = {line.policy: column.values(line) for line in lines}
    seeds = max(map(len, values.values()), default=0)
    known = {name: each for name, each in values.items() if len(each) == seeds and min(each) > 0}
    if not known:
        return []
    sign = 1 if column.least_is_best else -1
    best = min(known, key=lambda name: sign * fmean(map(math.log, known[name])))
    return [
        Ratio(workload, column, name, best, *_worse(column, ours, known[best]))
        for name, ours in known.items()
    ]


def _worse(
    column: Column, ours: Sequence[float], best: Sequence[float]
) -> tuple[float, Interval | None]:
    return paired_ratio(ours, best) if column.least_is_best else paired_ratio(best, ours)
