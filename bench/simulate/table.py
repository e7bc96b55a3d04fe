"""The policy table: as text, as Markdown, and with the best of each column marked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from bench.report.statistics import Summary
from bench.simulate.cell import LIMITS
from bench.simulate.figures import Row

__all__ = ["COLUMNS", "Column", "best_of", "markdown", "text"]


class Column(NamedTuple):
    """One column."""

    title: str
    value: Callable[[Row], float | None]
    form: str
    """How a value is written, for `format`."""
    least_is_best: bool = True
    within: float = 0.01
    """Values so near the best one (as a share of it) are marked as best too."""


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


def text(rows: Sequence[Row]) -> str:
    """The rows of one workload as an aligned table; `*` marks the best of each column."""
    columns = _columns(rows)
    cells = [["policy", *(column.title for column in columns)]]
    cells += [[name, *values] for name, values in _cells(rows, columns)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in cells
    ]
    return "\n".join([*lines, *_notes(rows)])


def markdown(rows: Sequence[Row]) -> str:
    """The same as a Markdown table."""
    columns = _columns(rows)
    lines = [
        "| policy | " + " | ".join(column.title for column in columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for name, values in _cells(rows, columns):
        lines.append(f"| {name} | " + " | ".join(map(_bold, values)) + " |")
    notes = _notes(rows)
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def _bold(value: str) -> str:
    return f"**{value[:-1]}**" if value.endswith("*") else value.rstrip()


def _columns(rows: Sequence[Row]) -> tuple[Column, ...]:
    columns = list(COLUMNS)
    if any(row.runs_s for row in rows):
        columns.append(_RUNS)
    names = sorted({tier.tier for row in rows for tier in row.tiers})
    return (*columns, *map(_tier_column, names))


def _tier_column(name: str) -> Column:
    def value(row: Row) -> float | None:
        found = [tier.ttft_s for tier in row.tiers if tier.tier == name]
        return _ms(found[0], "p99") if found else None

    return Column(f"{name} p99", value, ",.0f")


def _cells(rows: Sequence[Row], columns: Sequence[Column]) -> Iterator[tuple[str, list[str]]]:
    best = [best_of(column, rows) for column in columns]
    for row in rows:
        values = []
        for column, good in zip(columns, best, strict=True):
            value = column.value(row)
            mark = "*" if row.policy in good else " "
            values.append("-  " if value is None else format(value, column.form) + mark)
        yield row.policy, values


def best_of(column: Column, rows: Sequence[Row]) -> set[str]:
    """The policies that are best in a column, near ones included; limits do not compete."""
    values = {row.policy: column.value(row) for row in rows if row.policy not in LIMITS}
    known = {policy: value for policy, value in values.items() if value is not None}
    if not known:
        return set()
    least, most = min(known.values()), max(known.values())
    if most - least <= column.within * most:
        return set()  # all the same: nobody is best
    best = least if column.least_is_best else most
    return {policy for policy, value in known.items() if abs(value - best) <= column.within * best}


def _notes(rows: Sequence[Row]) -> list[str]:
    refused = [row for row in rows if row.refused and row.policy not in LIMITS]
    return [f"{row.policy}: {row.refused} requests refused" for row in refused]
