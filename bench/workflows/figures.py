"""From measurements to figures: medians over repetitions, and ratios with their intervals. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Final, NamedTuple

import msgspec

from bench.report.intervals import Interval, welch_ratio

__all__ = ["Figure", "Measured", "Ratio", "Spread", "figures", "ratios"]

OURS: Final = "triolet"


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement: runs of one case, so many at a time."""

    contender: str
    case: str
    concurrency: int
    runs: int
    cpu_s: float
    wall_s: float

    @property
    def cpu_per_run_s(self) -> float:
        return self.cpu_s / self.runs

    @property
    def runs_per_s(self) -> float:
        return self.runs / self.wall_s

    @property
    def runs_per_cpu_s(self) -> float:
        """At a clock that ticks too coarsely for so few runs, as if it had ticked once."""
        return self.runs / max(self.cpu_s, 1e-6)


class Spread(NamedTuple):
    """Over the repetitions."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(median(values), min(values), max(values))


class Figure(NamedTuple):
    """What one contender needs for one case."""

    contender: str
    case: str
    concurrency: int
    cpu_ms: Spread
    """Per run."""
    runs_per_s: Spread
    """In one process, wall clock."""
    runs_per_cpu_s: Spread


class Ratio(NamedTuple):
    """How many times as many runs per CPU second we do."""

    than: str
    case: str
    concurrency: int
    times: float
    interval: Interval | None
    """95 %, over the repetitions; None with fewer than two."""
    recorded: bool = False
    """The other one's figure was not measured in this run."""


Key = tuple[str, str, int]


def figures(measured: Iterable[Measured]) -> dict[Key, Figure]:
    """By contender, case and concurrency."""
    groups = _grouped(measured)
    return {
        key: Figure(
            *key,
            Spread.of([1e3 * one.cpu_per_run_s for one in group]),
            Spread.of([one.runs_per_s for one in group]),
            Spread.of([one.runs_per_cpu_s for one in group]),
        )
        for key, group in groups.items()
    }


def ratios(measured: Iterable[Measured], recorded: dict[str, float] | None = None) -> list[Ratio]:
    """Ours to each other one, case by case. `recorded` has graphon's CPU milliseconds per run by
    case, one run at a time, for where it was not measured."""
    groups = _grouped(measured)
    found = []
    for (contender, case, concurrency), group in groups.items():
        ours = groups.get((OURS, case, concurrency))
        if contender != OURS and ours:
            mine = [one.runs_per_cpu_s for one in ours]
            theirs = [one.runs_per_cpu_s for one in group]
            times = median(mine) / median(theirs)
            found.append(Ratio(contender, case, concurrency, times, welch_ratio(mine, theirs)))
    for case, cpu_ms in (recorded or {}).items():
        ours = groups.get((OURS, case, 1))
        if ours:
            mine_median = median(one.runs_per_cpu_s for one in ours)
            found.append(Ratio("graphon", case, 1, mine_median * cpu_ms / 1e3, None, True))
    return found


def _grouped(measured: Iterable[Measured]) -> dict[Key, list[Measured]]:
    groups: dict[Key, list[Measured]] = {}
    for one in measured:
        groups.setdefault((one.contender, one.case, one.concurrency), []).append(one)
    return groups
