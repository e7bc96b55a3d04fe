"""llm-d's two defaults: what weighs against what, and when a warm replica is let go."""

from __future__ import annotations

import pytest

from balancer.policies import UNKNOWN
from bench.simulate.reference.llmd_blend import LlmdBlend
from bench.simulate.reference.llmd_sticky import LlmdSticky
from tests.bench.simulate.reference.asks import Prompt, fleet, members, picks, prompt, send

WARM = prompt(("system", 640))


def test_blend_prefers_prefix_to_queue() -> None:
    """3 for a whole match outweigh the 2 for the queue, however long that is."""
    policy, candidates = LlmdBlend(fleet(kv_tokens=10**9)), members(0, 0)
    send(policy, candidates[0], WARM, until="over")
    for _ in range(50):
        send(policy, candidates[0], Prompt((("tiny", 5),)))
    assert picks(policy, candidates, WARM) == {"r0"}


def test_blend_prefers_queue_and_kv_to_prefix() -> None:
    """2 for the queue and up to 2 for the KV cache outweigh the 3."""
    policy, candidates = LlmdBlend(fleet(kv_tokens=1280)), members(0, 0)
    send(policy, candidates[0], WARM, until="over")
    for number in range(10):
        send(policy, candidates[0], prompt((f"cold {number}", 64)))
    assert picks(policy, candidates, WARM) == {"r1"}


def test_blend_half_a_match_loses_to_the_queue() -> None:
    """1.5 for half the prompt against 2."""
    policy, candidates = LlmdBlend(fleet()), members(0, 0)
    send(policy, candidates[0], prompt(("system", 320)), until="over")
    half = prompt(("system", 320), ("own", 320))
    assert picks(policy, candidates, half) == {"r0"}
    send(policy, candidates[0], Prompt((("tiny", 5),)))
    assert picks(policy, candidates, half) == {"r1"}


def test_blend_counts_as_waiting_only_until_the_first_event() -> None:
    """Then only KV cache in use speaks against it: a little."""
    policy, candidates = LlmdBlend(fleet()), members(0, 0)
    half = prompt(("system", 320), ("own", 320))
    send(policy, candidates[0], prompt(("system", 320)), until="over")
    send(policy, candidates[0], Prompt((("tiny", 5),)), until="answered")
    assert picks(policy, candidates, half) == {"r0"}


def test_blend_ties_are_spread() -> None:
    """Also for a request of which nothing is known."""
    assert picks(LlmdBlend(fleet()), members(0, 0, 0), UNKNOWN) == {"r0", "r1", "r2"}


@pytest.mark.parametrize(("held", "chosen"), [(512, {"r0"}), (448, {"r1"})])
def test_sticky_from_four_fifths_on(held: int, chosen: set[str]) -> None:
    """Of 640 tokens: with 512 held the busier replica is kept, with 448 the idle one is taken."""
    policy, candidates = LlmdSticky(fleet()), members(0, 0)
    send(policy, candidates[0], prompt(("system", held)), until="over")
    send(policy, candidates[0], prompt(("cold", 960)))
    assert picks(policy, candidates, prompt(("system", held), ("own", 640 - held))) == chosen


@pytest.mark.parametrize(("cold_tokens", "chosen"), [(1800, {"r0"}), (1801, {"r1"})])
def test_sticky_until_saturated(cold_tokens: int, chosen: set[str]) -> None:
    """At 100 tokens/s 1800 tokens ahead are 18 s: that is borne, one token more is not."""
    policy, candidates = LlmdSticky(fleet(rate=100.0)), members(0, 0)
    send(policy, candidates[0], WARM, until="over")
    send(policy, candidates[0], prompt(("cold", cold_tokens)))
    assert picks(policy, candidates, WARM) == chosen


def test_sticky_is_let_go_against_the_best_of_the_others() -> None:
    """The gap counts, not the load: 25 s here is borne while it is 10 s everywhere else."""
    policy, candidates = LlmdSticky(fleet(rate=100.0)), members(0, 0, 0)
    send(policy, candidates[0], WARM, until="over")
    for candidate, tokens in zip(candidates, (2500, 1000, 1500), strict=True):
        send(policy, candidate, prompt((f"cold {candidate.name}", tokens)))
    assert picks(policy, candidates, WARM) == {"r0"}
    send(policy, candidates[0], prompt(("more", 400)))
    assert picks(policy, candidates, WARM) == {"r1"}


def test_sticky_load_is_read_tokens_not_requests() -> None:
    """Streams that are past their first event weigh nothing: decode is not seen."""
    policy, candidates = LlmdSticky(fleet()), members(0, 0)
    for number in range(9):
        send(policy, candidates[0], prompt((f"cold {number}", 64)), until="answered")
    send(policy, candidates[1], Prompt((("tiny", 5),)))
    assert picks(policy, candidates, prompt(("new", 64))) == {"r0"}


def test_sticky_takes_the_lighter_of_two_warm() -> None:
    """And never the idle cold one."""
    policy, candidates = LlmdSticky(fleet()), members(0, 0, 0)
    for candidate in candidates[:2]:
        send(policy, candidate, WARM, until="over")
    send(policy, candidates[0], prompt(("cold", 64)))
    assert picks(policy, candidates, WARM) == {"r1"}
    send(policy, candidates[1], prompt(("cold", 64)))
    assert picks(policy, candidates, WARM) == {"r0", "r1"}
