"""Records and runs for the tests of reports."""

from __future__ import annotations

from random import Random
from typing import Any

from bench.load.record import Record
from bench.report.run import Run


def streamed(
    sent_s: float = 0.0,
    first_s: float = 0.05,
    gap_s: float = 0.01,
    chunks: int = 20,
    **changes: Any,
) -> Record:
    """A streamed answer: the first chunk `first_s` after it was sent, then one every `gap_s`."""
    times = [sent_s + first_s + place * gap_s for place in range(chunks)]
    fields: dict[str, Any] = {
        "phase": "profiling",
        "session": 0,
        "turn": 0,
        "request_id": f"r{sent_s:g}",
        "streamed": True,
        "sent_s": sent_s,
        "head_s": sent_s + first_s / 2,
        "content_s": times,
        "first_answer_s": times[0] if times else None,
        "ended_s": (times[-1] if times else sent_s + first_s) + 0.001,
        "outcome": "ok",
        "status": 200,
        "asked_input_tokens": 100,
        "input_tokens": 100,
        "output_tokens": chunks,
        "counted_output_tokens": chunks,
    }
    return Record(**(fields | changes))


def failed(sent_s: float = 0.0, took_s: float = 0.2, **changes: Any) -> Record:
    """A request that was answered with an error."""
    fields: dict[str, Any] = {
        "content_s": [],
        "first_answer_s": None,
        "ended_s": sent_s + took_s,
        "outcome": "error",
        "error": "http_503",
        "error_message": "no replica",
        "status": 503,
        "input_tokens": None,
        "output_tokens": None,
        "counted_output_tokens": 0,
    }
    return streamed(sent_s, **(fields | changes))


def run_of(*records: Record, **changes: Any) -> Run:
    """A run at concurrency 4 with these records."""
    fields: dict[str, Any] = {
        "records": list(records),
        "started_at": 1_700_000_000.0,
        "duration_s": 10.0,
        "mode": "concurrency",
        "load": 4.0,
        "model": "mock/model",
        "url": "http://127.0.0.1:8000",
        "command_line": "triolet bench --concurrency 4",
        "seed": 1,
        "version": "0.1.0",
        "workload": "synthetic",
    }
    return Run(**(fields | changes))


def noisy_run(seed: int, requests: int = 300, slower: float = 1.0, **changes: Any) -> Run:
    """A run whose times vary by chance; `slower` stretches them all."""
    random = Random(seed)
    records = [
        streamed(
            place * 0.05,
            first_s=slower * random.lognormvariate(-3, 0.4),
            gap_s=slower * random.uniform(0.008, 0.012),
            request_id=f"r{place}",
            session=place,
        )
        for place in range(requests)
    ]
    return run_of(*records, **changes)
