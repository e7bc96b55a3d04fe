"""Several load points as one table, and the knee: how much load still keeps the promise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bench.report.layout import aligned, figure, milliseconds, share
from bench.report.metrics import Analysis, Metrics
from bench.report.table import load_label

__all__ = ["KNEE", "knee", "knee_line", "sweep_rows", "sweep_text"]

KNEE: Final = 0.9
"""The knee is the highest load at which this part of what was sent was good."""

_HEADING: Final = (
    *("load", "TTFT p50 ms", "TTFT p90 ms", "TTFT p99 ms", "ITL p50 ms", "ITL p99 ms"),
    *("tok/s", "tok/s/user", "req/s", "goodput", "sent", "errors"),
)


def sweep_rows(analyses: Sequence[Analysis]) -> list[list[str]]:
    """Heading and one row a load point, in the order given."""
    return [
        list(_HEADING),
        *([load_label(one.run), *_cells(one.metrics)] for one in analyses),
    ]


def sweep_text(analyses: Sequence[Analysis]) -> str:
    """The table and the knee."""
    return aligned(sweep_rows(analyses)) + "\n\n" + knee_line(analyses) + "\n"


def knee_line(analyses: Sequence[Analysis]) -> str:
    """The knee in a sentence."""
    if not any(one.metrics.goodput for one in analyses):
        return "knee: not known without objectives (--goodput)"
    found = knee(analyses)
    if found is None:
        return f"knee: no load point had {KNEE:.0%} of its requests good"
    highest = found is _ordered(analyses)[-1]
    beyond = "; the sweep ends here, it may lie higher" if highest else ""
    return f"knee (highest load with goodput >= {KNEE:.0%}): {load_label(found.run)}{beyond}"


def knee(analyses: Sequence[Analysis]) -> Analysis | None:
    """The highest load point with a goodput of `KNEE` or more; None if there is none."""
    good = [
        one
        for one in _ordered(analyses)
        if one.metrics.goodput is not None and one.metrics.goodput.fraction >= KNEE
    ]
    return good[-1] if good else None


def _ordered(analyses: Sequence[Analysis]) -> list[Analysis]:
    loaded = [one for one in analyses if one.run.load is not None]
    return sorted(loaded, key=lambda one: one.run.load or 0.0)


def _cells(metrics: Metrics) -> list[str]:
    rates, counted = metrics.rates, metrics.outcomes
    return [
        *(_rank(metrics, "time_to_first_token", rank) for rank in ("p50", "p90", "p99")),
        *(_rank(metrics, "inter_token_latency", rank) for rank in ("p50", "p99")),
        figure(rates.output_token_throughput if rates else None),
        _rank(metrics, "output_token_throughput_per_user", "p50"),
        figure(rates.request_throughput if rates else None),
        share(metrics.goodput.fraction if metrics.goodput else None),
        f"{counted.sent:,}",
        f"{counted.errored:,}",
    ]


def _rank(metrics: Metrics, name: str, rank: str) -> str:
    summary = metrics.distributions.get(name)
    return milliseconds(summary.get(rank) if summary else None)
