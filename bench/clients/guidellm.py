"""GuideLLM: its command line for our load, and its JSON report.

Of its two times per token `inter_token_latency_ms` is what the others call inter-token latency.
`time_per_output_token_ms` is the whole latency over all tokens, so it includes the time to the
first one; it is not read. Its request latency ends with the stream and is given in seconds.

Its requests per second are the answers that ended within the measured time, also those that began
before it: too many by up to one round. Its tokens per second are counted token by token, so the
requests per second are taken from them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.clients.readings import number, optional_number, read_json
from bench.clients.result import ClientFailed, Load, Result, Times

__all__ = ["NAME", "guidellm_command", "read_guidellm"]

NAME = "guidellm"
_FILE = "benchmarks.json"


def guidellm_command(program: Path, load: Load, url: str, tokenizer: str, out: Path) -> list[str]:
    """One run. Warm-up requests are counted into `max_requests`.

    Its check of the server asks for `/health`, which only some servers have, so it is left out.
    """
    count = load.requests + load.warmup_requests
    lengths = f"prompt_tokens={load.input_tokens},output_tokens={load.output_tokens}"
    return [
        *(str(program), "run"),
        "--backend",
        f"kind=openai_http,target={url},model={load.model},validate_backend=false",
        "--profile",
        f"kind=concurrent,streams={load.concurrency},warmup={load.warmup_requests}",
        *("--constraint", f"kind=max_requests,count={count}"),
        *("--tokenizer", f"kind=huggingface_auto,model={tokenizer}"),
        *("--data", f"kind=synthetic_text,{lengths}"),
        *("--seed", f"kind=static,value={load.seed}"),
        *("--output", f"kind=json,path={out / _FILE}"),
        "--disable-console-interactive",
    ]


def read_guidellm(out: Path) -> Result:
    """The result of the run that wrote into `out`. Raises ClientFailed if there is none."""
    content = read_json(out / _FILE)
    try:
        benchmark = content["benchmarks"][0]
        metrics, totals = benchmark["metrics"], benchmark["metrics"]["request_totals"]
    except (KeyError, IndexError, TypeError) as error:
        raise ClientFailed(f"{out / _FILE}: not a GuideLLM report: no {error}") from error
    tokens_per_s = _mean(metrics, "output_tokens_per_second")
    length = _mean(metrics, "output_token_count")
    return Result(
        client=NAME,
        sent=int(number(totals, "total")),
        errors=int(number(totals, "errored") + number(totals, "incomplete")),
        times=_times(metrics),
        tokens_per_s=tokens_per_s,
        requests_per_s=tokens_per_s / length if tokens_per_s and length else None,
        output_tokens_avg=length,
        remarks=tuple(str(warning.get("message")) for warning in benchmark.get("warnings") or ()),
    )


def _mean(metrics: Any, metric: str) -> float | None:
    return optional_number(metrics, metric, "successful", "mean")


def _times(metrics: Any) -> Times:
    def get(metric: str, *statistic: str, scale: float = 1) -> float | None:
        value = optional_number(metrics, metric, "successful", *statistic)
        return None if value is None else value * scale

    return Times(
        ttft_avg_ms=get("time_to_first_token_ms", "mean"),
        ttft_p50_ms=get("time_to_first_token_ms", "median"),
        ttft_p99_ms=get("time_to_first_token_ms", "percentiles", "p99"),
        itl_avg_ms=get("inter_token_latency_ms", "mean"),
        itl_p50_ms=get("inter_token_latency_ms", "median"),
        latency_avg_ms=get("request_latency", "mean", scale=1e3),
        latency_p50_ms=get("request_latency", "median", scale=1e3),
        latency_p99_ms=get("request_latency", "percentiles", "p99", scale=1e3),
    )
