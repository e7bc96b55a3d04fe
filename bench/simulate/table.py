"""The policy table: as text, as Markdown, and with the best of each column marked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean, stdev
from typing import Final, NamedTuple

from bench.report.intervals import student_interval
from bench.report.statistics import Summary
from bench.simulate.cell import competes
from bench.simulate.figures import Row

__all__ = [
    "COLUMNS",
    "Column",
    "Line",
    "best_of",
    "lines_of",
    "markdown",
    "text",
    "tier_tokens_per_s",
]


class Line(NamedTuple):
    """One line of the table."""

    policy: str
    rows: Sequence[Row]
    """One for each seed, in the same order for every policy."""


class Column(NamedTuple):
    """One column."""

    title: str
    value: Callable[[Row], float | None]
    form: str
    """How a value is written, for `format`."""
    least_is_best: bool = True
    within: float = 0.01
    """Values so near the best one (as a share of it) are marked as best too."""

    def values(self, line: Line) -> list[float]:
        """One for each seed that has one."""
        return [value for row in line.rows if (value := self.value(row)) is not None]

    def mean(self, line: Line) -> float | None:
        """Over the seeds; None if nothing was measured."""
        values = self.values(line)
        return fmean(values) if values else None


def lines_of(rows: Sequence[Row]) -> list[Line]:
    """The rows of one workload, those of one policy on one line."""
    by_policy: dict[str, list[Row]] = {}
    for row in rows:
        by_policy.setdefault(row.policy, []).append(row)
    return [Line(policy, of_policy) for policy, of_policy in by_policy.items()]


def _ms(summary: Summary | None, statistic: str) -> float | None:
    return None if summary is None else 1000 * summary.get(statistic)


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


COLUMNS: Final = (
    Column("TTFT p50 ms", lambda row: _ms(row.ttft_s, "p50"), ",.0f"),
    Column("p90", lambda row: _ms(row.ttft_s, "p90"), ",.0f"),
    Column("p99", lambda row: _ms(row.ttft_s, "p99"), ",.0f"),
    Column("ITL p99 ms", lambda row: _ms(row.itl_s, "p99"), ",.1f"),
    Column("tokens/s", lambda row: row.output_tokens_per_s, ",.0f", least_is_best=False),
    Column("hit %", lambda row: _percent(row.hit_rate), ".1f", least_is_best=False),
    Column("skew", lambda row: row.skew, ".2f"),
)
_RUNS: Final = Column("run p50 s", lambda row: row.runs_s.p50 if row.runs_s else None, ".2f")


def text(lines: Sequence[Line]) -> str:
    """One workload as an aligned table; `*` marks the best of each column."""
    columns = _columns(lines)
    cells = [["policy", *(column.title for column in columns)]]
    cells += [[name, *values] for name, values in _cells(lines, columns)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    written = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in cells
    ]
    return "\n".join([*written, *_notes(lines)])


def markdown(lines: Sequence[Line]) -> str:
    """The same as a Markdown table, the best in bold."""
    columns = _columns(lines)
    written = [
        "| policy | " + " | ".join(column.title for column in columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for name, values in _cells(lines, columns):
        written.append(f"| {name} | " + " | ".join(map(_bold, values)) + " |")
    notes = _notes(lines)
    return "\n".join([*written, *(["", *notes] if notes else [])])


def _bold(value: str) -> str:
    return f"**{value[:-1]}**" if value.endswith("*") else value.rstrip()


def _columns(lines: Sequence[Line]) -> tuple[Column, ...]:
    rows = [row for line in lines for row in line.rows]
    columns = list(COLUMNS)
    if any(row.runs_s for row in rows):
        columns.append(_RUNS)
    names = sorted({tier.tier for row in rows for tier in row.tiers})
    return (*columns, *(column for name in names for column in _tier_columns(name)))


def tier_tokens_per_s(name: str) -> Column:
    """The output tokens of one tier per second."""

    def value(row: Row) -> float | None:
        return next((tier.output_tokens_per_s for tier in row.tiers if tier.tier == name), None)

    return Column(f"{name} tokens/s", value, ",.0f", least_is_best=False)


def _tier_columns(name: str) -> tuple[Column, ...]:
    return (_tier_ttft(name, "p50"), _tier_ttft(name, "p99"), tier_tokens_per_s(name))


def _tier_ttft(name: str, statistic: str) -> Column:
    def value(row: Row) -> float | None:
        found = [tier.ttft_s for tier in row.tiers if tier.tier == name]
        return _ms(found[0], statistic) if found else None

    return Column(f"{name} TTFT {statistic}", value, ",.0f")


def _cells(lines: Sequence[Line], columns: Sequence[Column]) -> Iterator[tuple[str, list[str]]]:
    best = [best_of(column, lines) for column in columns]
    for line in lines:
        values = []
        for column, good in zip(columns, best, strict=True):
            mark = "*" if line.policy in good else " "
            values.append(_written(column, line) + mark)
        yield line.policy, values


def _written(column: Column, line: Line) -> str:
    values = column.values(line)
    if not values:
        return "-"
    spread = f" ±{format(stdev(values), column.form)}" if len(values) > 1 else ""
    return format(fmean(values), column.form) + spread


def best_of(column: Column, lines: Sequence[Line]) -> set[str]:
    """The policies that are best in a column, as far as can be told.

    From the best one on, in their order, all that are within `column.within` of it or differ from
    it, seed by seed, by no more than chance explains (a 95 % interval of the differences holds 0).
    Empty if that goes for all of them. Limits and the like do not compete.
    """
    means = [(column.mean(line), line) for line in lines if competes(line.policy)]
    known = [(mean, line) for mean, line in means if mean is not None]
    ranked = sorted(known, key=lambda one: one[0], reverse=not column.least_is_best)
    best: set[str] = set()
    for mean, line in ranked:
        near = abs(mean - ranked[0][0]) <= column.within * abs(ranked[0][0])
        if not near and not _alike(column, line, ranked[0][1]):
            return best
        best.add(line.policy)
    return set()


def _alike(column: Column, one: Line, other: Line) -> bool:
    """Whether chance explains the difference: the same seed is the same traffic for both."""
    mine, theirs = column.values(one), column.values(other)
    if len(mine) != len(theirs):
        return False
    differences = [value - against for value, against in zip(mine, theirs, strict=True)]
    interval = student_interval(differences)
    return interval is not None and interval.holds(0.0)


def _notes(lines: Sequence[Line]) -> list[str]:
    refused = {line.policy: _refusals(line.rows) for line in lines if competes(line.policy)}
    if len(set(refused.values())) == 1 and len(refused) > 1:
        refused = {"every policy": next(iter(refused.values()))}
    return [f"{policy}: {told}" for policy, told in refused.items() if told]


def _refusals(rows: Sequence[Row]) -> str:
    refused, not_sent = sum(row.refused for row in rows), sum(row.not_sent for row in rows)
    after = f", and {not_sent} turns after them not sent" if not_sent else ""
    return f"{refused} requests refused{after}" if refused else ""
