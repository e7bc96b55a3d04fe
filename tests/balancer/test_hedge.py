"""When a request is sent a second time before the first has answered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.hedge import Hedge, HedgeSettings


def test_fixed() -> None:
    """A time that was set needs no learning."""
    assert Hedge(HedgeSettings(after_s=0.7)).after_s() == 0.7


def test_nothing_is_known_at_first() -> None:
    """Of few waits no quantile is taken."""
    hedge = Hedge(HedgeSettings())
    for _ in range(31):
        hedge.waited(1.0)
        assert hedge.after_s() is None
    hedge.waited(1.0)
    assert hedge.after_s() == 1.0


@pytest.mark.parametrize(("quantile", "after_s"), [(0.5, 1.6), (0.95, 3.04), (1.0, 3.2)])
def test_quantile(quantile: float, after_s: float) -> None:
    """Of the waits seen, in whatever order."""
    hedge = Hedge(HedgeSettings(quantile=quantile))
    for n in range(32):
        hedge.waited((7 * n % 32 + 1) / 10)
    assert hedge.after_s() == pytest.approx(after_s, abs=0.11)


def test_in_units_of_what_is_expected() -> None:
    """A long prompt's wait is not taken for a slow replica's."""
    hedge = Hedge(HedgeSettings())
    for n in range(64):
        hedge.waited(0.2 if n % 2 else 20, expected_s=0.1 if n % 2 else 10)
    assert hedge.after_s(0.1) == pytest.approx(0.2)
    assert hedge.after_s(10) == pytest.approx(20)


def test_old_waits_are_forgotten() -> None:
    """After 256 more only those count."""
    hedge = Hedge(HedgeSettings())
    for _ in range(256):
        hedge.waited(9.0)
    for _ in range(256):
        hedge.waited(1.0)
    assert hedge.after_s() == 1.0


def test_budget() -> None:
    """One in twenty, and one each ten seconds besides."""
    hedge = Hedge(HedgeSettings())
    for n in range(1000):
        hedge.requested(n / 100)
    assert sum(hedge.take(10) for _ in range(1000)) == 56


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(-1, 1e6)), max_size=100), st.floats(0, 1e6))
def test_never_at_once(waits: list[tuple[float, float]], expected_s: float) -> None:
    """Whatever was seen: not at all, or after 50 ms at least."""
    hedge = Hedge(HedgeSettings())
    for wait_s, expected in waits:
        hedge.waited(wait_s, expected)
    after_s = hedge.after_s(expected_s)
    assert after_s is None or after_s >= 0.05
