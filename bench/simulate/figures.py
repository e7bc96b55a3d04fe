"""What a simulated run comes to: one row of the table."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bench.engine.books import Gaps
from bench.report.statistics import Summary, summarize
from bench.simulate.calls import Calls
from bench.simulate.play import Played

__all__ = ["Row", "TierRow", "row_of"]


class TierRow(msgspec.Struct, frozen=True, kw_only=True):
    """One tier's share of a run, where there are several."""

    tier: str
    requests: int
    refused: int
    ttft_s: Summary | None
    output_tokens_per_s: float | None = None
    """Of this tier, from its first request to its last answer's end."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One policy on one workload. What nothing was measured of is None; a limit has only the
    figure that it limits.
    """

    workload: str
    policy: str
    seed: int = 0
    requests: int
    """Answered."""
    refused: int = 0
    not_sent: int = 0
    """Turns after a refused one in its session."""
    duration_s: float = 0.0
    """From the first request to the last answer's end, virtual."""
    ttft_s: Summary | None = None
    """From when the request should have been sent to its first token."""
    itl_s: Summary | None = None
    """Per request: mean time between its tokens after the first."""
    gap_p99_s: float | None = None
    """99th percentile of the times between two tokens, pooled over all requests."""
    latency_s: Summary | None = None
    """From when the request should have been sent to its last token."""
    output_tokens_per_s: float | None = None
    """All output tokens over `duration_s`."""
    hit_rate: float | None = None
    """Share of all prompt tokens that the engines found in their caches."""
    skew: float | None = None
    """Busy time of the busiest replica over the mean; 1 is even."""
    preemptions: int = 0
    put_back: int = 0
    """How often a request lost its place to another of a higher tier before it was answered."""
    runs_s: Summary | None = None
    """Whole fan-out runs, from the first request to the last answer; None without any."""
    tiers: list[TierRow] = []
    """By name; empty if all are of one."""
    cpu_s: float = 0.0
    """What the simulation took; all else is the same for the same seed."""


def row_of(workload: str, policy: str, played: Played, *, seed: int = 0) -> Row:
    """The figures of one run, without `cpu_s`."""
    calls, engines = played.calls, played.engines
    gaps = Gaps()
    for engine in engines:
        gaps.merge(engine.books.gaps)
    duration_s = max(calls.ended_s) - min(calls.asked_s) if len(calls) else 0.0
    prompt_tokens = sum(calls.prompt_tokens)
    return Row(
        workload=workload,
        policy=policy,
        seed=seed,
        requests=len(calls),
        refused=sum(calls.refused.values()),
        not_sent=calls.not_sent,
        duration_s=duration_s,
        ttft_s=summarize(_differences(calls.asked_s, calls.first_s)),
        itl_s=summarize(_itls(calls)),
        gap_p99_s=gaps.quantile(0.99),
        latency_s=summarize(_differences(calls.asked_s, calls.ended_s)),
        output_tokens_per_s=sum(calls.output_tokens) / duration_s if duration_s else None,
        hit_rate=sum(calls.cached_tokens) / prompt_tokens if prompt_tokens else None,
        skew=_skew([engine.books.busy_s for engine in engines]),
        preemptions=sum(engine.books.preemptions for engine in engines),
        put_back=calls.put_back,
        runs_s=summarize(_runs(calls)),
        tiers=_tiers(calls),
    )


def _differences(start_s: Sequence[float], end_s: Sequence[float]) -> list[float]:
    return [end - start for start, end in zip(start_s, end_s, strict=True)]


def _itls(calls: Calls) -> list[float]:
    columns = zip(calls.first_s, calls.ended_s, calls.output_tokens, strict=True)
    return [(ended - first) / (tokens - 1) for first, ended, tokens in columns if tokens > 1]


def _skew(loads: Sequence[float]) -> float | None:
    mean = sum(loads) / len(loads)
    return max(loads) / mean if mean else None


def _runs(calls: Calls) -> list[float]:
    began: dict[int, float] = {}
    ended: dict[int, float] = {}
    for group, asked_s, ended_s in zip(calls.group, calls.asked_s, calls.ended_s, strict=True):
        if group and group not in calls.broken_groups:
            began[group] = min(asked_s, began.get(group, asked_s))
            ended[group] = max(ended_s, ended.get(group, ended_s))
    return [ended[group] - began[group] for group in began]


def _tiers(calls: Calls) -> list[TierRow]:
    names = sorted({*calls.tier, *calls.refused})
    if len(names) < 2:
        return []
    return [_tier_row(calls, name) for name in names]


def _tier_row(calls: Calls, tier: str) -> TierRow:
    columns = zip(
        calls.tier, calls.asked_s, calls.first_s, calls.ended_s, calls.output_tokens, strict=True
    )
    own = [times for name, *times in columns if name == tier]
    duration_s = max(one[2] for one in own) - min(one[0] for one in own) if own else 0.0
    return TierRow(
        tier=tier,
        requests=len(own),
        refused=calls.refused.get(tier, 0),
        ttft_s=summarize([first - asked for asked, first, *_ in own]),
        output_tokens_per_s=sum(one[3] for one in own) / duration_s if duration_s else None,
    )
