"""Rows with given figures."""

from __future__ import annotations

from bench.report.statistics import summarize
from bench.simulate.figures import Row


def made_row(
    policy: str,
    ttft_s: float | None = 0.1,
    *,
    seed: int = 1,
    hit_rate: float | None = 0.5,
    tokens_per_s: float | None = 100.0,
    skew: float | None = 1.0,
    refused: int = 0,
    not_sent: int = 0,
) -> Row:
    """A row in which every TTFT is `ttft_s`."""
    return Row(
        workload="w",
        policy=policy,
        seed=seed,
        requests=1,
        refused=refused,
        not_sent=not_sent,
        ttft_s=None if ttft_s is None else summarize([ttft_s]),
        hit_rate=hit_rate,
        output_tokens_per_s=tokens_per_s,
        skew=skew,
    )
