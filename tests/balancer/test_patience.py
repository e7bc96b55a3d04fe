"""How long a trial may take to begin."""

from __future__ import annotations

import random

import pytest

from balancer.patience import Patience


def after(*waits_s: float) -> Patience:
    patience = Patience()
    for wait_s in waits_s:
        patience.waited(wait_s)
    return patience


def test_with_little_known_there_is_no_shorter_limit() -> None:
    """Three quick answers do not make a replica slow."""
    assert after().trial_s(120) == 120
    assert after(*[0.1] * 31).trial_s(120) == 120


def test_never_below_5_s_nor_above_the_pools_own() -> None:
    """What is usual may be far below what a cold replica needs."""
    assert after(*[0.1] * 32).trial_s(120) == 5
    assert after(*[0.1] * 32).trial_s(3) == 3
    assert after(*[90.0] * 200).trial_s(120) == 120


@pytest.mark.parametrize("median_s", [0.05, 2.0])
def test_it_follows_the_95th_percentile(median_s: float) -> None:
    """Within a third, and after a change of pace too."""
    chance = random.Random(1)
    patience = Patience()
    for scale in (1.0, 5.0, 0.5):
        waits = [median_s * scale * chance.lognormvariate(0, 0.5) for _ in range(2_000)]
        seen = []
        for wait_s in waits:
            patience.waited(wait_s)
            seen.append(patience.p95_s)
        true = sorted(waits)[1_900]
        assert sum(seen[-1_000:]) / 1_000 == pytest.approx(true, rel=0.33)


def test_a_wait_of_nothing() -> None:
    """It is no reason to divide or to stay at nothing for ever."""
    assert after(0.0, 0.0, *[8.0] * 60).trial_s(120) > 30
