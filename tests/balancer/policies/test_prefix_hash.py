"""Where prompts part, what that does to the ring, and that load stays bounded."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.policies import PrefixHash
from balancer.policies.prefix_hash import Traffic
from balancer.policies.ring import Ring
from tests.balancer.made import Request, members, picks

SYSTEM = (1, 640)


def test_tenants_stay_apart_and_together() -> None:
    """Each has a system prompt of its own: all its requests go to one replica."""
    policy, candidates = PrefixHash(1), members(0, 0, 0, 0)
    homes: dict[int, set[str]] = {}
    for number in range(600):
        tenant = 100 + number % 40
        ask = Request(((tenant, 640), (1000 + number, 64)))
        homes.setdefault(tenant, set()).add(policy.pick(candidates, ask).name)
    assert all(len(names) == 1 for names in homes.values())
    assert len(set.union(*homes.values())) == 4


def test_one_system_prompt_for_all_does_not_collapse() -> None:
    """Sessions part after it, and each stays where it began."""
    policy, candidates = PrefixHash(1), members(0, 0, 0, 0)
    asks = [Request((SYSTEM, (10 + session, 128))) for session in range(200)]
    for ask in asks[:60]:
        policy.pick(candidates, ask)
    first = [policy.pick(candidates, ask).name for ask in asks]
    again = [
        policy.pick(candidates, Request((*ask.parts, (999, 64 * turn)))).name
        for turn, ask in enumerate(asks)
    ]
    assert max(Counter(first).values()) < 90
    assert first == again


def test_a_key_stays_though_its_share_wavers() -> None:
    """Once passed, a block is passed until it carries less than half of the share."""
    traffic, number = Traffic(window=64), 0

    def passed(of_ten: int, times: int) -> list[bool]:
        """Whether the first block is, if so many of ten requests have it."""
        nonlocal number
        found = []
        for _ in range(times):
            number += 1
            if number % 10 < of_ten:
                found.append(traffic.key([1, 1000 + number], 0.4) != 1)
            else:
                traffic.key([1000 + number], 0.4)
        return found

    assert not any(passed(3, 400))
    assert all(passed(5, 400)[100:])
    assert all(passed(3, 400))
    assert not any(passed(1, 400)[20:])


@given(st.lists(st.integers(0, 300), min_size=1, max_size=400))
@settings(max_examples=30)
def test_traffic_is_bounded(starts: list[int]) -> None:
    """Whatever comes, it counts no more blocks than it may; a key is one of the prompt's."""
    traffic = Traffic(window=100, most=50)
    for start in starts:
        blocks = list(range(start, start + 6))
        assert traffic.key(blocks, 0.125) in blocks
        assert len(traffic) <= 50


@given(st.lists(st.integers(0, 20), min_size=2, max_size=8), st.integers(1, 9))
@settings(max_examples=60)
def test_load_is_bounded(loads: list[int], part: int) -> None:
    """With the request, none has more than 1.25 times the mean, rounded up."""
    chosen = PrefixHash(1).pick(members(*loads), Request(((part, 64),)))
    assert chosen.in_flight + 1 <= math.ceil(1.25 * (1 + sum(loads)) / len(loads))


def test_only_what_must_moves() -> None:
    """Without one replica, only its prompts go elsewhere, and they come back."""
    policy, everyone = PrefixHash(1), members(0, 0, 0, 0)
    asks = [Request(((number, 64),)) for number in range(40)]
    before = [policy.pick(everyone, ask).name for ask in asks]
    without = [policy.pick(everyone[1:], ask).name for ask in asks]
    moved = [b for b, w in zip(before, without, strict=True) if b != w]
    assert moved == ["r0"] * before.count("r0")
    assert [policy.pick(everyone, ask).name for ask in asks] == before


def test_a_prompt_too_short_goes_to_the_least_loaded() -> None:
    """Less than a block: there is nothing to be hashed."""
    assert picks(PrefixHash(1), members(3, 0, 0), Request(((1, 63),))) == {"r1", "r2"}


def test_ring_names_everyone_once_in_the_same_order() -> None:
    """Also after most of its names have gone."""
    ring, other = Ring(20), Ring(20)
    ring.cover({"a", "b", "c"})
    other.cover([f"gone {number}" for number in range(9)])
    other.cover({"a", "b", "c"})  # so few of the old ones are left that they are forgotten
    for key in range(50):
        names = list(ring.names_from(key))
        assert sorted(names) == ["a", "b", "c"]
        assert list(other.names_from(key)) == names
