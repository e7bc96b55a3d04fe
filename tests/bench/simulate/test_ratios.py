"""Ratios to the best are paired by seed, honest about chance, and name what misses."""

from __future__ import annotations

import math
import statistics

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.report.statistics import summarize
from bench.simulate.cell import CLAIRVOYANT
from bench.simulate.figures import Row, TierRow
from bench.simulate.ratios import Ratio, paired_ratio, ratios_of, worst_of
from bench.simulate.summary import misses_of, summary_markdown, summary_text
from bench.simulate.table import Line, lines_of
from tests.bench.simulate.made_rows import made_row


def table(**ttfts_s: list[float]) -> list[Line]:
    rows: list[Row] = [
        made_row(policy, ttft_s, seed=seed)
        for policy, values in ttfts_s.items()
        for seed, ttft_s in enumerate(values)
    ]
    return lines_of(rows)


def of(ratios: list[Ratio], policy: str, title: str = "TTFT p90") -> Ratio:
    [found] = [one for one in ratios if one.policy == policy and one.column.title == title]
    return found


values = st.lists(st.floats(0.01, 100), min_size=2, max_size=8)


@given(values, st.floats(0.1, 10))
def test_a_constant_factor_is_certain(theirs: list[float], factor: float) -> None:
    """However much seeds differ: traffic that is slower for both says nothing."""
    times, interval = paired_ratio([factor * value for value in theirs], theirs)
    assert times == pytest.approx(factor)
    assert interval is not None
    assert interval.high == pytest.approx(interval.low, rel=1e-6)


@given(values, values)
def test_ratio_one_way_is_the_inverse_of_the_other(ours: list[float], theirs: list[float]) -> None:
    """Bounds too: geometric means, not means of ratios."""
    count = min(len(ours), len(theirs))
    there, between = paired_ratio(ours[:count], theirs[:count])
    back, inverse = paired_ratio(theirs[:count], ours[:count])
    assert there == pytest.approx(1 / back)
    assert between is not None
    assert inverse is not None
    assert between.low == pytest.approx(1 / inverse.high)


def test_interval_is_students() -> None:
    """Of the logarithms, with n - 1 degrees of freedom: 4.303 at 95 % for three."""
    logs = [0.1, 0.2, 0.4]
    times, interval = paired_ratio([math.exp(log) for log in logs], [1, 1, 1])
    half = 4.30265 * statistics.stdev(logs) / math.sqrt(3)
    assert times == pytest.approx(math.exp(statistics.fmean(logs)))
    assert interval is not None
    assert interval == pytest.approx((times * math.exp(-half), times * math.exp(half)), rel=1e-4)


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], [1.0, 2.0]), ([0.0], [1.0])])
def test_what_cannot_be_compared(ours: list[float], theirs: list[float]) -> None:
    """Nothing, unequal numbers of seeds, and zeros."""
    with pytest.raises(ValueError, match="no ratios"):
        paired_ratio(ours, theirs)


def test_the_best_is_the_measure() -> None:
    """Of each figure in its own direction; limits do not compete."""
    rows = [
        made_row("slow", 0.3, tokens_per_s=200),
        made_row("fast", 0.1, tokens_per_s=100),
        made_row(CLAIRVOYANT, 0.01, tokens_per_s=None),
    ]
    ratios = ratios_of({"w": lines_of(rows)})
    assert of(ratios, "slow").times == pytest.approx(3)
    assert (of(ratios, "slow").best, of(ratios, "fast").times) == ("fast", 1)
    assert of(ratios, "fast", "tokens/s").times == pytest.approx(2)
    assert of(ratios, "slow", "tokens/s").times == 1
    assert {one.policy for one in ratios} == {"slow", "fast"}


def test_of_tiers_the_interactive_one_is_judged() -> None:
    """A batch that waits for minutes would hide who is kept waiting."""
    rows = [
        msgspec.structs.replace(
            made_row(policy, overall_s),
            tiers=[
                TierRow(tier="batch", requests=1, refused=0, ttft_s=summarize([overall_s])),
                TierRow(tier="interactive", requests=1, refused=0, ttft_s=summarize([own_s])),
            ],
        )
        for policy, overall_s, own_s in (("kind", 90.0, 0.2), ("blind", 80.0, 0.5))
    ]
    assert of(ratios_of({"w": lines_of(rows)}), "blind").times == pytest.approx(2.5)


def test_worst_column_of_each_policy() -> None:
    """The policy whose worst is least bad comes first."""
    tables = {
        "one": table(a=[1.0, 1.1], b=[3.0, 3.3], c=[1.5, 1.6]),
        "two": table(a=[2.0, 2.0], b=[1.0, 1.0], c=[1.2, 1.2]),
    }
    worst = worst_of(ratios_of(tables))
    assert list(worst) == ["c", "a", "b"]
    assert (worst["a"].workload, worst["b"].workload) == ("two", "one")
    assert worst["b"].times == pytest.approx(3)


def test_misses_are_named_with_their_cell() -> None:
    """Only of the policy that is judged, and only those beyond the bound."""
    ratios = ratios_of({"chat": table(ours=[0.12, 0.13], best=[0.1, 0.1], bad=[9.0, 9.0])})
    misses = misses_of(ratios, "ours", 1.1)
    assert len(misses) == 2  # p90 and p99
    assert misses[0].startswith("chat, TTFT p90: 1.25 [")
    assert misses[0].endswith("times worse than best")
    assert misses_of(ratios, "ours", 1.3) == []
    assert misses_of(ratios, "best", 1.0) == []


def test_summary_has_a_line_for_each_workload_and_policy() -> None:
    """As text and as Markdown, with as many cells in each line as in its head."""
    ratios = ratios_of({"w": table(ours=[0.2, 0.2], best=[0.1, 0.1]), "v": table(ours=[1, 1])})
    told = summary_text(ratios, "ours", 2)
    assert "\nw         2.00 [2.00, 2.00]  best" in told
    assert "\nours    2.00 [2.00, 2.00]  w, TTFT p90" in told
    written = [line for line in summary_markdown(ratios, "ours", 2).splitlines() if "|" in line]
    assert {line.count("|") for line in written[:4]} == {8}
    assert {line.count("|") for line in written[4:]} == {4}
    assert "| w | 2.00 [2.00, 2.00] | best |" in written[2]


def test_summary_without_the_judged_policy() -> None:
    """It was left out: the others are still ranked."""
    told = summary_text(ratios_of({"w": table(a=[0.2], b=[0.1])}), "ours", 1)
    assert "ours" not in told
    assert told.splitlines()[-1].split()[:2] == ["a", "2.00"]
