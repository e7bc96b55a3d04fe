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
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from balancer.catalog import Catalog
from server.observe.families import Histograms, counter, gauge, histogram, observe
from server.observe.histogram import Histogram
from server.observe.pool_metrics import pool_families
from server.observe.record import Record
from server.observe.routing_metrics import RoutingMetrics

__all__ = ["CONTENT_TYPE", "EdgeCounts", "Metrics"]

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_TTFT_S: Final = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5)
_TTFT_S_ALL: Final = (*_TTFT_S, 10, 20, 40, 80, 160)
_ITL_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.2, 0.5, 1)
_DURATION_S: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48)
_DURATION_S_ALL: Final = (*_DURATION_S, 40.96, 81.92, 163.84, 327.68, 655.36)
_QUEUE_S: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60)


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
        self._ttft: Histograms = {}
        self._itl: Histograms = {}
        self._duration: Histograms = {}
        self._queue: Histograms = {}
        self._gone: set[str] = set()
        """Replicas that were in no pool when it was scraped last."""
        self._routing = RoutingMetrics()
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
            observe(self._duration, key, _DURATION_S_ALL, record.duration_s)
        if record.ttft_s is not None:
            observe(self._ttft, key, _TTFT_S_ALL, record.ttft_s)
        if record.itl_s is not None:
            observe(self._itl, key, _ITL_S, record.itl_s)
        if record.queued_s is not None:
            observe(self._queue, (model,), _QUEUE_S, record.queued_s)
        if record.usage is not None:
            self._count_tokens(model, record)
        self._routing.settle(record)

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
        self._forget_gone()
        registry = CollectorRegistry()
        registry.register(_Collected([*self.families()]))
        registry.register(self._process)  # goes through /proc, which is for the thread too
        return await trio.to_thread.run_sync(generate_latest, registry, limiter=self._renderers)

    def _forget_gone(self) -> None:
        """Drop the series of replicas that are in no pool, once their last counts were scraped."""
        per_replica = (self._ttft, self._itl, self._duration)
        here = {replica.name for replica in self._catalog.replicas}
        gone = {replica for family in per_replica for _, replica in family} - here
        for family in per_replica:
            for key in [key for key in family if key[1] in gone & self._gone]:
                del family[key]
        self._gone = gone - self._gone

    def families(self) -> Iterator[Metric]:
        """Every metric of ours, as it is now."""
        yield counter(
            "triolet_requests",
            "Model calls ended, by outcome.",
            ("model", "outcome"),
            self._requests,
        )
        yield counter(
            "triolet_attempts_failed",
            "Tries at one replica that failed before the first event, by kind.",
            ("model", "kind"),
            self._failed,
        )
        yield counter(
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
        yield counter(
            "triolet_client_disconnects",
            "Model calls whose client left before the end.",
            ("model",),
            gone,
        )
        yield from self._histograms()
        yield from self._routing.families()
        yield from pool_families(self._catalog, trio.current_time())
        yield from self._edge_families()

    def _histograms(self) -> Iterator[Metric]:
        per_replica = ("model", "replica")
        yield histogram(
            "triolet_time_to_first_token_seconds",
            "From a request's arrival to its first event from the replica.",
            per_replica,
            self._ttft,
        )
        yield histogram(
            "triolet_inter_token_latency_seconds",
            "Mean gap between the tokens of one stream after the first (GenAI-Perf's ITL).",
            per_replica,
            self._itl,
        )
        yield histogram(
            "triolet_request_duration_seconds",
            "From a request's arrival to the end of its answer.",
            per_replica,
            self._duration,
        )
        yield histogram(
            "triolet_queue_seconds",
            "Time spent waiting for a replica with room.",
            ("model",),
            self._queue,
        )
        yield histogram(
            "triolet_loop_busy_seconds",
            "Length of one pass of the event loop: the delay everything else feels.",
            (),
            {(): self._loop_busy},
        )

    def _edge_families(self) -> Iterator[Metric]:
        refused: Counter[tuple[str, ...]] = Counter()
        edges = [counts() for counts in self.edges]
        for edge in edges:
            refused.update({(str(status),): count for status, count in edge.refused.items()})
        yield gauge(
            "triolet_edge_connections",
            "Client connections open now.",
            (),
            [((), sum(edge.connections for edge in edges))],
        )
        yield counter(
            "triolet_edge_accepted",
            "Client connections accepted.",
            (),
            {(): sum(edge.accepted for edge in edges)},
        )
        yield counter(
            "triolet_edge_turned_away",
            "Client connections refused at accept, over limits.connections.",
            (),
            {(): sum(edge.turned_away for edge in edges)},
        )
        yield counter(
            "triolet_edge_refused",
            "Requests refused before they reached an API, by status.",
            ("status",),
            refused,
        )
        yield counter(
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
