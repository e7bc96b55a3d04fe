"""One run's results for the terminal: GenAI-Perf's table, then what it leaves out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from bench.report.layout import aligned, figure, milliseconds, printable, share
from bench.report.measures import MEASURES
from bench.report.metrics import Metrics
from bench.report.probes import Probed, ProbeReport, failures_text
from bench.report.run import Run
from bench.report.statistics import Summary

__all__ = [
    "COLUMNS",
    "latency_rows",
    "load_label",
    "outcome_line",
    "probe_rows",
    "run_text",
    "throughput_rows",
]

COLUMNS: Final = ("avg", "min", "max", "p99", "p90", "p75", "p50", "std")


def run_text(run: Run, metrics: Metrics) -> str:
    """Everything the terminal shows of a run, in blocks."""
    blocks = [
        _title(run),
        aligned(latency_rows(metrics.distributions)) if metrics.distributions else "",
        aligned(throughput_rows(metrics)) if metrics.rates else "",
        "\n".join(_outcome_lines(metrics)),
        "\n".join(_fact_lines(metrics)),
        aligned(probe_rows(metrics.probes), left=2) if metrics.probes else "",
        "\n".join(f"warning: {printable(warning, 500)}" for warning in metrics.warnings),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def load_label(run: Run) -> str:
    """The load in words: `concurrency 8`, `8 requests/s`, `schedule`."""
    if run.mode == "concurrency" and run.load is not None:
        return f"concurrency {run.load:g}"
    if run.mode == "request_rate" and run.load is not None:
        return f"{run.load:g} requests/s"
    return run.mode.replace("_", " ")


def _title(run: Run) -> str:
    named = f"{run.name}: " if run.name else ""
    return printable(f"Triolet bench | {named}{run.model} at {run.url}, {load_label(run)}", 300)


def latency_rows(distributions: Mapping[str, Summary]) -> list[list[str]]:
    """Heading and one row a measure that was measured."""
    rows = [["Metric", *COLUMNS]]
    for name, summary in distributions.items():
        measure = MEASURES[name]
        if measure.main:
            cells = [figure(summary.get(column)) for column in COLUMNS]
            rows.append([f"{measure.header} ({measure.unit})", *cells])
    return rows


def throughput_rows(metrics: Metrics) -> list[list[str]]:
    """Heading and one row for each figure that is one number; empty if nothing succeeded."""
    rates = metrics.rates
    if rates is None:
        return []
    rows = [
        ["Metric", "Value"],
        ["Output Token Throughput (tokens/sec)", figure(rates.output_token_throughput)],
        ["Total Token Throughput (tokens/sec)", figure(rates.total_token_throughput)],
        ["Request Throughput (requests/sec)", figure(rates.request_throughput)],
        ["Request Count (count)", f"{metrics.outcomes.completed:,}"],
        ["Requests in Flight (average)", figure(rates.requests_in_flight)],
        ["Benchmark Duration (sec)", figure(rates.duration_s)],
    ]
    if metrics.goodput is not None:
        rows.append(["Request Goodput (requests/sec)", figure(metrics.goodput.per_s)])
        rows.append(["Good Requests (% of sent)", figure(metrics.goodput.fraction * 100)])
    return rows


def outcome_line(metrics: Metrics) -> str:
    """What became of everything sent."""
    counted = metrics.outcomes
    return (
        f"sent {counted.sent:,} = {counted.completed:,} completed + {counted.errored:,} errored"
        f" + {counted.cancelled:,} cancelled + {counted.unfinished:,} unfinished"
    )


def _outcome_lines(metrics: Metrics) -> Iterator[str]:
    yield outcome_line(metrics)
    for failure in metrics.outcomes.failures:
        wait = failure.retry_after_s
        waited = "" if wait is None else f" (retry after up to {wait:,.0f} s, not followed)"
        example = f", for example: {printable(failure.message)}" if failure.message else ""
        yield f"  {printable(failure.kind)}: {failure.count:,}{waited}{example}"
    if metrics.warmup_outcomes.sent:
        yield (
            f"warm-up: {metrics.warmup_outcomes.sent:,} sent, "
            f"{metrics.warmup_outcomes.errored:,} errored, in no figure above"
        )


def _fact_lines(metrics: Metrics) -> Iterator[str]:
    if metrics.cache is not None:
        cache = metrics.cache
        yield (
            f"prefix cache: {share(cache.hit_share)} of prompt tokens "
            f"({cache.cached_tokens:,} of {cache.prompt_tokens:,}, as "
            f"{cache.requests:,} of {metrics.outcomes.completed:,} answers report)"
        )
    if metrics.replicas is not None:
        counts = ", ".join(
            f"{printable(name, 60)} {count:,}"
            for name, count in list(metrics.replicas.requests.items())[:16]
        )
        yield f"replicas: {counts} (busiest over average {metrics.replicas.skew:.2f})"
    for name, summary in metrics.turns.items():
        turn = "turn 1" if name == "first" else "later turns"
        yield (
            f"time to first token, {turn}: avg {milliseconds(summary.avg)} ms, "
            f"p50 {milliseconds(summary.p50)}, p99 {milliseconds(summary.p99)} ({summary.count:,})"
        )


def probe_rows(probes: Sequence[ProbeReport]) -> list[list[str]]:
    """Heading and for each path one row under load and one without."""
    rows = [["Probe", "period", "sent", "failed", "p50 ms", "p99 ms", "max ms"]]
    for one in probes:
        rows.append([printable(one.path), "under load", *_probe_cells(one.loaded)])
        if one.idle is not None:
            rows.append(["", "idle", *_probe_cells(one.idle)])
    return rows


def _probe_cells(probed: Probed) -> list[str]:
    latency = probed.latency
    figures = [latency.p50, latency.p99, latency.max] if latency else [None] * 3
    return [f"{probed.sent:,}", failures_text(probed), *map(milliseconds, figures)]
