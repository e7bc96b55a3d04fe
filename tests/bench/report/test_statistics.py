"""Summaries and intervals against values worked out elsewhere."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.report.intervals import (
    bootstrap_mean,
    bootstrap_percentile,
    central,
    student_interval,
    student_quantile,
    welch_ratio,
)
from bench.report.statistics import Summary, percentile, pooled, summarize

FINITE = st.floats(min_value=-1e6, max_value=1e6)


def summary_of(values: list[float]) -> Summary:
    found = summarize(values)
    assert found is not None
    return found


def test_percentiles_interpolate_as_numpy_does() -> None:
    """numpy.percentile([15, 20, 35, 40, 50], [1, 5, 40, 50, 99])."""
    ordered = [15.0, 20.0, 35.0, 40.0, 50.0]
    found = [percentile(ordered, percent) for percent in (1, 5, 40, 50, 99)]
    assert found == pytest.approx([15.2, 16.0, 29.0, 35.0, 49.6])


def test_standard_deviation_is_the_populations() -> None:
    """numpy.std([2, 4, 4, 4, 5, 5, 7, 9]) is 2.0; the sample's would be 2.138."""
    found = summary_of([2, 4, 4, 4, 5, 5, 7, 9])
    assert (found.avg, found.std, found.count, found.sum) == (5.0, 2.0, 8, 40.0)
    assert (found.min, found.max) == (2, 9)


def test_an_empty_sample_has_no_figures() -> None:
    """Nothing measured is None, neither zero nor NaN."""
    assert summarize([]) is None
    assert pooled([[], []]) is None


def test_an_unknown_statistic_is_refused() -> None:
    """A typing error does not read a method or an attribute."""
    with pytest.raises(KeyError):
        summary_of([1.0]).get("get")


@given(st.lists(FINITE, min_size=1, max_size=60))
def test_figures_are_in_order(values: list[float]) -> None:
    """min <= p1 <= ... <= p99 <= max, whatever the sample."""
    found = summary_of(values)
    ranks = [found.min, found.p1, found.p5, found.p10, found.p25, found.p50]
    ranks += [found.p75, found.p90, found.p95, found.p99, found.max]
    slack = 1e-9 * max(1.0, abs(found.min), abs(found.max))
    assert all(low <= high + slack for low, high in pairwise(ranks))


@given(st.lists(FINITE, max_size=20), st.lists(FINITE, max_size=20))
def test_pooling_is_summarizing_together(one: list[float], other: list[float]) -> None:
    """Merged figures are those of all values, not averages of averages."""
    assert pooled([one, other]) == summarize(one + other)


@pytest.mark.parametrize(
    ("freedom", "expected"),
    [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (30, 2.042), (1000, 1.962)],
)
def test_students_t_against_the_printed_table(freedom: int, expected: float) -> None:
    """The 97.5 % column of any table of the distribution."""
    assert student_quantile(0.975, freedom) == pytest.approx(expected, abs=6e-4)


def test_student_interval_by_hand() -> None:
    """Mean 10, deviation 1 over 3 runs: 10 +- 4.303 / sqrt(3)."""
    found = student_interval([9.0, 10.0, 11.0])
    assert found is not None
    assert found == pytest.approx((10 - 2.484, 10 + 2.484), abs=1e-3)
    assert student_interval([9.0]) is None


def test_welch_covers_the_ratio_and_refuses_what_it_cannot() -> None:
    """Twice as large gives an interval around 2; zero and single runs give none."""
    found = welch_ratio([20.0, 20.2, 19.8], [10.0, 10.1, 9.9])
    assert found is not None
    assert found.holds(2.0)
    assert 1.9 < found.low < found.high < 2.1
    assert welch_ratio([1.0], [1.0, 2.0]) is None
    assert welch_ratio([0.0, 1.0], [1.0, 2.0]) is None
    assert welch_ratio([2.0, 2.0], [1.0, 1.0]) == (2.0, 2.0)


def test_bootstrap_of_a_percentile_is_that_of_resampling() -> None:
    """The direct draw agrees with real resamples, in its middle and its width."""
    random = Random(3)
    values = sorted(random.lognormvariate(3, 0.5) for _ in range(80))
    direct = central(bootstrap_percentile(values, 90, random))
    resampled = central([percentile(sorted(random.choices(values, k=80)), 90) for _ in range(2000)])
    assert direct == pytest.approx(resampled, rel=0.08)


def test_bootstrap_of_the_mean_has_its_standard_error() -> None:
    """Width of the 95 % interval: 2 x 1.96 x deviation / sqrt(n), small sample and large."""
    for size in (200, 5000):
        values = [float(value % 10) for value in range(size)]
        found = central(bootstrap_mean(values, Random(4)))
        expected = 2 * 1.96 * summary_of(values).std / math.sqrt(size)
        assert found.high - found.low == pytest.approx(expected, rel=0.1)


def test_one_value_is_drawn_as_itself() -> None:
    """A sample of one has one possible resample."""
    assert set(bootstrap_percentile([7.0], 99, Random(1))) == {7.0}


@given(
    st.lists(FINITE, min_size=2, max_size=30), st.sampled_from([1, 50, 90, 99]), st.integers(0, 9)
)
def test_bootstrap_stays_within_the_sample(values: list[float], rank: int, seed: int) -> None:
    """A resample holds no value that was not measured."""
    draws = bootstrap_percentile(sorted(values), rank, Random(seed), draws=50)
    slack = 1e-9 * max(map(abs, values), default=1.0) + 1e-12
    assert min(values) - slack <= min(draws) <= max(draws) <= max(values) + slack


def test_intervals_of_equals_hold_one_about_as_often_as_they_say() -> None:
    """Of 200 pairs from one law, about 10 ratios' 95 % intervals may leave out 1."""
    random, missed = Random(11), 0
    for _ in range(200):
        pair = [sorted(random.lognormvariate(0, 0.5) for _ in range(60)) for _ in range(2)]
        ours, theirs = (bootstrap_percentile(one, 50, random, draws=300) for one in pair)
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        missed += not central(ratios).holds(1.0)
    assert 2 <= missed <= 20
