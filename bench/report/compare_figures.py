"""The figures that a comparison shows: how each is read from a run, and how its chance is drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from random import Random
from typing import NamedTuple

from bench.report.intervals import DRAWS, bootstrap_mean, bootstrap_percentile
from bench.report.measures import INTER_CHUNK, MEASURES
from bench.report.metrics import Analysis

__all__ = ["Figure", "figures"]


class Figure(NamedTuple):
    """One row."""

    label: str
    unit: str
    larger_is_better: bool | None
    of_run: Callable[[Analysis], float | None]
    """None where the run does not have it."""
    draw: Callable[[Sequence[Analysis], Random], list[float] | None]
    """What it would be in resamples of the runs' requests; None where those do not tell."""


def figures() -> Iterator[Figure]:
    """All of them, in the order of the table."""
    for name, ranks in (
        ("time_to_first_token", ("avg", "p50", "p90", "p99")),
        ("inter_token_latency", ("avg", "p50", "p99")),
        ("inter_chunk_latency", ("p99",)),
        ("stall_max", ("p99",)),
        ("request_latency", ("avg", "p50", "p99")),
        ("effective_time_to_first_token", ("p50", "p99")),
        ("effective_request_latency", ("p99",)),
        ("output_token_throughput_per_user", ("avg", "p50")),
        ("output_sequence_length", ("avg",)),
        ("input_sequence_length", ("avg",)),
    ):
        for rank in ranks:
            yield _distribution(name, rank)
    yield _rate("Output Token Throughput", "tokens/sec", "output_token_throughput")
    yield _rate("Request Throughput", "requests/sec", "request_throughput")
    yield Figure("Good Requests", "ratio", True, _good_share, _drawn_good)
    yield Figure("Errors", "ratio", False, lambda one: one.metrics.outcomes.error_rate, _none)
    yield Figure("Prefix Cache Hits", "ratio", True, _hit_share, _none)


def _distribution(name: str, rank: str) -> Figure:
    measure = MEASURES[name]

    def of_run(analysis: Analysis) -> float | None:
        summary = analysis.metrics.distributions.get(name)
        return summary.get(rank) if summary else None

    def draw(analyses: Sequence[Analysis], random: Random) -> list[float] | None:
        values = list(chain.from_iterable(one.samples[name] for one in analyses))
        if len(values) < 2:
            return None
        if rank == "avg":
            return bootstrap_mean(values, random)
        return bootstrap_percentile(sorted(values), float(rank[1:]), random)

    better = None if measure.unit == "tokens" else measure.larger_is_better
    # The gaps of one request are alike: taken as independent they would look far too certain.
    chance = _none if name == INTER_CHUNK else draw
    return Figure(f"{measure.header} {rank}", measure.unit, better, of_run, chance)


def _rate(label: str, unit: str, name: str) -> Figure:
    """A figure of the whole run: one run alone says nothing of its chance."""

    def of_run(analysis: Analysis) -> float | None:
        rates = analysis.metrics.rates
        return float(getattr(rates, name)) if rates else None

    return Figure(label, unit, True, of_run, _none)


def _good_share(analysis: Analysis) -> float | None:
    return analysis.metrics.goodput.fraction if analysis.metrics.goodput else None


def _drawn_good(analyses: Sequence[Analysis], random: Random) -> list[float] | None:
    """A share's law given what was counted: Beta with Jeffreys' prior."""
    judged = [one.metrics.goodput for one in analyses if one.metrics.goodput is not None]
    sent, good = sum(one.sent for one in judged), sum(one.good for one in judged)
    if not sent:
        return None
    return [random.betavariate(good + 0.5, sent - good + 0.5) for _ in range(DRAWS)]


def _hit_share(analysis: Analysis) -> float | None:
    return analysis.metrics.cache.hit_share if analysis.metrics.cache else None


def _none(analyses: Sequence[Analysis], random: Random) -> list[float] | None:
    return None
