"""Comparisons are of the same policy, or with the best static weights."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bench.report.statistics import summarize
from bench.simulate.comparing import compare, compared_text, with_best_weighting
from bench.simulate.figures import Row, TierRow
from bench.simulate.planning import Asked, Scene, scenes_of
from bench.simulate.table import Line, lines_of
from tests.bench.simulate.made_rows import made_row

HEAVY, LIGHT = "static weights 4:1", "static weights 2:1"


def scenes(**more: Any) -> list[Scene]:
    return scenes_of(Asked(workloads=("agent",), policies=(), seeds=(1,), **more))


def lines(*rows: Row) -> list[Line]:
    return lines_of(rows)


def test_slow_replica_beside_the_fleet_in_order() -> None:
    """TTFT p90 of each policy, one line for each of the two other fleets."""
    tables = {
        "agent": lines(made_row("a", 0.3), made_row("b", 0.2)),
        "agent, undisturbed": lines(made_row("a", 0.2), made_row("b", 0.2)),
        "agent, without sim-0": lines(made_row("a", 0.6)),
    }
    compared = compare(scenes(slow=("sim-0:2",)), tables)
    assert [(one.policy, one.against, round(one.ratio, 3)) for one in compared] == [
        ("a", "undisturbed", 1.5),
        ("b", "undisturbed", 1.0),
        ("a", "without sim-0", 0.5),
    ]
    told = compared_text(compared).splitlines()
    assert told[1].split() == [
        "agent",
        "a",
        "TTFT",
        "p90",
        "ms",
        "300",
        "undisturbed",
        "200",
        "1.50",
    ]


def test_tier_beside_the_same_alone() -> None:
    """Its own tokens per second, not those of all."""
    tier = TierRow(tier="batch", requests=1, refused=0, ttft_s=summarize([1.0]),
                   output_tokens_per_s=90.0)  # fmt: skip
    tables = {
        "agent": lines(msgspec.structs.replace(made_row("a", tokens_per_s=500), tiers=[tier])),
        "agent, batch alone": lines(made_row("a", tokens_per_s=100)),
    }
    [one] = compare(scenes(alone="batch"), tables)
    assert (one.value, one.other) == (90, 100)
    assert one.ratio == pytest.approx(0.9)


def test_only_the_best_weighting_is_shown() -> None:
    """By tokens per second; policies are compared with it, and it does not compete."""
    rows = [
        made_row(HEAVY, 0.2, tokens_per_s=120),
        made_row(LIGHT, 0.1, tokens_per_s=100),
        made_row("a", 0.3, tokens_per_s=114),
    ]
    shown = with_best_weighting(lines(*rows))
    assert [line.policy for line in shown] == [HEAVY, "a"]
    [one] = compare(scenes(), {"agent": shown})
    assert (one.policy, one.against) == ("a", HEAVY)
    assert one.ratio == pytest.approx(0.95)


def test_what_was_not_played_is_not_compared() -> None:
    """After Ctrl-C there may be one without the other."""
    tables = {"agent": lines(made_row("a"))}
    assert compare(scenes(slow=("sim-0:2",)), tables) == []
