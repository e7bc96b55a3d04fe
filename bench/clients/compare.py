"""Our client's numbers against every other's. Pure.

A number agrees if its median over the repetitions is within 5 % of ours. If it is not, either the
cause is known (a definition that differs, rounding) and accounts for no more than is seen; or the
repetitions of one client lie as far apart as the two clients do; or the difference is a finding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from statistics import median
from typing import Final, Literal, NamedTuple

from bench.clients.result import Result

__all__ = ["LIMIT", "METRICS", "REASONS", "Comparison", "Metric", "Reason", "Spread", "compare"]

LIMIT: Final = 0.05
"""How far a ratio may be from 1."""

Verdict = Literal["agrees", "explained", "scatter", "differs", "not given"]


class Metric(NamedTuple):
    """One line of the table."""

    path: str
    """Of the value in a `Result`."""
    title: str
    unit: str

    def of(self, result: Result) -> float | None:
        """The value, None if the client does not say."""
        value: float | None = attrgetter(self.path)(result)
        return value


METRICS: Final = (
    Metric("times.ttft_avg_ms", "TTFT avg", "ms"),
    Metric("times.ttft_p50_ms", "TTFT p50", "ms"),
    Metric("times.ttft_p99_ms", "TTFT p99", "ms"),
    Metric("times.itl_avg_ms", "ITL avg", "ms"),
    Metric("times.itl_p50_ms", "ITL p50", "ms"),
    Metric("times.latency_avg_ms", "request latency avg", "ms"),
    Metric("times.latency_p50_ms", "request latency p50", "ms"),
    Metric("times.latency_p99_ms", "request latency p99", "ms"),
    Metric("tokens_per_s", "output tokens/s", ""),
    Metric("requests_per_s", "requests/s", ""),
    Metric("output_tokens_avg", "output tokens avg", ""),
)


class Reason(NamedTuple):
    """Why one client's number is another one than ours, and how much of a difference that makes."""

    client: str
    paths: tuple[str, ...]
    low: float
    """Theirs less ours, at least; in the metric's unit."""
    high: float
    text: str
    same_server: bool = False
    """Whether it only holds if the replicas answered both clients alike."""


class Spread(NamedTuple):
    """One number over the repetitions."""

    median: float
    low: float
    high: float


_TTFT: Final = ("times.ttft_avg_ms", "times.ttft_p50_ms")
_TAILS: Final = ("times.ttft_p99_ms", "times.latency_p99_ms")
_LATE: Final = (
    "this client comes late to what it reads: it is several processes, or slow with each request, "
    "and shares the cores with the server; it says the same of a replica without Triolet (--direct)"
)
_ROUNDED: Final = "Locust keeps values of 100 ms and more in two digits, smaller ones in whole ms"

REASONS: Final = (
    Reason("locust", ("times.itl_p50_ms",), -0.5, 0.5, _ROUNDED),
    *(
        reason
        for client in ("aiperf", "guidellm", "locust")
        for reason in (
            Reason(client, _TTFT, 0, 15, _LATE, same_server=True),
            Reason(client, _TAILS, 0, 60, _LATE, same_server=True),
        )
    ),
)
"""Known causes. Their bounds are those of two busy cores at under 1,000 tokens/s."""


class Comparison(NamedTuple):
    """One number of one client, beside ours."""

    client: str
    metric: Metric
    ours: Spread | None
    theirs: Spread | None
    ratio: float | None
    """Theirs over ours."""
    verdict: Verdict
    reason: str = ""


def compare(
    results: Mapping[str, Sequence[Result]],
    own: str,
    replica_ttft_ms: Mapping[str, float],
    reasons: Sequence[Reason] = REASONS,
) -> list[Comparison]:
    """Every metric of every other client beside the client `own`.

    `replica_ttft_ms` is the average that the replicas themselves measured during a client's runs.
    Runs with a failed request are left out: their times are those of the requests that were lucky.
    """
    whole = {name: [one for one in runs if not one.errors] for name, runs in results.items()}
    ours = whole.get(own, [])
    found = []
    for name, runs in whole.items():
        if name == own:
            continue
        alike = _alike(replica_ttft_ms.get(own), replica_ttft_ms.get(name))
        known = [one for one in reasons if one.client == name and (alike or not one.same_server)]
        for metric in METRICS:
            found.append(_compared(name, metric, spread(metric, ours), spread(metric, runs), known))
    return found


def _alike(ours: float | None, theirs: float | None) -> bool:
    """Whether two numbers are within the limit of each other."""
    return ours is not None and theirs is not None and abs(theirs - ours) <= LIMIT * ours


def spread(metric: Metric, results: Sequence[Result]) -> Spread | None:
    """Median, lowest and highest; None if no result has the metric."""
    values = [value for value in map(metric.of, results) if value is not None]
    return Spread(median(values), min(values), max(values)) if values else None


def _compared(
    client: str,
    metric: Metric,
    ours: Spread | None,
    theirs: Spread | None,
    reasons: Sequence[Reason],
) -> Comparison:
    if ours is None or theirs is None or not ours.median:
        return Comparison(client, metric, ours, theirs, None, "not given")
    ratio = theirs.median / ours.median
    verdict, reason = _judged(client, metric, ours, theirs, reasons)
    return Comparison(client, metric, ours, theirs, ratio, verdict, reason)


def _judged(
    client: str, metric: Metric, ours: Spread, theirs: Spread, reasons: Sequence[Reason]
) -> tuple[Verdict, str]:
    if _alike(ours.median, theirs.median):
        return "agrees", ""
    for reason in reasons:
        if metric.path in reason.paths and reason.low <= theirs.median - ours.median <= reason.high:
            return "explained", reason.text
    if theirs.low <= ours.high and ours.low <= theirs.high:
        return "scatter", _scatter(client, metric, ours, theirs)
    return "differs", "no known reason covers this difference"


def _scatter(client: str, metric: Metric, ours: Spread, theirs: Spread) -> str:
    return (
        f"the repetitions overlap: ours {ours.low:.4g} to {ours.high:.4g}, {client} "
        f"{theirs.low:.4g} to {theirs.high:.4g} {metric.unit}".rstrip()
    )
