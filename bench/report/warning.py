"""What makes a run's figures less than they seem, said in a sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from bench.load.record import Record
from bench.report.goodput import Goodput
from bench.report.outcomes import Outcomes
from bench.report.probes import ProbeReport, failures_text
from bench.report.run import Run

__all__ = ["warnings_of"]

_COUNT_MISMATCH: Final = 0.1
"""Server's and client's output tokens may differ by this share before it is said (AIPerf's)."""

_FEW: Final = 100
"""Below this many requests a p99 is the largest value or near it."""


def warnings_of(
    run: Run,
    good: Sequence[Record],
    counted: Outcomes,
    judged: Goodput | None,
    probes: Sequence[ProbeReport],
) -> list[str]:
    """Everything worth saying of `run`, whose requests in `good` succeeded."""
    return [
        *_of_outcomes(run, counted),
        *_of_tokens(good),
        *_of_goodput(judged),
        *_of_probes(probes),
    ]


def _of_outcomes(run: Run, counted: Outcomes) -> Iterator[str]:
    if run.was_cancelled:
        yield "the run was stopped early: these are the requests measured until then"
    if not counted.sent:
        yield "nothing was sent in the measured phase"
    elif not counted.completed:
        yield "no request succeeded: there is no latency or throughput to report"
    elif counted.completed < _FEW:
        yield f"only {counted.completed} requests succeeded: p99 is little more than the largest"
    if counted.errored:
        yield (
            f"{counted.errored} of {counted.sent} requests failed "
            f"({counted.error_rate:.1%}); latencies are of those that succeeded"
        )
    if counted.unfinished:
        yield f"{counted.unfinished} requests were unfinished when the run ended"


def _of_tokens(good: Sequence[Record]) -> Iterator[str]:
    silent = sum(record.output_tokens is None for record in good)
    if silent:
        yield (
            f"{silent} of {len(good)} answers came without usage: "
            "their output tokens are the client's count, their prompt tokens the plan's"
        )
    apart = sum(_differs(record) for record in good)
    if apart:
        yield (
            f"{apart} of {len(good)} answers: the client counted over {_COUNT_MISMATCH:.0%} more "
            "or fewer output tokens than the server says; the server's count is used"
        )
    wordless = sum(record.streamed and not record.content_s for record in good)
    if wordless:
        yield f"{wordless} answers held no text: they have no time to first token"


def _differs(record: Record) -> bool:
    reported, counted = record.output_tokens, record.counted_output_tokens
    if reported is None or not counted:
        return False
    return abs(counted - reported) > _COUNT_MISMATCH * max(reported, 1)


def _of_goodput(judged: Goodput | None) -> Iterator[str]:
    for name, count in (judged.lacking if judged else {}).items():
        yield f"goodput: {count} requests succeeded but have no {name}: they count as not good"


def _of_probes(probes: Sequence[ProbeReport]) -> Iterator[str]:
    for one in probes:
        if one.loaded.sent and one.loaded.latency is None:
            failed = failures_text(one.loaded)
            yield f"no probe of {one.path} succeeded ({failed}): is it the right path?"
