"""Policies that count: requests, tokens, or turns."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.policies import LeastRequest, LeastTokens, PowerOfTwo, Random, RoundRobin
from tests.balancer.made import Member, Request, members, picks

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


@pytest.mark.parametrize("kind", [RoundRobin, LeastRequest])
def test_turns_begin_where_the_seed_says(kind: type[RoundRobin] | type[LeastRequest]) -> None:
    """So that several balancers need not begin with the same replica."""
    candidates = members(0, 0, 0)
    assert [kind(seed).pick(candidates).name for seed in range(3)] == ["r0", "r1", "r2"]


def test_random_is_seeded_and_uniform() -> None:
    """The same seed picks the same; all are picked about equally often."""
    candidates = members(9, 0, 0, 0)
    one, same, other = Random(7), Random(7), Random(8)
    picked = [one.pick(candidates).name for _ in range(400)]
    assert picked == [same.pick(candidates).name for _ in range(400)]
    assert picked != [other.pick(candidates).name for _ in range(400)]
    assert all(70 < times < 130 for times in Counter(picked).values())


def test_power_of_two_never_picks_the_worst() -> None:
    """The most loaded of three loses against whichever it is put; a tie is anybody's."""
    policy = PowerOfTwo(1)
    assert picks(policy, members(5, 5, 6), Request()) == {"r0", "r1"}
    assert picks(policy, members(0, 1, 2), Request()) == {"r0", "r1"}
    assert picks(policy, members(3), Request()) == {"r0"}


def test_least_tokens_looks_at_what_is_to_be_read() -> None:
    """Fewest tokens, though its own prompt is held elsewhere; then fewest requests, then any."""
    policy, candidates = LeastTokens(1), members(0, 3, 0)
    long = candidates[0].take(65)
    warm = Request(((1, 640),), matches={"r0": 640})
    assert picks(policy, candidates, warm) == {"r2"}
    short = candidates[2].take(64)
    assert picks(policy, candidates, warm) == {"r1"}
    candidates[0].read(long)
    candidates[2].read(short)
    assert picks(policy, candidates, warm) == {"r0", "r2"}
