"""The replica's counters in Prometheus' text form, under the names vLLM gives them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from bench.replica.engine import KV_BLOCK_TOKENS, Engine
from bench.replica.stats import Histogram

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_LABELS = ("model_name", "engine")


class EngineMetrics(Collector):
    """Reads an engine when it is scraped; between scrapes it costs nothing."""

    def __init__(self, engine: Engine, model: str) -> None:
        self._engine = engine
        self._values = (model, "0")

    def render(self) -> bytes:
        """The whole page, to be sent as `CONTENT_TYPE`."""
        return generate_latest(self)

    def collect(self) -> Iterable[Metric]:
        yield from self._gauges()
        yield from self._counters()
        stats = self._engine.stats
        yield self._histogram("time_to_first_token_seconds", "Time to first token.", stats.ttft_s)
        yield self._histogram("inter_token_latency_seconds", "Time between tokens.", stats.itl_s)
        yield self._histogram("e2e_request_latency_seconds", "Whole requests.", stats.e2e_s)

    def _gauges(self) -> Iterator[Metric]:
        now = self._engine.statistics()
        for name, text, value in (
            ("num_requests_running", "Simulated requests that are running.", now.running),
            ("num_requests_waiting", "Simulated requests that wait to run.", now.waiting),
            ("kv_cache_usage_perc", "Pretended KV cache in use; 1 is all.", now.kv_cache_usage),
        ):
            gauge = GaugeMetricFamily(f"vllm:{name}", text, labels=_LABELS)
            gauge.add_metric(self._values, value)
            yield gauge
        info = GaugeMetricFamily(
            "vllm:cache_config_info",
            "The pretended KV cache.",
            labels=("block_size", "num_gpu_blocks", "engine"),
        )
        info.add_metric((str(KV_BLOCK_TOKENS), str(self._engine.kv_blocks), "0"), 1)
        yield info

    def _counters(self) -> Iterator[Metric]:
        stats = self._engine.stats
        for name, text, value in (
            ("prompt_tokens", "Prompt tokens taken in.", stats.prompt_tokens),
            ("generation_tokens", "Tokens made.", stats.generation_tokens),
            ("prefix_cache_queries", "Prompt tokens looked up.", stats.prefix_cache_queries),
            ("prefix_cache_hits", "Prompt tokens found; none.", stats.prefix_cache_hits),
        ):
            counter = CounterMetricFamily(f"vllm:{name}", text, labels=_LABELS)
            counter.add_metric(self._values, value)
            yield counter
        success = CounterMetricFamily(
            "vllm:request_success",
            "Requests by how they ended.",
            labels=(*_LABELS, "finished_reason"),
        )
        for reason, requests in stats.finished.items():
            success.add_metric((*self._values, reason), requests)
        yield success

    def _histogram(self, name: str, text: str, histogram: Histogram) -> Metric:
        bounds = [*map(str, histogram.bounds), "+Inf"]
        buckets = [*zip(bounds, map(float, accumulate(histogram.counts)), strict=True)]
        family = HistogramMetricFamily(f"vllm:{name}", text, labels=_LABELS)
        family.add_metric(self._values, buckets, histogram.sum)
        return family
