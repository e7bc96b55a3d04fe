"""Policies that send alike to alike: what makes two requests alike, and what parts them."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.policies import UNKNOWN
from balancer.policies.ring import Ring
from bench.simulate.reference.bounded_hash import BoundedHash
from bench.simulate.reference.higress_prefix import HigressPrefix
from bench.simulate.reference.recent import Recent
from bench.simulate.reference.ring_hash import RingHash
from bench.simulate.reference.session_sticky import SessionSticky
from tests.bench.simulate.reference.asks import Clock, Member, fleet, members, picks, prompt, send


def test_ring_hash_reads_the_beginning_alone() -> None:
    """Same first 128 tokens, same replica, whatever its load; other beginnings, other replicas."""
    policy = RingHash(fleet())
    (home,) = picks(policy, members(0, 0, 0, 0), prompt(("system", 128)))
    loads = [1000 if f"r{number}" == home else 0 for number in range(4)]
    assert picks(policy, members(*loads), prompt(("system", 128), ("question", 500))) == {home}
    homes = {policy.pick(members(0, 0, 0, 0), prompt((f"{n}", 128))).name for n in range(60)}
    assert len(homes) == 4


def test_ring_hash_moves_only_what_it_must() -> None:
    """Without one replica, only its prompts go elsewhere, and they come back."""
    policy, everyone = RingHash(fleet()), members(0, 0, 0, 0)
    prompts = [prompt((f"{number}", 128)) for number in range(40)]
    before = [policy.pick(everyone, each).name for each in prompts]
    without = [policy.pick(everyone[1:], each).name for each in prompts]
    assert [b for b, w in zip(before, without, strict=True) if b != w] == ["r0"] * before.count(
        "r0"
    )
    assert [policy.pick(everyone, each).name for each in prompts] == before


def test_hash_of_too_short_a_prompt() -> None:
    """Anywhere; the bounded one to the fewest in flight."""
    short = prompt(("hi", 15))
    assert picks(RingHash(fleet()), members(3, 0, 0), short) == {"r0", "r1", "r2"}
    assert picks(BoundedHash(fleet()), members(3, 0, 0), UNKNOWN) == {"r1", "r2"}


@pytest.mark.parametrize(
    ("on_home", "elsewhere", "stays"),
    [
        (0, 0, True),
        (1, 0, False),  # of 2 in all it may have 0.625, rounded up 1: that it has
        (5, 4, True),  # of 18 in all 5.6, rounded up 6: this one is the 6th
        (6, 4, False),  # of 19 in all 5.9, rounded up 6
        (25, 20, True),  # of 86 in all 26.9, rounded up 27
        (27, 20, True),  # of 88 in all 27.5, rounded up 28: this one is the 28th
        (28, 20, False),  # of 89 in all 27.8, rounded up 28
    ],
)
def test_bounded_hash_overflows_at_its_bound(on_home: int, elsewhere: int, stays: bool) -> None:
    """A replica takes no more than 1.25 times the mean, this request included, rounded up."""
    policy, ask = BoundedHash(fleet()), prompt(("system", 256))
    home = policy.pick(members(0, 0, 0, 0), ask).name
    loads = {f"r{number}": elsewhere for number in range(4)} | {home: on_home}
    chosen = policy.pick([Member(*item) for item in loads.items()], ask).name
    assert (chosen == home) is stays


def test_bounded_hash_overflows_to_the_same_neighbour() -> None:
    """A hot prefix has a second home, not all of them."""
    policy, ask = BoundedHash(fleet()), prompt(("system", 256))
    home = policy.pick(members(0, 0, 0, 0), ask).name
    loads = [9 if f"r{number}" == home else 4 for number in range(4)]
    assert len(picks(policy, members(*loads), ask)) == 1


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.integers(0, 50))
@settings(max_examples=100)
def test_bounded_hash_keeps_its_bound(loads: list[int], number: int) -> None:
    """For any loads."""
    policy, candidates = BoundedHash(fleet()), members(*loads)
    chosen = policy.pick(candidates, prompt((f"{number}", 32)))
    assert chosen.in_flight < 1.25 * (sum(loads) + 1) / len(loads)  # so with it, rounded up


def test_higress_follows_the_conversation() -> None:
    """Each turn goes where the one before went, whatever the load."""
    policy = HigressPrefix(fleet())
    first = prompt(("system", 100), ("q1", 60))
    second = prompt(("system", 100), ("q1", 60), ("a1", 200), ("q2", 60))
    send(policy, members(0, 0)[1], first)
    assert picks(policy, members(0, 1000), second) == {"r1"}
    assert picks(policy, members(0, 1000), first) == {"r1"}


def test_higress_does_not_match_a_system_prompt_alone() -> None:
    """Another first question is another conversation: fewest in flight, at random among equals."""
    policy = HigressPrefix(fleet())
    send(policy, members(0)[0], prompt(("system", 640), ("q1", 60)))
    assert picks(policy, members(0, 0, 5), prompt(("system", 640), ("q2", 60))) == {"r0", "r1"}


def test_higress_goes_by_the_longest_turn_known() -> None:
    """A conversation that was moved stays where it was moved to."""
    policy = HigressPrefix(fleet())
    turns = [prompt(*((f"t{turn}", 64) for turn in range(length))) for length in (1, 2, 3)]
    send(policy, members(0, 0)[0], turns[0])
    send(policy, members(0, 0)[1], turns[1])
    assert picks(policy, members(0, 0), turns[2]) == {"r1"}
    assert picks(policy, [*members(0, 0)[:1], Member("r2")], turns[2]) == {"r0"}  # r1 is away


def test_higress_forgets_half_an_hour_after_the_last_use() -> None:
    """Each use, a match too, begins the time again."""
    clock = Clock()
    policy, ask = HigressPrefix(fleet(clock=clock)), prompt(("q", 64))
    send(policy, members(0, 0)[1], ask)
    for _ in range(2):
        clock.now_s += 1800
        assert policy.pick(members(0, 9), ask).name == "r1"
    clock.now_s += 1801
    assert policy.pick(members(0, 9), ask).name == "r0"


def test_session_stays_whatever_the_load() -> None:
    """A new one, and a request without one, goes to the fewest in flight."""
    policy = SessionSticky(fleet())
    send(policy, members(0, 0)[1], prompt(("q", 64), session="a"))
    assert picks(policy, members(0, 99), prompt(("other", 64), session="a")) == {"r1"}
    assert picks(policy, members(0, 0, 99), prompt(("q", 64), session="b")) == {"r0", "r1"}
    assert picks(policy, members(0, 0, 99), prompt(("q", 64))) == {"r0", "r1"}


def test_session_moves_for_good_if_its_replica_is_away() -> None:
    """It does not go back to a cache that is older."""
    policy, everyone, ask = SessionSticky(fleet()), members(0, 9), prompt(session="a")
    send(policy, everyone[1], ask, until="over")
    moved = policy.pick(everyone[:1], ask)
    send(policy, moved, ask, until="over")
    assert picks(policy, members(9, 0), ask) == {"r0"}


def test_session_is_forgotten_after_two_hours() -> None:
    """Of silence."""
    clock = Clock()
    policy, ask = SessionSticky(fleet(clock=clock)), prompt(session="a")
    send(policy, members(0, 0)[1], ask, until="over")
    clock.now_s = 7200
    assert picks(policy, members(0, 9), ask) == {"r1"}
    clock.now_s = 7201
    assert picks(policy, members(0, 9), ask) == {"r0"}


def test_recent_is_bounded() -> None:
    """In number, the oldest use first, and in time, also those never asked for again."""
    clock = Clock()
    recent: Recent[str] = Recent(10, clock, most=2)
    for key in ("a", "b", "a", "c"):
        recent.use(key, "r")
    assert [key for key in "abc" if recent.get(key)] == ["a", "c"]
    clock.now_s = 11
    recent.use("d", "r")
    assert len(recent) == 1


def test_ring_names_everyone_once() -> None:
    """From any key on, in an order that does not depend on who else was ever there."""
    ring, other = Ring(20), Ring(20)
    ring.cover({"a", "b", "c"})
    other.cover([f"gone {number}" for number in range(9)])
    other.cover({"a", "b", "c"})  # so few of the old ones are left that they are forgotten
    for key in range(50):
        names = list(ring.names_from(key))
        assert sorted(names) == ["a", "b", "c"]
        assert list(other.names_from(key)) == names


def test_ring_deals_out_evenly() -> None:
    """With 150 points each, nobody gets twice the share of another."""
    policy, candidates = RingHash(fleet()), members(*[0] * 8)
    dealt = Counter(policy.pick(candidates, prompt((f"{n}", 16))).name for n in range(2000))
    assert max(dealt.values()) < 2 * min(dealt.values())
