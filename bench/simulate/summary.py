"""All workloads at a glance: how far a policy is from the best, and who has bad columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bench.report.intervals import Interval
from bench.simulate.ratios import JUDGED, Ratio, worst_of

__all__ = ["aligned", "misses_of", "summary_markdown", "summary_text", "times"]

_ABOUT: Final = (
    "How many times longer than the best policy's TTFT, and how many times fewer tokens/s; means "
    "over {seeds} seeds, with 95 % intervals of the differences seed by seed."
)


def summary_text(ratios: Sequence[Ratio], judged: str, seeds: int) -> str:
    """Aligned: `judged` on each workload, then the worst column of every policy."""
    cells = [["workload", *_heads()], *_rows(ratios, judged)]
    written = aligned(cells) if len(cells) > 1 else []
    worst = [["policy", "worst column", ""], *_worst_rows(ratios)]
    head = f"{judged} against the best. " if written else ""
    return "\n".join(
        [head + _ABOUT.format(seeds=seeds), *written, *([""] if written else []), *aligned(worst)]
    )


def summary_markdown(ratios: Sequence[Ratio], judged: str, seeds: int) -> str:
    """The same as Markdown."""
    parts = [f"`{judged}`: " + _ABOUT.format(seeds=seeds), ""]
    rows = _rows(ratios, judged)
    if rows:
        parts += [*_markdown(["workload", *_heads()], rows), ""]
    return "\n".join([*parts, *_markdown(["policy", "worst", "column"], _worst_rows(ratios)), ""])


def misses_of(ratios: Sequence[Ratio], judged: str, within: float) -> list[str]:
    """A line for each cell in which `judged` is more than `within` times worse than the best."""
    return [
        f"{ratio.workload}, {ratio.column.title}: {_times(ratio)} times worse than {ratio.best}"
        for ratio in ratios
        if ratio.policy == judged and ratio.times > within
    ]


def times(value: float, interval: Interval | None) -> str:
    """`1.03 [0.99, 1.08]`."""
    between = "" if interval is None else f" [{interval.low:.2f}, {interval.high:.2f}]"
    return f"{value:.2f}{between}"


def _times(ratio: Ratio) -> str:
    # Nobody is better than the best: beside itself it has nothing to say.
    return "1" if ratio.policy == ratio.best else times(ratio.times, ratio.interval)


def _heads() -> list[str]:
    return [head for column in JUDGED for head in (column.title, "best")]


def _rows(ratios: Sequence[Ratio], judged: str) -> list[list[str]]:
    rows: dict[str, list[str]] = {}
    for ratio in ratios:
        if ratio.policy == judged:
            rows.setdefault(ratio.workload, [ratio.workload]).extend((_times(ratio), ratio.best))
    return list(rows.values())


def _worst_rows(ratios: Sequence[Ratio]) -> list[list[str]]:
    return [
        [policy, _times(worst), f"{worst.workload}, {worst.column.title}"]
        for policy, worst in worst_of(ratios).items()
    ]


def aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns, to the left."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]
