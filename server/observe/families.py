"""Metric families out of plain numbers, as prometheus-client renders them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from server.observe.histogram import Histogram

__all__ = ["Histograms", "Values", "counter", "gauge", "histogram", "observe"]

Histograms = dict[tuple[str, ...], Histogram]
"""By the values of the labels."""

Values = Iterable[tuple[tuple[str, ...], float]]
"""The values of the labels, and the value."""


def observe(
    histograms: Histograms, key: tuple[str, ...], bounds: tuple[float, ...], value: float
) -> None:
    """Count a value in the histogram of these labels."""
    found = histograms.get(key)
    if found is None:
        found = histograms[key] = Histogram(bounds)
    found.observe(value)


def counter(
    name: str, text: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], int]
) -> Metric:
    """`name` is without its `_total`."""
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def gauge(name: str, text: str, labels: tuple[str, ...], values: Values) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values:
        family.add_metric(key, float(value))
    return family


def histogram(name: str, text: str, labels: tuple[str, ...], values: Histograms) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for key, found in values.items():
        family.add_metric(key, buckets=found.cumulative(), sum_value=found.total)
    return family
