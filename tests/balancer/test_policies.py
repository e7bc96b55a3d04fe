"""Each policy keeps its promise, for any load."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.policies import POLICIES, UNKNOWN, LeastRequest, PolicyName, Random, RoundRobin
from tests.balancer.made import Member, members

_loads = st.lists(st.integers(0, 5), min_size=1, max_size=8)


@given(_loads, st.integers(0, 20))
@settings(max_examples=100)
def test_least_request_picks_a_minimum(loads: list[int], earlier: int) -> None:
    """Whatever it picked before."""
    policy, candidates = LeastRequest(), members(*loads)
    for _ in range(earlier):
        policy.pick(candidates)
    assert policy.pick(candidates).in_flight == min(loads)


@given(st.integers(1, 8), st.integers(1, 5))
@settings(max_examples=50)
def test_least_request_spreads_ties_evenly(count: int, rounds: int) -> None:
    """An idle pool is used in turn."""
    policy, candidates = LeastRequest(), members(*[0] * count)
    picked = Counter(policy.pick(candidates).name for _ in range(count * rounds))
    assert set(picked.values()) == {rounds}
    assert len(picked) == count


@given(st.lists(st.integers(1, 8), max_size=30))
@settings(max_examples=50)
def test_least_request_levels_any_start(releases: list[int]) -> None:
    """Given enough requests that stay, all loads are within one of each other."""
    loads = dict.fromkeys((f"r{number}" for number in range(8)), 0)
    for number in releases:
        loads[f"r{number - 1}"] += 1
    policy = LeastRequest()
    for _ in range(8 * (len(releases) + 1)):
        loads[policy.pick([Member(*item) for item in loads.items()]).name] += 1
    assert max(loads.values()) - min(loads.values()) <= 1


@given(_loads, st.integers(1, 20))
@settings(max_examples=50)
def test_round_robin_is_exact(loads: list[int], rounds: int) -> None:
    """The pool's order, again and again, whatever the load."""
    policy, candidates = RoundRobin(), members(*loads)
    picked = [policy.pick(candidates) for _ in range(len(loads) * rounds)]
    assert picked == candidates * rounds


def test_random_is_seeded_and_uniform() -> None:
    """The same seed picks the same; all are picked about equally often."""
    candidates = members(9, 0, 0, 0)
    one, same, other = Random(7), Random(7), Random(8)
    picked = [one.pick(candidates).name for _ in range(400)]
    assert picked == [same.pick(candidates).name for _ in range(400)]
    assert picked != [other.pick(candidates).name for _ in range(400)]
    assert all(70 < times < 130 for times in Counter(picked).values())


@pytest.mark.parametrize("name", POLICIES)
@given(data=st.data())
@settings(max_examples=50)
def test_any_policy_with_changing_candidates(name: PolicyName, data: st.DataObject) -> None:
    """Replicas come and go between picks; what is picked is always one of those offered."""
    policy, everyone = POLICIES[name](), members(0, 1, 2, 0, 3)
    for _ in range(data.draw(st.integers(1, 12))):
        offered = data.draw(st.lists(st.sampled_from(everyone), min_size=1, unique=True))
        assert policy.pick(offered, UNKNOWN) in offered
