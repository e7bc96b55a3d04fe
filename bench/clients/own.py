"""`triolet bench` as one of the clients, run as a user runs it: a process and its files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from bench.clients.aiperf import times_of
from bench.clients.readings import number, optional_number, read_json
from bench.clients.result import ClientFailed, Load, Result

__all__ = ["NAME", "own_command", "read_own"]

NAME = "triolet bench"
_FILE = "profile_export_aiperf.json"
# Whatever the command is called among those of `python -m bench`.
_START = "from bench.load.command import load; load(prog_name='triolet bench')"


def own_command(load: Load, url: str, out: Path) -> list[str]:
    """One run."""
    return [
        *(sys.executable, "-c", _START, "--model", load.model, "--url", url),
        *("--endpoint-type", "chat", "--streaming"),
        *("--concurrency", str(load.concurrency)),
        *("--request-count", str(load.requests)),
        *("--warmup-request-count", str(load.warmup_requests)),
        *("--synthetic-input-tokens-mean", str(load.input_tokens)),
        *("--synthetic-input-tokens-stddev", "0"),
        # As many different prompts as requests, so that none can be in a cache.
        *("--num-dataset-entries", str(load.requests + load.warmup_requests)),
        *("--output-tokens-mean", str(load.output_tokens), "--output-tokens-stddev", "0"),
        *("--extra-inputs", "ignore_eos:true", "--random-seed", str(load.seed)),
        *("--ui", "none", "--artifact-dir", str(out)),
    ]


def read_own(out: Path) -> Result:
    """The result of the run that wrote into `out`. Raises ClientFailed if there is none."""
    content = read_json(out / _FILE)
    if content.get("was_cancelled"):
        raise ClientFailed(f"{out / _FILE}: the run was cancelled")
    sent = int(number(content, "sent_request_count", "avg"))
    return Result(
        client=NAME,
        sent=sent,
        errors=sent - int(optional_number(content, "request_count", "avg") or 0),
        times=times_of(content),
        tokens_per_s=optional_number(content, "output_token_throughput", "avg"),
        requests_per_s=optional_number(content, "request_throughput", "avg"),
        output_tokens_avg=optional_number(content, "output_sequence_length", "avg"),
        remarks=_warnings(content),
    )


def _warnings(content: Any) -> tuple[str, ...]:
    return tuple(map(str, content.get("triolet", {}).get("warnings") or ()))
