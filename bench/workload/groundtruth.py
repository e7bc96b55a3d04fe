"""What real vLLM engines did with a known workload, request by request: to validate a simulator."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from bench.workload.data import bundled
from bench.workload.lines import parsed_lines
from bench.workload.model import Workload
from bench.workload.traces.columns import column_reader
from bench.workload.traces.mooncake import mooncake
from bench.workload.traces.options import TraceOptions

__all__ = [
    "GROUND_TRUTH_RUNS",
    "EngineSample",
    "LinearStep",
    "MeasuredRequest",
    "MeasuredRun",
    "ground_truth_workload",
    "linear_steps",
    "measured_run",
]

GROUND_TRUTH_RUNS = ("rtx4090", "rtxpro6000")


class RunSettings(msgspec.Struct, frozen=True):
    """The engine's settings; None where the run's record does not say."""

    device: str
    model: str
    engine: str
    dtype: str
    tensor_parallel_size: int
    max_num_seqs: int
    max_num_batched_tokens: int
    started_at: str
    finished_at: str
    max_model_len: int | None = None
    enable_chunked_prefill: bool | None = None
    enable_prefix_caching: bool | None = None
    scheduler_reserve_full_isl: bool | None = None
    async_scheduling: bool | None = None
    block_size: int | None = None
    num_gpu_blocks: int | None = None
    gpu_memory_utilization: float | None = None


class MeasuredRequest(NamedTuple):
    """One request, in the order of the workload. Seconds on the engine's clock, from the moment
    the first request was queued."""

    input_tokens: int
    output_tokens: int
    queued_s: float
    scheduled_s: float
    """When it was first in a batch."""
    first_token_s: float
    last_token_s: float


class EngineSample(NamedTuple):
    """The engine's own log, once a second."""

    at_s: float
    prompt_tokens_per_s: float
    output_tokens_per_s: float
    running: int
    waiting: int
    kv_cache_percent: float


class MeasuredRun(NamedTuple):
    """One run of the 300 requests of `ground_truth_workload`."""

    name: str
    settings: RunSettings
    requests: tuple[MeasuredRequest, ...]
    samples: tuple[EngineSample, ...]


class LinearStep(NamedTuple):
    """Time of all linear layers of a 32-layer model for one step."""

    gpu: str
    model: str
    tokens: int
    step_ms: float


class _Stamps(msgspec.Struct):
    input_toks: int
    output_toks: int
    queued_ts: float
    scheduled_ts: float
    first_token_ts: float
    last_token_ts: float


def measured_run(name: str) -> MeasuredRun:
    """The run called `name` in `GROUND_TRUTH_RUNS`.

    Raises:
        ValueError: there is no such run.
    """
    if name not in GROUND_TRUTH_RUNS:
        raise ValueError(f"no run is called {name!r}; there are {', '.join(GROUND_TRUTH_RUNS)}")
    with bundled("runs").open("rb") as file:
        settings = msgspec.json.decode(file.read(), type=dict[str, RunSettings])[name]
    return MeasuredRun(name, settings, _requests(name), _samples(name))


def ground_truth_workload() -> Workload:
    """What the runs were fed: 300 ShareGPT requests, Poisson arrivals at 10 a second."""
    return mooncake(bundled("sharegpt300"), TraceOptions(jitter_s=0))


def linear_steps() -> tuple[LinearStep, ...]:
    """Vidur's measured step times of linear layers, on A100 and H100."""
    values = column_reader(("gpu", "model", "num_tokens", "linear_step_ms_32_layers"))
    rows = parsed_lines(bundled("vidur-linear-step"), values)
    return tuple(LinearStep(gpu, model, int(n), float(ms)) for gpu, model, n, ms in rows)


def _requests(run: str) -> tuple[MeasuredRequest, ...]:
    decode = msgspec.json.Decoder(_Stamps).decode
    stamps = list(parsed_lines(bundled(f"{run}-requests"), decode))
    begun_s = min(each.queued_ts for each in stamps)
    return tuple(
        MeasuredRequest(
            each.input_toks,
            each.output_toks,
            each.queued_ts - begun_s,
            each.scheduled_ts - begun_s,
            each.first_token_ts - begun_s,
            each.last_token_ts - begun_s,
        )
        for each in stamps
    )


def _samples(run: str) -> tuple[EngineSample, ...]:
    values = column_reader(
        ("t", "prompt_throughput", "gen_throughput", "running", "waiting", "kv_cache_pct")
    )
    rows = parsed_lines(bundled(f"{run}-timeseries"), values)
    return tuple(
        EngineSample(float(t), float(p), float(g), int(running), int(waiting), float(kv))
        for t, p, g, running, waiting, kv in rows
    )
