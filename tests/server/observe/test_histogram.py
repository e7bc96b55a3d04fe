"""The cheap histogram says what prometheus-client's own would say."""

from __future__ import annotations

from typing import Final

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import CollectorRegistry

from server.observe.histogram import Histogram

BOUNDS: Final = (0.001, 0.0025, 0.5, 1, 2.5, 10, 655.36)


def theirs(bounds: tuple[float, ...], values: list[float]) -> tuple[list[tuple[str, float]], float]:
    """Bucket bounds with their counts, and the sum, as prometheus-client has them."""
    registry = CollectorRegistry()
    histogram = prometheus_client.Histogram("x", "x", buckets=bounds, registry=registry)
    for value in values:
        histogram.observe(value)
    (family,) = registry.collect()
    buckets = [(s.labels["le"], s.value) for s in family.samples if s.name == "x_bucket"]
    (total,) = [sample.value for sample in family.samples if sample.name == "x_sum"]
    return buckets, total


@given(
    st.lists(st.floats(0, 1000) | st.sampled_from(BOUNDS), max_size=50),
    st.lists(st.floats(1e-4, 1e5), min_size=1, max_size=20, unique=True).map(sorted).map(tuple),
)
def test_it_counts_as_prometheus_does(values: list[float], bounds: tuple[float, ...]) -> None:
    """Same buckets, same bounds (inclusive), same sum."""
    for some in (BOUNDS, bounds):
        ours = Histogram(some)
        for value in values:
            ours.observe(value)
        buckets, total = theirs(some, values)
        assert [count for _, count in ours.cumulative()] == [count for _, count in buckets]
        assert [float(le) for le, _ in ours.cumulative()] == [float(le) for le, _ in buckets]
        assert ours.total == pytest.approx(total)


def test_bounds_are_written_as_prometheus_writes_them() -> None:
    """The text of `le` is part of a series' name: ours must be theirs, for the bounds in use."""
    from server.observe import looplag, metrics

    used = [
        value
        for module in (looplag, metrics)
        for name, value in vars(module).items()
        if name.startswith("_") and "_S" in name and isinstance(value, tuple)
    ]
    assert len(used) >= 5
    for bounds in used:
        assert [le for le, _ in Histogram(bounds).cumulative()] == [
            le for le, _ in theirs(bounds, [])[0]
        ]


def test_the_exposition_is_the_same() -> None:
    """Rendered by prometheus-client, ours cannot be told from theirs."""

    class Ours:
        def collect(self) -> list[HistogramMetricFamily]:
            histogram = Histogram(BOUNDS)
            for value in (0.001, 0.3, 0.5, 700):
                histogram.observe(value)
            family = HistogramMetricFamily("x", "help")
            family.add_metric([], buckets=histogram.cumulative(), sum_value=histogram.total)
            return [family]

    registry = CollectorRegistry()
    registry.register(Ours())
    reference = CollectorRegistry()
    theirs_ = prometheus_client.Histogram("x", "help", buckets=BOUNDS, registry=reference)
    for value in (0.001, 0.3, 0.5, 700):
        theirs_.observe(value)
    expected = [line for line in generate_latest(reference).splitlines() if b"_created" not in line]
    assert generate_latest(registry).splitlines() == expected
