"""Runs side by side: ratios to the first, each with an interval and what that interval covers.

Runs of one name are repetitions. Where both sides have two or more, an interval is over the runs
(Welch's t on logarithms) and covers what differs from run to run. Else it is over the requests of
the run (bootstrap) and covers only the chance in which requests came: requests of one run share
its queues, its caches and its hour, so the truth is wider. A mark says which it was.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from random import Random
from statistics import fmean, geometric_mean
from typing import Literal, NamedTuple

import msgspec

from bench.report.compare_figures import Figure, figures
from bench.report.intervals import (
    Interval,
    central,
    student_interval,
    welch_ratio,
)
from bench.report.layout import aligned, figure, printable
from bench.report.metrics import Analysis
from bench.report.table import load_label

__all__ = [
    "Cell",
    "Comparison",
    "Row",
    "Side",
    "compare",
    "comparison_rows",
    "comparison_text",
    "notes",
]

Method = Literal["runs", "requests"]
Verdict = Literal["better", "worse", "differs", "same", "unknown"]


class Side(NamedTuple):
    """One column: runs of one name at one load."""

    name: str
    analyses: Sequence[Analysis]


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of one side."""

    value: float | None
    """Over several runs, their mean."""
    interval: tuple[float, float] | None = None
    """Of the value, over runs; None for a single run."""
    ratio: float | None = None
    """To the first side; None in the first side's own cells."""
    ratio_interval: tuple[float, float] | None = None
    method: Method | None = None
    verdict: Verdict = "unknown"
    """`same`: the interval of the ratio holds 1; `unknown`: there is no interval; `differs`: it
    leaves out 1, but neither more nor less is better."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of all sides."""

    label: str
    unit: str
    larger_is_better: bool | None
    cells: list[Cell]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Sides at one load."""

    load: str
    sides: list[str]
    runs: list[int]
    """How many runs each side has."""
    confidence: float
    rows: list[Row]
    warnings: list[str]


def compare(sides: Sequence[Side], *, confidence: float = 0.95) -> list[Comparison]:
    """Compare every side with the first, load by load.

    Sides with a single load each are compared whatever those are; else only loads that the first
    side has too. Raises ValueError for fewer than two sides or a confidence outside 0 to 1.
    """
    if len(sides) < 2:
        raise ValueError("compare: two runs or more are needed")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence:g}: must be above 0 and below 1")
    return [_compared(label, found, confidence) for label, found in _by_load(sides)]


def _by_load(sides: Sequence[Side]) -> Iterator[tuple[str, list[Side]]]:
    grouped: list[dict[str, list[Analysis]]] = []
    for side in sides:
        loads: defaultdict[str, list[Analysis]] = defaultdict(list)
        for analysis in side.analyses:
            loads[load_label(analysis.run)].append(analysis)
        grouped.append(loads)
    if all(len(loads) == 1 for loads in grouped):
        label = " / ".join(dict.fromkeys(chain.from_iterable(grouped)))
        yield label, list(sides)
        return
    for label in grouped[0]:
        found = [
            Side(side.name, loads[label])
            for side, loads in zip(sides, grouped, strict=True)
            if label in loads
        ]
        if len(found) > 1:
            yield label, found


def _compared(label: str, sides: Sequence[Side], confidence: float) -> Comparison:
    rows = (_row(figure, sides, confidence) for figure in figures())
    return Comparison(
        load=label,
        sides=[side.name for side in sides],
        runs=[len(side.analyses) for side in sides],
        confidence=confidence,
        rows=[row for row in rows if row is not None],
        warnings=list(_warnings(sides)),
    )


def _row(figure: Figure, sides: Sequence[Side], confidence: float) -> Row | None:
    values = [[figure.of_run(one) for one in side.analyses] for side in sides]
    known = [[value for value in each if value is not None] for each in values]
    if not any(known):
        return None
    cells = [_first_cell(known[0], confidence)]
    for place in range(1, len(sides)):
        cells.append(_cell(figure, sides, known, place, confidence))
    return Row(
        label=figure.label,
        unit=figure.unit,
        larger_is_better=figure.larger_is_better,
        cells=cells,
    )


def _first_cell(values: Sequence[float], confidence: float) -> Cell:
    return Cell(
        value=fmean(values) if values else None, interval=student_interval(values, confidence)
    )


def _cell(
    figure: Figure,
    sides: Sequence[Side],
    known: Sequence[Sequence[float]],
    place: int,
    confidence: float,
) -> Cell:
    ours, theirs = known[place], known[0]
    alone = _first_cell(ours, confidence)
    if not ours or not theirs or not fmean(theirs):
        return alone
    interval, method = welch_ratio(ours, theirs, confidence), "runs"
    if interval is None:
        interval = _bootstrapped(figure, sides[place], sides[0], confidence)
        method = "requests"
    return msgspec.structs.replace(
        alone,
        ratio=_ratio(ours, theirs, method),
        ratio_interval=interval,
        method=method if interval else None,
        verdict=_verdict(interval, figure.larger_is_better),
    )


def _ratio(ours: Sequence[float], theirs: Sequence[float], method: str) -> float:
    """Over runs that of geometric means, which is the middle of the interval on logarithms."""
    if method == "runs":
        return geometric_mean(ours) / geometric_mean(theirs)
    return fmean(ours) / fmean(theirs)


def _bootstrapped(figure: Figure, ours: Side, theirs: Side, confidence: float) -> Interval | None:
    """Both resampled independently; the seed is fixed, so that a comparison repeats exactly."""
    random = Random(20)
    above, below = figure.draw(ours.analyses, random), figure.draw(theirs.analyses, random)
    if above is None or below is None or min(below) <= 0:
        return None
    return central([a / b for a, b in zip(above, below, strict=True)], confidence)


def _verdict(interval: Interval | None, larger_is_better: bool | None) -> Verdict:
    if interval is None:
        return "unknown"
    if interval.holds(1.0):
        return "same"
    if larger_is_better is None:
        return "differs"
    return "better" if (interval.low > 1) == larger_is_better else "worse"


def _warnings(sides: Sequence[Side]) -> Iterator[str]:
    for what, facts in _identities(sides).items():
        if len(set(facts)) > 1:
            shown = ", ".join(
                f"{side.name}: {fact or 'not given'}"
                for side, fact in zip(sides, facts, strict=True)
            )
            yield f"the sides differ in {what} ({shown})"
    for side in sides:
        for analysis in side.analyses:
            if analysis.run.was_cancelled:
                yield f"{side.name}: a run was stopped early"
            if analysis.run.client_lag is not None and analysis.run.client_lag.spoiled:
                yield f"{side.name}: the load client was too slow for its figures to be trusted"
            if analysis.metrics.outcomes.errored:
                rate = analysis.metrics.outcomes.error_rate
                yield f"{side.name}: {rate:.1%} of requests failed; latencies leave them out"


def _identities(sides: Sequence[Side]) -> Mapping[str, list[str]]:
    readers: Mapping[str, Callable[[Analysis], str]] = {
        "model": lambda one: one.run.model,
        "workload": lambda one: one.run.workload,
        "load": lambda one: load_label(one.run),
        "seed": lambda one: "" if one.run.seed is None else str(one.run.seed),
        "endpoint": lambda one: one.run.endpoint_type,
        "streaming": lambda one: "streamed" if one.run.streamed else "whole",
        "objectives": lambda one: " ".join(f"{k}:{v:g}" for k, v in one.run.goodput.items()),
    }
    return {
        what: ["|".join(sorted({read(one) for one in side.analyses})) for side in sides]
        for what, read in readers.items()
    }


def comparison_rows(comparison: Comparison) -> list[list[str]]:
    """Heading and one row a figure: the first side's value, then each other's with its ratio."""
    first, *others = comparison.sides
    heading = ["Metric", printable(first, 40)]
    for name in others:
        heading += [printable(name, 40), "ratio", f"{comparison.confidence:.0%} interval", ""]
    rows = [heading]
    for row in comparison.rows:
        cells = [f"{row.label} ({row.unit})", _shown(row.cells[0])]
        for cell in row.cells[1:]:
            cells += [_shown(cell), *_ratio_cells(cell)]
        rows.append(cells)
    return rows


def _shown(cell: Cell) -> str:
    return figure(cell.value) if cell.value is None or cell.value >= 1 else f"{cell.value:.4g}"


def _ratio_cells(cell: Cell) -> list[str]:
    ratio = "" if cell.ratio is None else f"{cell.ratio:.3f}"
    if cell.ratio_interval is None:
        return [ratio, "", ""]
    low, high = cell.ratio_interval
    mark = "" if cell.verdict == "same" else f" {cell.verdict}"
    return [ratio, f"{low:.3f} to {high:.3f}", f"{cell.method}{mark}"]


def comparison_text(comparison: Comparison) -> str:
    """The table, what its intervals cover, and what makes the sides incomparable."""
    counts = ", ".join(
        f"{printable(name, 40)} ({runs} run{'s' if runs > 1 else ''})"
        for name, runs in zip(comparison.sides, comparison.runs, strict=True)
    )
    lines = [
        f"{comparison.load}: {counts}; ratios to the first",
        "",
        aligned(comparison_rows(comparison)),
        "",
        *(f"note: {note}" for note in notes(comparison)),
        *(f"warning: {printable(warning, 500)}" for warning in comparison.warnings),
    ]
    return "\n".join(lines) + "\n"


def notes(comparison: Comparison) -> list[str]:
    """What the intervals shown cover."""
    used = {cell.method for row in comparison.rows for cell in row.cells}
    found = []
    if "runs" in used:
        found.append("'runs': the interval is over repeated runs (Welch's t)")
    if "requests" in used:
        found.append(
            "'requests': the interval is over the requests of one run (bootstrap); it does not "
            "cover what differs from run to run: repeat the runs for that"
        )
    found.append("better or worse: the interval of the ratio leaves out 1")
    return found
