"""One cell's figures, and those of several repetitions as one."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from bench.load.plan import Closed
from bench.load.result import RunResult
from bench.peers.replicas import Books, hit_rate, skew
from bench.report.metrics import compute
from bench.report.run import Run

__all__ = ["NUMBERS", "CellResult", "Costs", "Figures", "figures_of", "median_figures"]


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway process and its children used."""

    cpu_s: float
    """In the measured phase."""
    peak_bytes: int
    """Most resident memory since it was started."""
    ready_s: float
    """From its start to the first answer that it passed on."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One line's numbers. None: not measured, or there is no such thing.

    Latencies are milliseconds, of requests that succeeded.
    """

    ttft_p50_ms: float | None = None
    ttft_p90_ms: float | None = None
    ttft_p99_ms: float | None = None
    itl_p50_ms: float | None = None
    itl_p99_ms: float | None = None
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    output_tokens_per_s: float | None = None
    requests_per_s: float | None = None
    hit_rate: float | None = None
    skew: float | None = None
    cpu_ms_per_request: float | None = None
    cpu_ms_per_1k_chunks: float | None = None
    peak_mb: float | None = None
    ready_s: float | None = None


NUMBERS: Final = Figures.__struct_fields__


class CellResult(msgspec.Struct, frozen=True, kw_only=True):
    """One target in one repetition."""

    target: str
    policy: str
    repetition: int
    failure: str | None = None
    """Why there is nothing: not installed, not started, died."""
    figures: Figures = Figures()
    sent: int = 0
    completed: int = 0
    errors: dict[str, int] = {}
    """By kind; what was cut off by the end of the run is `unfinished`."""
    requests_by_replica: list[int] = []
    chunks: int = 0
    wall_s: float = 0.0
    gateway_cpu_s: float | None = None
    load_side_share: float = 0.0
    """CPU time of the client and of the replicas over that of their cores, 0 to 1."""
    warnings: list[str] = []


def figures_of(result: RunResult, books: Sequence[Books], costs: Costs | None) -> Figures:
    """The numbers of one measured run."""
    metrics = compute(_as_run(result))
    sent, chunks = len(result.measured), result.client.chunks
    rates = metrics.rates

    def statistic(measure: str, name: str) -> float | None:
        summary = metrics.distributions.get(measure)
        return None if summary is None else summary.get(name)

    return Figures(
        ttft_p50_ms=statistic("time_to_first_token", "p50"),
        ttft_p90_ms=statistic("time_to_first_token", "p90"),
        ttft_p99_ms=statistic("time_to_first_token", "p99"),
        itl_p50_ms=statistic("inter_token_latency", "p50"),
        itl_p99_ms=statistic("inter_token_latency", "p99"),
        latency_p50_ms=statistic("request_latency", "p50"),
        latency_p99_ms=statistic("request_latency", "p99"),
        output_tokens_per_s=rates.output_token_throughput if rates else None,
        requests_per_s=rates.request_throughput if rates else None,
        hit_rate=hit_rate(books),
        skew=skew(books),
        cpu_ms_per_request=costs.cpu_s / sent * 1e3 if costs and sent else None,
        cpu_ms_per_1k_chunks=costs.cpu_s / chunks * 1e6 if costs and chunks else None,
        peak_mb=costs.peak_bytes / 1e6 if costs else None,
        ready_s=costs.ready_s if costs else None,
    )


def errors_of(result: RunResult) -> dict[str, int]:
    """Requests of the measured phase that did not succeed, by kind."""
    kinds = Counter(
        record.error or "unknown" if record.outcome == "error" else record.outcome
        for record in result.measured
        if record.outcome != "ok"
    )
    return dict(kinds.most_common())


def _as_run(result: RunResult) -> Run:
    plan = result.plan
    return Run(
        records=result.records,
        started_at=result.started_at,
        duration_s=result.duration_s,
        mode="concurrency" if isinstance(plan.loop, Closed) else "request_rate",
        load=plan.load,
        model=plan.model,
        url=plan.urls[0],
    )


def median_figures(results: Iterable[Figures]) -> Figures:
    """Each number's median over the repetitions that have it."""
    every = list(results)
    medians = {}
    for name in NUMBERS:
        values = [value for one in every if (value := getattr(one, name)) is not None]
        medians[name] = statistics.median(values) if values else None
    return Figures(**medians)
