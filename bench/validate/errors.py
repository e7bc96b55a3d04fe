"""How far a prediction is from what was measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import fmean, median
from typing import Final

import msgspec

from bench.validate.recording import Served

__all__ = ["METRICS", "Comparison", "Figure", "compare"]

METRICS: Final[dict[str, Callable[[Served], float | None]]] = {
    "time_to_first_token": lambda each: each.ttft_s,
    "inter_token_latency": lambda each: each.itl_s,
    "request_latency": lambda each: each.latency_s,
}
"""From the arrival to the first token; mean time between the tokens of a request (TPOT); from the
arrival to the last token."""


class Figure(msgspec.Struct, frozen=True):
    """One statistic of one metric."""

    metric: str
    statistic: str
    unit: str
    measured: float
    """Above 0."""
    predicted: float
    error: float
    """Relative: 0.1 if the prediction is 10 % too high."""


class Comparison(msgspec.Struct, frozen=True):
    """All figures of a run, and what they come to."""

    figures: tuple[Figure, ...]
    median_error: float
    """Of the absolute errors of all figures."""
    request_errors: dict[str, float]
    """For each metric the median over the requests of the absolute error of each."""


def compare(measured: Sequence[Served], predicted: Sequence[Served]) -> Comparison:
    """Two accounts of the same requests, in the same order."""
    figures = tuple(_all_figures(measured, predicted))
    return Comparison(
        figures,
        median(abs(each.error) for each in figures),
        {metric: _request_error(metric, measured, predicted) for metric in METRICS},
    )


def _all_figures(measured: Sequence[Served], predicted: Sequence[Served]) -> Iterator[Figure]:
    for metric in METRICS:
        ours, theirs = _values(metric, measured), _values(metric, predicted)
        for name, statistic in _STATISTICS.items() if ours else ():
            yield from _figure(metric, name, "ms", 1000 * statistic(ours), 1000 * statistic(theirs))
    rates = _tokens_per_s(measured), _tokens_per_s(predicted)
    yield from _figure("output_token_throughput", "all", "tokens/s", *rates)


def _figure(
    metric: str, statistic: str, unit: str, measured: float, predicted: float
) -> Iterator[Figure]:
    if measured > 0:
        yield Figure(metric, statistic, unit, measured, predicted, predicted / measured - 1)


def _values(metric: str, account: Iterable[Served]) -> list[float]:
    return [value for each in account if (value := METRICS[metric](each)) is not None]


def _request_error(metric: str, measured: Sequence[Served], predicted: Sequence[Served]) -> float:
    of = METRICS[metric]
    errors = [
        abs(theirs / ours - 1)
        for one, other in zip(measured, predicted, strict=True)
        if (ours := of(one)) and (theirs := of(other)) is not None
    ]
    return median(errors) if errors else math.nan


def _tokens_per_s(account: Sequence[Served]) -> float:
    tokens = sum(each.output_tokens for each in account)
    begun_s = min(each.arrived_s for each in account)
    return tokens / (max(each.last_token_s for each in account) - begun_s)


def _quantile(values: Sequence[float], share: float) -> float:
    """Between two values in proportion, as GenAI-Perf's percentiles are."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


_STATISTICS: Final[dict[str, Callable[[Sequence[float]], float]]] = {
    "avg": fmean,
    "p50": lambda values: _quantile(values, 0.50),
    "p90": lambda values: _quantile(values, 0.90),
    "p99": lambda values: _quantile(values, 0.99),
}
