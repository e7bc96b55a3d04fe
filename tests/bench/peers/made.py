"""Results made by hand."""

from __future__ import annotations

from bench.load.plan import Closed, Limits, Plan
from bench.load.record import Record
from bench.load.result import ClientFacts, RunResult


def a_record(*, start_s: float, ttft_s: float, tokens: int = 5, error: str | None = None) -> Record:
    """One streamed answer whose tokens come every 10 ms after the first."""
    chunks = [] if error else [start_s + ttft_s + 0.01 * index for index in range(tokens)]
    return Record(
        phase="profiling",
        session=0,
        turn=0,
        request_id=f"r{start_s}",
        streamed=True,
        sent_s=start_s,
        content_s=chunks,
        ended_s=chunks[-1] if chunks else start_s + 0.5,
        outcome="error" if error else "ok",
        error=error,
        asked_input_tokens=100,
        output_tokens=None if error else tokens,
    )


def a_result(records: list[Record], warnings: list[str] | None = None) -> RunResult:
    """A closed-loop run of these."""
    return RunResult(
        plan=Plan(
            urls=("http://127.0.0.1:1",),
            model="m",
            loop=Closed(concurrency=2),
            limits=Limits(requests=len(records)),
        ),
        workload="made",
        records=records,
        started_at=0.0,
        client=ClientFacts(
            cpu_s=0.1, wall_s=2.0, chunks=sum(len(record.content_s) for record in records)
        ),
        warnings=warnings or [],
    )
