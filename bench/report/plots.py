"""Which charts a run and a sweep get, and the points in them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from bench.load.record import Record
from bench.report.measures import MEASURES, measured, output_length
from bench.report.metrics import Analysis, profiled, succeeded
from bench.report.run import Run
from bench.report.statistics import percentile
from bench.report.svg import Axis, Chart, Point, Series, thinned

__all__ = ["run_charts", "sweep_charts"]

_DOTS: Final = 1500
_LINE: Final = 500
_BINS: Final = 60
_WIDE: Final = 30.0
"""A sample whose p99 is this many times its p1 is drawn on a logarithmic axis."""
_TIME: Final = Axis("time since the start (s)")


def run_charts(analysis: Analysis) -> list[Chart]:
    """One load point: distributions, then what happened over time."""
    charts = [
        *_distributions(analysis, "time_to_first_token"),
        *_distributions(analysis, "inter_token_latency"),
    ]
    if not charts:
        charts = list(_distributions(analysis, "request_latency"))
    charts.append(_latency_over_time(analysis.run))
    charts.append(_in_flight(profiled(analysis.run.records)))
    charts.append(_throughput_over_time(succeeded(profiled(analysis.run.records))))
    charts.extend(_by_turn(analysis))
    return charts


def _distributions(analysis: Analysis, name: str) -> Iterator[Chart]:
    ordered = sorted(analysis.samples[name])
    if not ordered:
        return
    header = MEASURES[name].header
    log = ordered[0] > 0 and percentile(ordered, 99) > _WIDE * percentile(ordered, 1)
    axis = Axis(f"{header.lower()} (ms)", log=log)
    yield Chart(
        f"{header}: histogram",
        f"Requests by {header.lower()}; median {percentile(ordered, 50):.4g} ms.",
        axis,
        Axis("requests", from_zero=True),
        [Series("", _histogram(ordered, log), "bars")],
    )
    yield Chart(
        f"{header}: cumulative",
        f"Share of requests at or below each {header.lower()}; "
        f"p50 {percentile(ordered, 50):.4g}, p99 {percentile(ordered, 99):.4g} ms.",
        axis,
        Axis("share of requests (%)", from_zero=True),
        [Series("", _cumulative(ordered))],
    )


def _histogram(ordered: Sequence[float], log: bool) -> list[Point]:
    """Left edges with counts, and the right edge of the last bin."""
    low, high = ordered[0], ordered[-1]
    if high <= low:
        low, high = low * 0.99 - 1e-6, high * 1.01 + 1e-6
    scale = math.log if log else float
    start, width = scale(low), (scale(high) - scale(low)) / _BINS
    counts = [0] * _BINS
    for value in ordered:
        counts[min(int((scale(value) - start) / width), _BINS - 1)] += 1
    edges = [start + width * place for place in range(_BINS + 1)]
    heights = [float(count) for count in (*counts, 0)]
    return [
        (math.exp(edge) if log else edge, height)
        for edge, height in zip(edges, heights, strict=True)
    ]


def _cumulative(ordered: Sequence[float]) -> list[Point]:
    steps = min(len(ordered) - 1, 400) or 1
    return [(percentile(ordered, 100 * n / steps), 100 * n / steps) for n in range(steps + 1)]


def _latency_over_time(run: Run) -> Chart:
    name = "time_to_first_token" if run.streamed else "request_latency"
    phase = sorted(profiled(run.records), key=lambda record: record.sent_s)
    good = [
        (record.sent_s, value)
        for record in succeeded(phase)
        if (value := measured(record).get(name)) is not None
    ]
    bad = [
        (record.sent_s, (record.ended_s - record.sent_s) * 1e3)
        for record in phase
        if record.outcome == "error" and record.ended_s is not None
    ]
    header = MEASURES[name].header
    ordered = sorted(value for _, value in good) or [1.0]
    return Chart(
        f"{header} over time",
        f"Each request by when it was sent; {len(bad)} that failed are marked, at the time it "
        "took them to fail.",
        _TIME,
        Axis(
            f"{header.lower()} (ms)",
            log=percentile(ordered, 99) > _WIDE * percentile(ordered, 1),
            from_zero=True,
        ),
        [
            Series("succeeded", thinned(good, _DOTS), "dots"),
            Series("failed", thinned(bad, _DOTS), "dots", "bad"),
        ],
    )


def _in_flight(phase: Sequence[Record]) -> Chart:
    events = [(record.sent_s, 1) for record in phase]
    events += [(record.ended_s, -1) for record in phase if record.ended_s is not None]
    level, points = 0, list[Point]()
    for time, change in sorted(events):
        level += change
        points.append((time, float(level)))
    return Chart(
        "Requests in flight",
        "How many requests were under way at each moment, failed ones too.",
        _TIME,
        Axis("requests", from_zero=True),
        [Series("", thinned(points, _LINE))],
    )


def _throughput_over_time(good: Sequence[Record]) -> Chart:
    ends = [record.ended_s for record in good if record.ended_s is not None]
    start, end = min((record.sent_s for record in good), default=0.0), max(ends, default=0.0)
    width = (end - start) / _BINS or 1.0
    tokens = [0.0] * _BINS
    for record in good:
        times = (
            record.content_s if record.streamed and record.content_s else [record.ended_s or end]
        )
        each = output_length(record) / len(times)
        for time in times:
            tokens[min(int((time - start) / width), _BINS - 1)] += each
    points = [(start + (place + 0.5) * width, count / width) for place, count in enumerate(tokens)]
    return Chart(
        "Output throughput over time",
        f"Output tokens per second in {_BINS} equal stretches of the measured phase, of requests "
        "that succeeded; an answer's tokens are spread evenly over its chunks.",
        _TIME,
        Axis("output tokens per second", from_zero=True),
        [Series("", points if good else [])],
    )


def _by_turn(analysis: Analysis) -> Iterator[Chart]:
    if not analysis.metrics.turns:
        return
    turns: defaultdict[int, list[float]] = defaultdict(list)
    for record in succeeded(profiled(analysis.run.records)):
        value = measured(record).get("time_to_first_token")
        if value is not None:
            turns[record.turn].append(value)
    ordered = {turn: sorted(values) for turn, values in sorted(turns.items())}
    yield Chart(
        "Time to First Token by turn",
        "Median and p90 of each turn of the sessions: later turns carry a longer history, of which "
        "a prefix cache may hold most.",
        Axis("turn of the session"),
        Axis("time to first token (ms)", from_zero=True),
        [Series(f"p{rank}", _ranks(ordered, rank), "marks") for rank in (50, 90)],
    )


def _ranks(ordered: dict[int, list[float]], rank: int) -> Sequence[Point]:
    points = [(turn + 1.0, percentile(values, rank)) for turn, values in ordered.items()]
    return thinned(points, _LINE)


def sweep_charts(analyses: Sequence[Analysis]) -> list[Chart]:
    """Several load points of one thing: throughput, latency and goodput against the load."""
    points = sorted(
        (one for one in analyses if one.run.load is not None), key=lambda one: one.run.load or 0.0
    )
    rate = any(one.run.mode == "request_rate" for one in points)
    loads = [one.run.load or 0.0 for one in points]
    spread = len(loads) > 2 and min(loads) > 0 and max(loads) / min(loads) >= 8
    axis = Axis("offered load (requests/s)" if rate else "concurrency (requests)", log=spread)
    return [
        _throughput_chart(points, axis),
        _pareto(points),
        _latency_chart(points, axis, "time_to_first_token"),
        _latency_chart(points, axis, "inter_token_latency"),
        _success_chart(points, axis),
    ]


def _throughput_chart(points: Sequence[Analysis], axis: Axis) -> Chart:
    return Chart(
        "Throughput against load",
        "Output tokens per second at each load point. Where the line flattens, the target is full.",
        axis,
        Axis("output tokens per second", from_zero=True),
        [
            Series(
                "",
                [
                    (one.run.load or 0.0, one.metrics.rates.output_token_throughput)
                    for one in points
                    if one.metrics.rates is not None
                ],
                "marks",
            )
        ],
    )


def _pareto(points: Sequence[Analysis]) -> Chart:
    found = [
        (user.p50, one.metrics.rates.output_token_throughput, f"{one.run.load:g}")
        for one in points
        if one.metrics.rates is not None
        and (user := one.metrics.distributions.get("output_token_throughput_per_user"))
    ]
    return Chart(
        "Throughput against speed for a user",
        "Each load point by output tokens per second of one user (median) and of all users "
        "together, with its load. Up and to the right is better.",
        Axis("output tokens per second per user", from_zero=True),
        Axis("output tokens per second", from_zero=True),
        [Series("", [(x, y) for x, y, _ in found], "marks", labels=[text for *_, text in found])],
    )


def _latency_chart(points: Sequence[Analysis], axis: Axis, name: str) -> Chart:
    header = MEASURES[name].header
    return Chart(
        f"{header} against load",
        f"p50, p90 and p99 of {header.lower()} at each load point.",
        axis,
        Axis(f"{header.lower()} (ms)", log=True),
        [
            Series(
                rank,
                [
                    (one.run.load or 0.0, one.metrics.distributions[name].get(rank))
                    for one in points
                    if name in one.metrics.distributions
                ],
                "marks",
            )
            for rank in ("p50", "p90", "p99")
        ],
    )


def _success_chart(points: Sequence[Analysis], axis: Axis) -> Chart:
    good = [
        (one.run.load or 0.0, 100 * one.metrics.goodput.fraction)
        for one in points
        if one.metrics.goodput is not None
    ]
    failed = [(one.run.load or 0.0, 100 * one.metrics.outcomes.error_rate) for one in points]
    return Chart(
        "Good and failed requests against load",
        "Shares of all requests sent: those that met every objective, and those that failed.",
        axis,
        Axis("share of requests sent (%)", from_zero=True),
        [Series("good", good, "marks"), Series("failed", failed, "marks", "bad")],
    )
