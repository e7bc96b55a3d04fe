"""Static weights share requests out as they say, and the grid that is tried covers the fleet."""

from __future__ import annotations

from collections import Counter

import pytest

from balancer.policies import UNKNOWN
from balancer.replica import Replica
from balancer.wire.connect import Dialer
from bench.simulate.cell import weightings
from bench.simulate.weights import StaticWeights, parse_weights, weight_names


def test_each_gets_its_share_spread_evenly() -> None:
    """Of ten requests seven, two and one; and no two of the rare ones in a row."""
    replicas = [Replica(f"http://sim-{number}", Dialer()) for number in range(3)]
    policy = StaticWeights((7, 2, 1))
    picked = [policy.pick(replicas, UNKNOWN).name[-1] for _ in range(100)]
    assert Counter(picked) == {"0": 70, "1": 20, "2": 10}
    assert "11" not in "".join(picked)


def test_names_hold_the_weights() -> None:
    """One for each weighting; replicas of one kind get the same, the slowest gets 1."""
    names = weight_names(("fast", "slow", "fast"), ("fast", "slow"))
    weights = [parse_weights(name) for name in names]
    assert len(set(names)) == len(names) > 5
    assert all(one[0] == one[2] >= one[1] == 1 for one in weights)


def test_equal_replicas_need_no_search() -> None:
    """There is one weighting."""
    assert [parse_weights(name) for name in weightings(("h100-llama-8b",) * 2)] == [(1, 1)]


@pytest.mark.parametrize("fleet", [("rtx4090-llama-8b", "h100-llama-8b")])
def test_the_faster_one_gets_more_whatever_the_order(fleet: tuple[str, ...]) -> None:
    """Known from the profiles."""
    assert all(one[1] >= one[0] == 1 for one in map(parse_weights, weightings(fleet)))
