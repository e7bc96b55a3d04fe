"""Prometheus metrics: counted here for next to nothing, rendered by prometheus-client.

Labels are bounded: models and replicas come from the configuration (a model nobody configured is
counted under no name), kinds and outcomes from the code. Every metric is described in
`docs/reference/metrics.md`; a test holds the two together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

import trio
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from balancer.catalog import Catalog
from server.observe.histogram import Histogram
from server.observe.record import Record

__all__ = ["CONTENT_TYPE", "EdgeCounts", "Metrics"]

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_TTFT_S: Final = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5)
_TTFT_S_ALL: Final = (*_TTFT_S, 10, 20, 40, 80, 160)
_ITL_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.2, 0.5, 1)
_DURATION_S: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48)
_DURATION_S_ALL: Final = (*_DURATION_S, 40.96, 81.92, 163.84, 327.68, 655.36)
_QUEUE_S: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60)

_Families = dict[tuple[str, ...], Histogram]


class EdgeCounts(NamedTuple):
    """What a server counts itself; read at each scrape."""

    connections: int
    accepted: int
    turned_away: int
    refused: Mapping[int, int]


class Metrics:
    """Counts exchanges as they end; reads gauges from the pools when scraped."""

    def __init__(self, catalog: Catalog, *, loop_busy: Histogram, log_dropped: Callable[[], int]):
        self._catalog = catalog
        self._loop_busy = loop_busy
        self._log_dropped = log_dropped
        self.edges: list[Callable[[], EdgeCounts]] = []
        """One for each server; called at each scrape."""
        self._requests: Counter[tuple[str, ...]] = Counter()
        self._failed: Counter[tuple[str, ...]] = Counter()
        self._tokens: Counter[tuple[str, ...]] = Counter()
        self._ttft: _Families = {}
        self._itl: _Families = {}
        self._duration: _Families = {}
        self._queue: _Families = {}
        self._process = ProcessCollector(registry=CollectorRegistry())
        self._renderers = trio.CapacityLimiter(1)

    def settle(self, record: Record) -> None:
        """Count one finished model call."""
        model, replica = record.model or "", record.replica or ""
        self._requests[model, record.outcome] += 1
        for kind in record.failures:
            self._failed[model, kind] += 1
        key = (model, replica)
        if replica and record.duration_s is not None:
            _observe(self._duration, key, _DURATION_S_ALL, record.duration_s)
        if record.ttft_s is not None:
            _observe(self._ttft, key, _TTFT_S_ALL, record.ttft_s)
        if record.itl_s is not None:
            _observe(self._itl, key, _ITL_S, record.itl_s)
        if record.queued_s is not None:
            _observe(self._queue, (model,), _QUEUE_S, record.queued_s)
        if record.usage is not None:
            self._count_tokens(model, record)

    def _count_tokens(self, model: str, record: Record) -> None:
        usage = record.usage
        if usage is None:
            return
        if usage.prompt_tokens:
            self._tokens[model, "prompt"] += usage.prompt_tokens
        if usage.cached_tokens:
            self._tokens[model, "cached"] += usage.cached_tokens
        if usage.completion_tokens:
            self._tokens[model, "completion"] += usage.completion_tokens

    async def render(self) -> bytes:
        """The exposition text. Collected here, formatted in a thread: it takes milliseconds."""
        registry = CollectorRegistry()
        registry.register(_Collected([*self.families()]))
        registry.register(self._process)  # goes through /proc, which is for the thread too
        return await trio.to_thread.run_sync(generate_latest, registry, limiter=self._renderers)

    def families(self) -> Iterator[Metric]:
        """Every metric of ours, as it is now."""
        yield _counter(
            "triolet_requests",
            "Model calls ended, by outcome.",
            ("model", "outcome"),
            self._requests,
        )
        yield _counter(
            "triolet_attempts_failed",
            "Tries at one replica that failed before the first event, by kind.",
            ("model", "kind"),
            self._failed,
        )
        yield _counter(
            "triolet_tokens",
            "Tokens as replicas report them in usage; cached is a part of prompt.",
            ("model", "kind"),
            self._tokens,
        )
        gone: dict[tuple[str, ...], int] = {
            (model,): count
            for (model, outcome), count in self._requests.items()
            if outcome == "client_gone"
        }
        yield _counter(
            "triolet_client_disconnects",
            "Model calls whose client left before the end.",
            ("model",),
            gone,
        )
        yield from self._histograms()
        yield from self._gauges()
        yield from self._edge_families()

    def _histograms(self) -> Iterator[Metric]:
        per_replica = ("model", "replica")
        yield _histogram(
            "triolet_time_to_first_token_seconds",
            "From a request's arrival to its first event from the replica.",
            per_replica,
            self._ttft,
        )
        yield _histogram(
            "triolet_inter_token_latency_seconds",
            "Mean gap between the tokens of one stream after the first (GenAI-Perf's ITL).",
            per_replica,
            self._itl,
        )
        yield _histogram(
            "triolet_request_duration_seconds",
            "From a request's arrival to the end of its answer.",
            per_replica,
            self._duration,
        )
        yield _histogram(
            "triolet_queue_seconds",
            "Time spent waiting for a replica with room.",
            ("model",),
            self._queue,
        )
        yield _histogram(
            "triolet_loop_busy_seconds",
            "Length of one pass of the event loop: the delay everything else feels.",
            (),
            {(): self._loop_busy},
        )

    def _gauges(self) -> Iterator[Metric]:
        now = trio.current_time()
        replicas = [replica.statistics(now) for replica in self._catalog.replicas]
        pools = [pool.statistics() for pool in self._catalog.pools.values()]
        for name, text, values in (
            ("up", "Whether the replica is up (1) or not (0).", [r.up for r in replicas]),
            ("in_flight", "Requests at the replica now.", [r.in_flight for r in replicas]),
            (
                "idle_connections",
                "Connections to the replica that are kept for later.",
                [r.idle_connections for r in replicas],
            ),
        ):
            names = [(replica.name,) for replica in replicas]
            yield _gauge(
                f"triolet_replica_{name}", text, ("replica",), zip(names, values, strict=True)
            )
        models = [(pool.model,) for pool in pools]
        for name, text, values in (
            ("in_flight", "Requests at the pool's replicas now.", [p.in_flight for p in pools]),
            ("waiting", "Requests waiting for a replica now.", [p.waiting for p in pools]),
            ("replicas_up", "Replicas of the pool that are up.", [p.up for p in pools]),
        ):
            yield _gauge(f"triolet_pool_{name}", text, ("model",), zip(models, values, strict=True))

    def _edge_families(self) -> Iterator[Metric]:
        refused: Counter[tuple[str, ...]] = Counter()
        edges = [counts() for counts in self.edges]
        for edge in edges:
            refused.update({(str(status),): count for status, count in edge.refused.items()})
        yield _gauge(
            "triolet_edge_connections",
            "Client connections open now.",
            (),
            [((), sum(edge.connections for edge in edges))],
        )
        yield _counter(
            "triolet_edge_accepted",
            "Client connections accepted.",
            (),
            {(): sum(edge.accepted for edge in edges)},
        )
        yield _counter(
            "triolet_edge_turned_away",
            "Client connections refused at accept, over limits.connections.",
            (),
            {(): sum(edge.turned_away for edge in edges)},
        )
        yield _counter(
            "triolet_edge_refused",
            "Requests refused before they reached an API, by status.",
            ("status",),
            refused,
        )
        yield _counter(
            "triolet_log_lines_dropped",
            "Log lines lost because their reader was too slow.",
            (),
            {(): self._log_dropped()},
        )


class _Collected(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _observe(
    families: _Families, key: tuple[str, ...], bounds: tuple[float, ...], value: float
) -> None:
    histogram = families.get(key)
    if histogram is None:
        histogram = families[key] = Histogram(bounds)
    histogram.observe(value)


_Values = Iterable[tuple[tuple[str, ...], float]]


def _counter(
    name: str, text: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], int]
) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _gauge(name: str, text: str, labels: tuple[str, ...], values: _Values) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values:
        family.add_metric(key, float(value))
    return family


def _histogram(name: str, text: str, labels: tuple[str, ...], values: _Families) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for key, histogram in values.items():
        family.add_metric(key, buckets=histogram.cumulative(), sum_value=histogram.total)
    return family
