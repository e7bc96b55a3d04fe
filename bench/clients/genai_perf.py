"""GenAI-Perf: its command line for our load, and its `profile_export_genai_perf.json`.

It cannot stream sessions of several turns (its engine stops with a parse error), so the load that
is compared has one turn a session.
"""

from __future__ import annotations

from pathlib import Path

from bench.clients.aiperf import times_of
from bench.clients.readings import number, optional_number, read_json
from bench.clients.result import ClientFailed, Load, Result

__all__ = ["NAME", "genai_perf_command", "read_genai_perf"]

NAME = "genai-perf"
_FILE = "profile_export_genai_perf.json"


def genai_perf_command(program: Path, load: Load, url: str, tokenizer: str, out: Path) -> list[str]:
    """One run; from the mean of the output tokens it makes `max_tokens`."""
    return [
        *(str(program), "profile", "--model", load.model, "--url", url),
        *("--endpoint-type", "chat", "--streaming", "--tokenizer", tokenizer),
        *("--concurrency", str(load.concurrency)),
        *("--request-count", str(load.requests)),
        *("--warmup-request-count", str(load.warmup_requests)),
        *("--synthetic-input-tokens-mean", str(load.input_tokens)),
        *("--synthetic-input-tokens-stddev", "0", "--num-dataset-entries", str(load.requests)),
        *("--output-tokens-mean", str(load.output_tokens), "--output-tokens-stddev", "0"),
        *("--extra-inputs", "ignore_eos:true"),
        *("--random-seed", str(load.seed), "--artifact-dir", str(out)),
    ]


def read_genai_perf(out: Path, asked: int) -> Result:
    """The result of the run of `asked` requests that wrote below `out`.

    It drops failed requests without a word, so whatever is missing counts as failed here.
    Raises ClientFailed if there is no result.
    """
    files = sorted(out.rglob(_FILE))
    if len(files) != 1:
        raise ClientFailed(f"{out}: expected one {_FILE}, found {len(files)}")
    content = read_json(files[0])
    counted = int(number(content, "request_count", "avg"))
    sent = max(asked, counted)
    return Result(
        client=NAME,
        sent=sent,
        errors=sent - counted,
        times=times_of(content),
        tokens_per_s=optional_number(content, "output_token_throughput", "avg"),
        requests_per_s=optional_number(content, "request_throughput", "avg"),
        output_tokens_avg=optional_number(content, "output_sequence_length", "avg"),
    )
