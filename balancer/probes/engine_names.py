"""What each engine calls its load in Prometheus' form: a table, from the engines' sources.

Of several rows for one field the first that the page can fill is taken: newer names stand before
older ones. Where an engine shares one page among ranks of data parallelism, a label tells them
apart (`ranks`); within a rank the same gauge may appear once for each tensor-parallel worker.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

__all__ = ["ENGINES", "Engine", "Field", "Row", "Source"]

Field = Literal[
    "running",
    "waiting",
    "kv_share",
    "kv_tokens",
    "max_running",
    "occupancy",
    "cached_tokens",
    "prompt_tokens",
    "started_at",
]


class Source(NamedTuple):
    """Where one number stands: the value of a series, or one of its labels."""

    name: bytes
    label: str | None = None
    """Take the number in this label; the value of such a series is always 1."""
    where: tuple[str, str] | None = None
    """Only series with this label of this value."""


class Row(NamedTuple):
    """One way to fill one field."""

    field: Field
    sources: tuple[Source, ...]
    """All must be there: a row that lacks one fills nothing."""
    versions: str
    """Which versions of the engine have it, as far as its sources tell."""
    times: bool = False
    """The sources are multiplied; else added."""
    scale: float = 1.0
    """From the engine's unit to that of `Gauges`."""


class Engine(NamedTuple):
    """How one engine is known by its page, and read."""

    name: str
    prefix: bytes
    """At the beginning of a line it tells the engine."""
    ranks: str
    """The label that tells ranks of data parallelism apart; empty where there are none."""
    rows: tuple[Row, ...]


def _one(
    field: Field,
    name: bytes,
    versions: str,
    *,
    label: str | None = None,
    where: tuple[str, str] | None = None,
    scale: float = 1.0,
) -> Row:
    return Row(field, (Source(name, label, where),), versions, scale=scale)


_STARTED: Final = _one(
    "started_at", b"process_start_time_seconds", "where one process writes the page"
)
"""Of the Python client; missing when several processes share a page."""

_CONFIG: Final = b"vllm:cache_config_info"
# `num_requests_waiting_by_reason` and the like are names of their own and never added.
# `gpu_` went with 0.9 (old names hidden from 0.10 on). `max_num_seqs` is not exposed.
_VLLM: Final = Engine(
    "vllm",
    b"vllm:",
    "engine",
    (
        _one("running", b"vllm:num_requests_running", "all"),
        _one("waiting", b"vllm:num_requests_waiting", "all"),
        _one("kv_share", b"vllm:kv_cache_usage_perc", "0.9.2 on; 0 to 1 in spite of its name"),
        _one("kv_share", b"vllm:gpu_cache_usage_perc", "to 0.10"),
        _one(
            "kv_tokens",
            _CONFIG,
            "recent; the word None where it is not set",
            label="kv_cache_size_tokens",
        ),
        Row(
            "kv_tokens",
            (Source(_CONFIG, "num_gpu_blocks"), Source(_CONFIG, "block_size")),
            "all; num_gpu_blocks is the word None in some releases",
            times=True,
        ),
        _one("cached_tokens", b"vllm:prefix_cache_hits_total", "0.9.2 on"),
        _one("cached_tokens", b"vllm:prefix_cache_hits", "0.9.2 on, through Ray"),
        _one("cached_tokens", b"vllm:gpu_prefix_cache_hits_total", "0.7 to 0.10"),
        _one("prompt_tokens", b"vllm:prefix_cache_queries_total", "0.9.2 on"),
        _one("prompt_tokens", b"vllm:prefix_cache_queries", "0.9.2 on, through Ray"),
        _one("prompt_tokens", b"vllm:gpu_prefix_cache_queries_total", "0.7 to 0.10"),
        _STARTED,
    ),
)

