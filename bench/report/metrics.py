"""Records to figures: the distributions, rates and counts that every report shows.

Six rules hold throughout:

1. The first token is the first chunk with text (`measures`).
2. Inter-token latency is one number a request; the pooled gaps have another name.
3. Where the plan set a time to send, latency is given from that time too (`effective_*`).
4. Output tokens are the server's count where it gives one; a client's count that differs by more
   than a tenth is pointed out.
5. Sent = completed + errored + cancelled + unfinished; goodput is out of everything sent; a request
   that failed is in no latency.
6. The duration runs from the first request's start to the last answer's end, of the measured phase
   alone; warm-up requests are kept in the files and counted nowhere else.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from bench.load.record import Record
from bench.report.goodput import Goodput, goodput
from bench.report.measures import (
    INTER_CHUNK,
    MEASURES,
    chunk_gaps_ms,
    input_length,
    measured,
    output_length,
)
from bench.report.outcomes import Outcomes, outcomes
from bench.report.probes import ProbeReport, probe_reports
from bench.report.run import Run
from bench.report.server_facts import PrefixCache, Replicas, prefix_cache, replicas
from bench.report.statistics import Summary, summarize
from bench.report.warning import warnings_of

__all__ = [
    "Analysis",
    "Metrics",
    "Rates",
    "Samples",
    "analyse",
    "compute",
    "duration_s",
    "profiled",
    "succeeded",
]

Samples = Mapping[str, Sequence[float]]
"""Every value, by measure, in the records' order."""


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Totals, and totals per second of the duration. Of requests that succeeded only."""

    duration_s: float
    request_throughput: float
    output_token_throughput: float
    total_token_throughput: float
    """Prompt and output tokens."""
    input_tokens: int
    output_tokens: int
    requests_in_flight: float
    """How many were under way on average, failed ones too."""


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """Everything computed of one run's measured phase. What was not measured is absent or None."""

    distributions: dict[str, Summary]
    """By measure, in `MEASURES`' order and units."""
    rates: Rates | None
    """None if nothing succeeded."""
    outcomes: Outcomes
    goodput: Goodput | None
    """None if no objectives were set."""
    warmup: dict[str, Summary]
    """The same distributions, of the warm-up."""
    warmup_outcomes: Outcomes
    turns: dict[str, Summary]
    """Time to first token of sessions with several turns: `first` and `later` ones, ms."""
    cache: PrefixCache | None
    replicas: Replicas | None
    probes: list[ProbeReport]
    warnings: list[str]
    """The run's own first, then what the figures themselves show."""


class Analysis(NamedTuple):
    """A run with what was computed of it, for what draws and compares single values."""

    run: Run
    metrics: Metrics
    samples: Samples
    """Of the measured phase's requests that succeeded."""


def compute(run: Run) -> Metrics:
    """All figures of a run."""
    return analyse(run).metrics


def analyse(run: Run) -> Analysis:
    """All figures of a run, and the values behind them."""
    phase = profiled(run.records)
    good = succeeded(phase)
    each = [measured(record) for record in good]
    lasted_s = duration_s(phase)
    counted = outcomes(phase)
    judged = (
        goodput(each, run.goodput, sent=counted.sent, duration_s=lasted_s) if run.goodput else None
    )
    samples = _samples(good, each)
    probes = probe_reports(run.probes, run.idle_probes)
    warmup = [record for record in run.records if record.phase == "warmup"]
    warm = succeeded(warmup)
    metrics = Metrics(
        distributions=_summaries(samples),
        rates=_rates(phase, good, lasted_s),
        outcomes=counted,
        goodput=judged,
        warmup=_summaries(_samples(warm, [measured(one) for one in warm])),
        warmup_outcomes=outcomes(warmup),
        turns=_turns(good, each),
        cache=prefix_cache(good),
        replicas=replicas(good),
        probes=probes,
        warnings=[*run.warnings, *warnings_of(run, good, counted, judged, probes)],
    )
    return Analysis(run, metrics, samples)


def profiled(records: Iterable[Record]) -> list[Record]:
    """The measured phase's records."""
    return [record for record in records if record.phase == "profiling"]


def succeeded(records: Iterable[Record]) -> list[Record]:
    """Those whose answer came whole."""
    return [record for record in records if record.outcome == "ok"]


def duration_s(phase: Sequence[Record]) -> float | None:
    """From the first request's start to the last answer's end, a failed one's too.

    None if nothing ended: cancelled and unfinished requests have no end of their own.
    """
    ends = [
        record.ended_s
        for record in phase
        if record.outcome in ("ok", "error") and record.ended_s is not None
    ]
    if not ends:
        return None
    return max(ends) - min(record.sent_s for record in phase)


def _samples(good: Sequence[Record], each: Sequence[Mapping[str, float]]) -> Samples:
    samples: dict[str, array[float]] = {name: array("d") for name in MEASURES}
    for values in each:
        for name, value in values.items():
            samples[name].append(value)
    for record in good:
        samples[INTER_CHUNK].extend(chunk_gaps_ms(record))
    return samples


def _summaries(samples: Samples) -> dict[str, Summary]:
    found = ((name, summarize(values)) for name, values in samples.items())
    return {name: summary for name, summary in found if summary is not None}


def _rates(phase: Sequence[Record], good: Sequence[Record], lasted_s: float | None) -> Rates | None:
    if not good or not lasted_s:
        return None
    given, got = sum(map(input_length, good)), sum(map(output_length, good))
    busy_s = sum(one.ended_s - one.sent_s for one in phase if one.ended_s is not None)
    return Rates(
        duration_s=lasted_s,
        request_throughput=len(good) / lasted_s,
        output_token_throughput=got / lasted_s,
        total_token_throughput=(given + got) / lasted_s,
        input_tokens=given,
        output_tokens=got,
        requests_in_flight=busy_s / lasted_s,
    )


def _turns(good: Sequence[Record], each: Sequence[Mapping[str, float]]) -> dict[str, Summary]:
    if all(record.turn == 0 for record in good):
        return {}
    split: dict[str, list[float]] = {"first": [], "later": []}
    for record, values in zip(good, each, strict=True):
        if "time_to_first_token" in values:
            split["later" if record.turn else "first"].append(values["time_to_first_token"])
    found = ((name, summarize(values)) for name, values in split.items())
    return {name: summary for name, summary in found if summary is not None}
