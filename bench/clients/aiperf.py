"""AIPerf: its command line for our load, and its `profile_export_aiperf.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.clients.readings import number, optional_number, read_json
from bench.clients.result import ClientFailed, Load, Result, Times

__all__ = ["NAME", "aiperf_command", "read_aiperf", "times_of"]

NAME = "aiperf"
_FILE = "profile_export_aiperf.json"


def aiperf_command(program: Path, load: Load, url: str, tokenizer: str, out: Path) -> list[str]:
    """One run. Offline AIPerf takes `tokenizer` by its name in the hub's cache, not by its path."""
    return [
        *(str(program), "profile", "--model", load.model, "--url", url),
        *("--endpoint-type", "chat", "--streaming", "--tokenizer", tokenizer),
        *("--concurrency", str(load.concurrency)),
        *("--request-count", str(load.requests)),
        *("--warmup-request-count", str(load.warmup_requests)),
        *("--synthetic-input-tokens-mean", str(load.input_tokens)),
        *("--synthetic-input-tokens-stddev", "0"),
        *("--output-tokens-mean", str(load.output_tokens), "--output-tokens-stddev", "0"),
        *("--extra-inputs", "ignore_eos:true", "--random-seed", str(load.seed)),
        *("--ui", "none", "--artifact-dir", str(out)),
    ]


def read_aiperf(out: Path) -> Result:
    """The result of the run that wrote into `out`. Warm-up is kept apart by AIPerf itself.

    Raises ClientFailed if there is none, or the run was cancelled.
    """
    content = read_json(out / _FILE)
    if content.get("was_cancelled"):
        raise ClientFailed(f"{out / _FILE}: the run was cancelled")
    completed = int(number(content, "completed_request_count", "avg"))
    succeeded = int(optional_number(content, "request_count", "avg") or 0)
    return Result(
        client=NAME,
        sent=completed,
        errors=completed - succeeded,
        times=times_of(content),
        tokens_per_s=optional_number(content, "output_token_throughput", "avg"),
        requests_per_s=optional_number(content, "request_throughput", "avg"),
        output_tokens_avg=optional_number(content, "output_sequence_length", "avg"),
        remarks=_remarks(content),
    )


def times_of(content: Any) -> Times:
    """The times in a file of AIPerf's, GenAI-Perf's or ours: all three use the same names."""

    def get(metric: str, statistic: str) -> float | None:
        return optional_number(content, metric, statistic)

    return Times(
        ttft_avg_ms=get("time_to_first_token", "avg"),
        ttft_p50_ms=get("time_to_first_token", "p50"),
        ttft_p99_ms=get("time_to_first_token", "p99"),
        itl_avg_ms=get("inter_token_latency", "avg"),
        itl_p50_ms=get("inter_token_latency", "p50"),
        latency_avg_ms=get("request_latency", "avg"),
        latency_p50_ms=get("request_latency", "p50"),
        latency_p99_ms=get("request_latency", "p99"),
    )


def _remarks(content: Any) -> tuple[str, ...]:
    late_ms = optional_number(content, "credit_to_start_latency", "p99")
    remarks = [] if late_ms is None else [f"requests left up to {late_ms:.1f} ms late (p99)"]
    differing = optional_number(content, "usage_discrepancy_count", "avg")
    if differing:
        remarks.append(f"its token count differs from the server's in {differing:.0f} requests")
    return tuple(remarks)