# With --enable-metrics. Tensor-parallel workers write the same gauges with another `tp_rank` under
# --enable-metrics-for-all-schedulers, and a queue by priority repeats its total.
# `token_usage` is the fullest of its pools (KV, sliding window, Mamba): the one that binds.
_SGLANG: Final = Engine(
    "sglang",
    b"sglang:",
    "dp_rank",
    (
        _one("running", b"sglang:num_running_reqs", "all"),
        _one("waiting", b"sglang:num_queue_reqs", "all"),
        _one("kv_share", b"sglang:token_usage", "all; 0 to 1"),
        _one("kv_tokens", b"sglang:max_total_num_tokens", "recent"),
        Row(
            "kv_tokens",
            (Source(b"sglang:num_pages"), Source(b"sglang:page_size")),
            "recent",
            times=True,
        ),
        _one(
            "occupancy",
            b"sglang:fwd_occupancy",
            "recent; percent, NaN where not measured",
            scale=0.01,
        ),
        _one("cached_tokens", b"sglang:cached_tokens_total", "all; recent ones by cache_source"),
        _one("prompt_tokens", b"sglang:prompt_tokens_total", "all"),
        _STARTED,
    ),
)

# With --metrics. `prompt_tokens_total` leaves out what came from the cache.
_LLAMACPP: Final = Engine(
    "llama.cpp",
    b"llamacpp:",
    "",
    (
        _one("running", b"llamacpp:requests_processing", "all"),
        _one("waiting", b"llamacpp:requests_deferred", "all"),
        _one("kv_share", b"llamacpp:kv_cache_usage_ratio", "old; 0 to 1"),
        _one("cached_tokens", b"llamacpp:prompt_tokens_cached_total", "recent"),
        Row(
            "prompt_tokens",
            (
                Source(b"llamacpp:prompt_tokens_total"),
                Source(b"llamacpp:prompt_tokens_cached_total"),
            ),
            "recent",
        ),
        _one("prompt_tokens", b"llamacpp:prompt_tokens_total", "all"),
    ),
)

# Of its KV cache nothing is told.
_TGI: Final = Engine(
    "tgi",
    b"tgi_",
    "",
    (
        _one("running", b"tgi_batch_current_size", "all"),
        _one("waiting", b"tgi_queue_size", "all"),
        _one("prompt_tokens", b"tgi_request_input_length_sum", "all"),
    ),
)

# trtllm-serve with `return_perf_metrics`, at /prometheus/metrics.
_TRTLLM: Final = Engine(
    "tensorrt-llm",
    b"trtllm_",
    "",
    (
        _one("running", b"trtllm_num_requests_running", "after 1.1"),
        _one("waiting", b"trtllm_num_requests_waiting", "after 1.1"),
        _one("kv_share", b"trtllm_kv_cache_utilization", "after 1.1; 0 to 1"),
        Row(
            "kv_tokens",
            (
                Source(b"trtllm_kv_cache_max_blocks"),
                Source(b"trtllm_kv_cache_tokens_per_block"),
            ),
            "after 1.1",
            times=True,
        ),
        _one("max_running", b"trtllm_max_batch_size_runtime", "after 1.1"),
        _one("max_running", b"trtllm_max_batch_size_static", "after 1.1"),
        _one("cached_tokens", b"trtllm_prompt_cached_tokens_total", "recent"),
        _one("prompt_tokens", b"trtllm_prompt_tokens_total", "after 1.1"),
        _STARTED,
    ),
)

_REQUESTS: Final = b"nv_trt_llm_request_metrics"
_BLOCKS: Final = b"nv_trt_llm_kv_cache_block_metrics"
# The TensorRT-LLM backend of Triton, on a port of its own (8002).
_TRITON: Final = Engine(
    "triton",
    b"nv_",
    "",
    (
        _one("running", _REQUESTS, "23.11 on", where=("request_type", "scheduled")),
        _one("waiting", _REQUESTS, "24.01 on", where=("request_type", "waiting")),
        _one("waiting", b"nv_inference_pending_request_count", "any backend"),
        _one("kv_share", _BLOCKS, "24.01 on; 0 to 1", where=("kv_cache_block_type", "fraction")),
        Row(
            "kv_tokens",
            (
                Source(_BLOCKS, where=("kv_cache_block_type", "max")),
                Source(_BLOCKS, where=("kv_cache_block_type", "tokens_per")),
            ),
            "23.11 on",
            times=True,
        ),
        _one("max_running", _REQUESTS, "23.11 on", where=("request_type", "max")),
    ),
)

ENGINES: Final = (_VLLM, _SGLANG, _LLAMACPP, _TGI, _TRTLLM, _TRITON)
