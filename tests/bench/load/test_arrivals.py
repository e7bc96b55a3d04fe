"""Arrival times: their rate and spread, the same for a seed, and the ramp."""

from __future__ import annotations

from itertools import islice, pairwise
from statistics import fmean, pstdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.load.arrivals import arrival_times, gaps
from bench.load.plan import Arrival, Rated

PATTERNS: list[Arrival] = ["constant", "poisson", "gamma"]


@pytest.mark.parametrize(
    ("arrival", "smoothness", "variation"),
    [("constant", 1.0, 0.0), ("poisson", 1.0, 1.0), ("gamma", 4.0, 0.5), ("gamma", 0.25, 2.0)],
)
def test_mean_and_spread(arrival: Arrival, smoothness: float, variation: float) -> None:
    """The mean gap is 1 / rate, the coefficient of variation 1 / sqrt(shape)."""
    loop = Rated(rate=20, arrival=arrival, smoothness=smoothness)
    found = list(islice(gaps(loop, 3), 20_000))
    assert fmean(found) == pytest.approx(0.05, rel=0.05)
    assert pstdev(found) / fmean(found) == pytest.approx(variation, rel=0.08, abs=1e-9)


def test_smoothness_is_for_gamma_alone() -> None:
    """Poisson does not change with a smoothness that is not meant for it."""
    plain = Rated(rate=5)
    assert list(islice(gaps(Rated(rate=5, smoothness=9), 1), 9)) == list(islice(gaps(plain, 1), 9))


@settings(max_examples=50)
@given(st.sampled_from(PATTERNS), st.floats(0.01, 1e4), st.integers(0, 2**32), st.floats(0, 60))
def test_same_seed_same_times(arrival: Arrival, rate: float, seed: int, ramp_s: float) -> None:
    """Times begin at 0, never go back, and are the same for the same seed."""
    loop = Rated(rate=rate, arrival=arrival, ramp_s=ramp_s)
    times = list(islice(arrival_times(loop, seed), 200))
    assert times == list(islice(arrival_times(loop, seed), 200))
    assert times[0] == 0
    assert all(before <= after for before, after in pairwise(times))


def test_other_seed_other_times() -> None:
    """A seed matters."""
    loop = Rated(rate=1)
    assert list(islice(arrival_times(loop, 1), 5)) != list(islice(arrival_times(loop, 2), 5))


def test_ramp() -> None:
    """Half of the ramp's arrivals are saved: after it the rate is the full one."""
    times = list(islice(arrival_times(Rated(rate=100, arrival="constant", ramp_s=10), 0), 2_000))
    assert sum(at < 10 for at in times) == pytest.approx(500, abs=2)
    assert sum(at < 5 for at in times) == pytest.approx(125, abs=2)
    assert sum(10 <= at < 15 for at in times) == pytest.approx(500, abs=2)


def test_no_drift() -> None:
    """An hour of small steps ends where it should."""
    loop = Rated(rate=1000, arrival="constant")
    assert next(islice(arrival_times(loop, 0), 360_000, None)) == pytest.approx(360, abs=1e-9)
