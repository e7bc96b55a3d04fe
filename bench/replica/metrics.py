"""The replica's counters in Prometheus' text form, under the names vLLM gives them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from bench.replica.blocks import BLOCK_TOKENS
from bench.replica.core import Core, CoreLoad
from bench.replica.stats import EngineStats, Histogram

__all__ = ["CONTENT_TYPE", "EngineMetrics"]

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_LABELS: Final = ("model_name", "engine")
_OLD_NAMES: Final = {
    "kv_cache_usage_perc": "gpu_cache_usage_perc",
    "prefix_cache_queries": "gpu_prefix_cache_queries",
    "prefix_cache_hits": "gpu_prefix_cache_hits",
    "inter_token_latency_seconds": "time_per_output_token_seconds",
}
"""As vLLM had them before 0.9.2, and the last one before 0.11."""


class EngineMetrics(Collector):
    """Reads a core when it is scraped; between scrapes it costs nothing."""

    def __init__(self, core: Core, model: str, *, old_names: bool = False) -> None:
        self._core = core
        self._values = (model, "0")
        self._names = _OLD_NAMES if old_names else {}

    def render(self) -> bytes:
        """The whole page, to be sent as `CONTENT_TYPE`."""
        return generate_latest(self)

    def collect(self) -> Iterable[Metric]:
        load, stats = self._core.load(), self._core.stats
        yield from self._gauges(load)
        yield from self._counters(load, stats)
        yield self._success(stats)
        for name, text, histogram in _histograms(stats):
            yield self._histogram(name, text, histogram)

    def _gauges(self, load: CoreLoad) -> Iterator[Metric]:
        for name, text, value in (
            ("num_requests_running", "Simulated requests that are running.", load.running),
            ("num_requests_waiting", "Simulated requests that wait to run.", load.waiting),
            ("kv_cache_usage_perc", "Simulated KV cache in use; 1 is all.", load.kv_usage),
        ):
            gauge = GaugeMetricFamily(self._name(name), text, labels=_LABELS)
            gauge.add_metric(self._values, value)
            yield gauge
        info = GaugeMetricFamily(
            "vllm:cache_config_info",
            "The simulated KV cache.",
            labels=("block_size", "num_gpu_blocks", "engine"),
        )
        info.add_metric((str(BLOCK_TOKENS), str(load.kv_blocks), "0"), 1)
        yield info

    def _counters(self, load: CoreLoad, stats: EngineStats) -> Iterator[Metric]:
        for name, text, value in (
            ("prompt_tokens", "Prompt tokens taken in.", stats.prompt_tokens),
            ("generation_tokens", "Tokens made.", stats.generation_tokens),
            ("prefix_cache_queries", "Prompt tokens looked up.", load.cache_queries),
            ("prefix_cache_hits", "Prompt tokens found.", load.cache_hits),
            ("num_preemptions", "Requests put back for lack of memory.", load.preemptions),
        ):
            counter = CounterMetricFamily(self._name(name), text, labels=_LABELS)
            counter.add_metric(self._values, value)
            yield counter

    def _success(self, stats: EngineStats) -> Metric:
        success = CounterMetricFamily(
            "vllm:request_success",
            "Requests by how they ended.",
            labels=(*_LABELS, "finished_reason"),
        )
        for reason, requests in stats.finished.items():
            success.add_metric((*self._values, reason.value), requests)
        return success

    def _histogram(self, name: str, text: str, histogram: Histogram) -> Metric:
        bounds = [*map(str, histogram.bounds), "+Inf"]
        buckets = [*zip(bounds, map(float, accumulate(histogram.counts)), strict=True)]
        family = HistogramMetricFamily(self._name(name), text, labels=_LABELS)
        family.add_metric(self._values, buckets, histogram.sum)
        return family

    def _name(self, name: str) -> str:
        return f"vllm:{self._names.get(name, name)}"


def _histograms(stats: EngineStats) -> Iterator[tuple[str, str, Histogram]]:
    yield "time_to_first_token_seconds", "Time to first token.", stats.ttft_s
    yield "inter_token_latency_seconds", "Time between tokens.", stats.itl_s
    yield "request_time_per_output_token_seconds", "Its mean per request.", stats.tpot_s
    yield "e2e_request_latency_seconds", "Whole requests.", stats.e2e_s
    yield "request_queue_time_seconds", "Until a request is scheduled.", stats.queue_s
    yield "request_prefill_time_seconds", "From then to the first token.", stats.prefill_s
    yield "request_decode_time_seconds", "From then to the last token.", stats.decode_s
    yield "request_inference_time_seconds", "Prefill and decode.", stats.inference_s
