"""Tables that compare one scene with others: a replica that is slow with a fleet that is not, a
tier among others with the tier alone, policies with the best static weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from bench.report.intervals import Interval
from bench.simulate.cell import competes
from bench.simulate.planning import Scene
from bench.simulate.ratios import paired_ratio
from bench.simulate.summary import aligned, times
from bench.simulate.table import COLUMNS, Column, Line, tier_tokens_per_s
from bench.simulate.weights import STATIC_WEIGHTS

__all__ = ["Compared", "best_weighting", "compare", "compared_text", "with_best_weighting"]

P90 = next(column for column in COLUMNS if column.title == "p90")
TOKENS_PER_S = next(column for column in COLUMNS if column.title == "tokens/s")


class Compared(NamedTuple):
    """One policy's figure beside the same in another scene, or of another policy."""

    scene: str
    policy: str
    figure: str
    value: float
    against: str
    other: float
    ratio: float
    """value / other."""
    interval: Interval | None


def compare(scenes: Sequence[Scene], tables: Mapping[str, Sequence[Line]]) -> list[Compared]:
    """All comparisons of scenes that are played completely."""
    compared: list[Compared] = []
    for scene in scenes:
        if scene.title not in tables:
            continue
        if scene.like in tables:
            compared += _with_like(scene, tables)
        compared += _with_weights(scene.title, tables[scene.title])
    return compared


def compared_text(compared: Sequence[Compared]) -> str:
    """Aligned, one line each."""
    head = ["workload", "policy", "figure", "", "against", "", "ratio"]
    cells = [
        [
            one.scene,
            one.policy,
            one.figure,
            f"{one.value:,.0f}",
            one.against,
            f"{one.other:,.0f}",
            times(one.ratio, one.interval),
        ]
        for one in compared
    ]
    return "\n".join(aligned([head, *cells]))


def best_weighting(lines: Sequence[Line]) -> Line | None:
    """Of static weightings that with the most tokens per second; None if there are none."""
    weighted = [line for line in lines if line.policy.startswith(STATIC_WEIGHTS)]
    return max(weighted, key=lambda line: TOKENS_PER_S.mean(line) or 0.0, default=None)


def with_best_weighting(lines: Sequence[Line]) -> list[Line]:
    """Of static weightings the best alone; all other lines."""
    best = best_weighting(lines)
    return [line for line in lines if line is best or not line.policy.startswith(STATIC_WEIGHTS)]


def _with_like(scene: Scene, tables: Mapping[str, Sequence[Line]]) -> list[Compared]:
    others = {line.policy: line for line in tables[scene.title]}
    pairs = [
        (line, others[line.policy])
        for line in tables[scene.like]
        if competes(line.policy) and line.policy in others
    ]
    column = P90 if scene.tier is None else TOKENS_PER_S
    ours = column if scene.tier is None else tier_tokens_per_s(scene.tier)
    found = [
        _compared(scene.like, line, ours, scene.differs, other, column) for line, other in pairs
    ]
    return [one for one in found if one is not None]


def _with_weights(title: str, lines: Sequence[Line]) -> list[Compared]:
    best = best_weighting(lines)
    if best is None:
        return []
    found = [
        _compared(title, line, TOKENS_PER_S, best.policy, best, TOKENS_PER_S)
        for line in lines
        if competes(line.policy)
    ]
    return [one for one in found if one is not None]


def _compared(
    scene: str, line: Line, column: Column, against: str, other: Line, other_column: Column
) -> Compared | None:
    ours, theirs = column.values(line), other_column.values(other)
    if not ours or len(ours) != len(theirs) or min(*ours, *theirs) <= 0:
        return None
    ratio, interval = paired_ratio(ours, theirs)
    title = "TTFT p90 ms" if column is P90 else column.title
    return Compared(scene, line.policy, title, fmean(ours), against, fmean(theirs), ratio, interval)
