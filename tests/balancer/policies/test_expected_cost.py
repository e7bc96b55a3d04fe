"""The cost in seconds, term by term; what it makes of what is learned; how it explains itself."""

from __future__ import annotations

import time

import pytest

from balancer.policies import ExpectedCost, Outcome
from balancer.policies.expected_cost import TERMS
from balancer.readings import Gauges
from balancer.speed import Speed
from tests.balancer.made import Clock, Member, Request, members, picks

RATE, STREAM_S = 1000.0, 0.0005
START_S, TOKEN_S = 0.03, 0.015  # first guesses of a balancer that has seen nothing


def _pool(count: int = 2, kv_tokens: int = 10**9) -> list[Member]:
    made = members(*[0] * count)
    for member in made:
        member.speed = Speed(RATE, STREAM_S)
        member.gauges = Gauges(at=0.0, kv_tokens=kv_tokens)
    return made


def _terms(policy: ExpectedCost, candidates: list[Member], ask: Request) -> dict[str, list[float]]:
    """By replica."""
    policy.pick(candidates, ask)
    assert policy.explanation is not None
    assert policy.explanation.terms == TERMS
    return {one.replica: list(one.terms) for one in policy.explanation.candidates}


def test_each_term() -> None:
    """Against the formula worked out by hand: r0 warm and busy, r1 cold and idle."""
    policy, candidates = ExpectedCost(1, clock=Clock()), _pool(kv_tokens=6400)
    warm = candidates[0]
    warm.hold(range(10))
    warm.take(320, blocks=range(20, 25))
    terms = _terms(policy, candidates, Request(((1, 800),), matches={"r0": 640}))
    k = (10 + 5 + 2) / 100
    decode_s = 100 * STREAM_S * 2
    assert terms["r0"] == pytest.approx([0.32, 0.16, 0.0, decode_s, 0.15 * k / (1 - k)])
    assert terms["r1"] == pytest.approx([0.0, 0.8, 0.64 * 3.0, 0.0, 0.0])


def test_waste_grows_with_the_streams_it_stalls() -> None:
    """A cold candidate with n in flight pays 3 + 0.3 n for each token read again."""
    policy, candidates = ExpectedCost(1, clock=Clock()), _pool()
    for _ in range(4):
        candidates[1].hold()
    terms = _terms(policy, candidates, Request(((1, 640),), matches={"r0": 640}))
    assert terms["r1"][2] == pytest.approx(639 / RATE * (3 + 0.3 * 4))


def test_copies_of_what_many_use_are_cheaper() -> None:
    """Three prompts in flight begin with the same 640 tokens: a copy displaces a quarter as much.
    Of a longer beginning that only one of them has, half as much."""
    policy, candidates = ExpectedCost(1, clock=Clock()), _pool()
    ask = Request(((1, 960),), matches={"r0": 640})
    for count in (10, 10, 15):
        candidates[0].hold(ask.blocks(64)[:count])
    terms = _terms(policy, candidates, ask)
    assert terms["r1"][2] == pytest.approx(640 / RATE * 3 / 4)
    longer = Request(((1, 960),), matches={"r0": 960})
    terms = _terms(policy, candidates, longer)
    assert terms["r1"][2] == pytest.approx(959 / RATE * 3 / 2)


def test_what_somebody_else_holds_is_no_waste() -> None:
    """A replica that is away holds the prompt: of those that may take it nobody does."""
    policy, candidates = ExpectedCost(1, clock=Clock()), _pool()
    terms = _terms(policy, candidates, Request(((1, 640),), matches={"away": 640}))
    assert [row[2] for row in terms.values()] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("limit", "usual", "tokens"), [(None, 200, 100), (10, 200, 10), (4000, 200, 100), (None, 4, 4)]
)
def test_how_long_an_answer_counts(limit: int | None, usual: int, tokens: float) -> None:
    """A hundred tokens; fewer if its limit, or what answers usually come to, is less."""
    policy, candidates = ExpectedCost(1, clock=Clock()), _pool()
    candidates[0].hold()
    for _ in range(2000):
        policy.released(candidates[0], Request(), Outcome(answered=True, output_tokens=usual))
    terms = _terms(policy, candidates, Request(output_tokens=limit))
    assert terms["r0"][3] == pytest.approx(tokens * STREAM_S, rel=0.01)


def test_outcomes_of_which_nothing_is_known_teach_nothing() -> None:
    """A failed request has no answer: that is not an answer of no length."""
    policy, candidates = ExpectedCost(1, clock=Clock()), _pool()
    candidates[0].hold()
    for _ in range(2000):
        policy.released(candidates[0], Request(), Outcome())
    assert _terms(policy, candidates, Request())["r0"][3] == pytest.approx(100 * STREAM_S)


@pytest.mark.parametrize(("queued", "chosen"), [(2500, {"r0"}), (2600, {"r1"})])
def test_warm_is_left_when_the_wait_outweighs_the_waste(queued: int, chosen: set[str]) -> None:
    """639 tokens to read again at 1 + 3 each: worth 2556 queued ones, less what decoding takes."""
    policy, candidates = ExpectedCost(1, clock=Clock()), _pool()
    for candidate in candidates:
        candidate.speed = Speed(RATE, 1e-9)
    candidates[0].take(queued)
    assert picks(policy, candidates, Request(((1, 640),), matches={"r0": 640})) == chosen


@pytest.mark.parametrize(("tokens", "chosen"), [(0, {"r0"}), (100_000, {"r0", "r1"})])
def test_ties_within_a_tolerance(tokens: int, chosen: set[str]) -> None:
    """50 ms apart: not alike, unless they are less than 1 % of the whole."""
    policy, candidates = ExpectedCost(1, clock=Clock()), _pool()
    candidates[1].hold()
    assert picks(policy, candidates, Request(((1, tokens),))) == chosen


def test_a_nearly_full_cache_is_avoided() -> None:
    """The barrier ends at 0.98: a full replica is dear, not impossible."""
    policy, candidates = ExpectedCost(1, clock=Clock()), _pool(kv_tokens=640)
    candidates[0].hold(range(10))
    for _ in range(3):
        candidates[1].hold()
    assert _terms(policy, candidates, Request())["r0"][4] == pytest.approx(0.15 * 49)
    assert picks(policy, candidates, Request()) == {"r1"}


def test_load_that_is_not_ours_counts() -> None:
    """Requests of others in its engine, and a foreign job on its GPU."""
    policy, candidates = ExpectedCost(1, clock=Clock()), _pool(3)
    candidates[0].foreign_requests = 3.0
    candidates[1].foreign_share = 0.5
    terms = _terms(policy, candidates, Request(((1, 500),)))
    assert terms["r0"][3] == pytest.approx(100 * STREAM_S * 3)
    assert terms["r1"][1] == pytest.approx(2 * terms["r2"][1])
    assert terms["r1"][3] == pytest.approx(100 * TOKEN_S)
    assert picks(policy, candidates, Request(((1, 500),))) == {"r2"}


def test_a_slow_replica_is_found_out() -> None:
    """After some seconds the others get most of the work; those alike keep alike."""
    clock, chosen = Clock(), list[str]()
    policy, candidates = ExpectedCost(1, clock=clock), _pool(3)
    for _ in range(200):
        one = policy.pick(candidates, Request(((1, 1000),)))
        chosen.append(one.name)
        charge = one.take(1000, now=clock.now)
        clock.now += 0.2 if one.name == "r0" else 0.05
        one.read(charge, clock.now)
        one.end(charge, clock.now, itl_s=0.02)
        clock.now += 0.01
    late = chosen[50:]
    assert late.count("r0") < 10
    assert min(late.count("r1"), late.count("r2")) > 40


def test_a_replica_that_was_forgotten_is_as_any_other() -> None:
    """It may come back under its name."""
    policy, candidates = ExpectedCost(1, clock=Clock()), _pool()
    policy.pick(candidates, Request())
    policy.forget("r1")
    policy.forget("never met")
    assert picks(policy, candidates, Request()) == {"r0", "r1"}


def test_before_the_first_pick_there_is_nothing_to_explain() -> None:
    """None, not an empty explanation."""
    assert ExpectedCost(1, clock=Clock()).explanation is None


def test_explanation() -> None:
    """The best sixteen, cheapest first, as they were at the time; what the chosen was to take."""
    policy, candidates = ExpectedCost(1, clock=Clock()), _pool(40)
    for number, candidate in enumerate(candidates):
        candidate.take(1 + 100 * number)
    ask = Request(((1, 500),), matches={"r0": 192})
    chosen = policy.pick(candidates, ask)
    chosen.take(5000)
    explained = policy.explanation
    assert explained is not None
    assert (explained.considered, explained.unit) == (40, "s")
    assert [one.replica for one in explained.candidates] == [f"r{n}" for n in range(16)]
    first = explained.candidates[0]
    assert (first.replica, first.in_flight, first.matched_tokens) == (chosen.name, 1, 192)
    assert explained.predicted_ttft_s == pytest.approx(START_S + 0.001 + 0.308)


@pytest.mark.parametrize(("count", "most_s"), [(4, 20e-6), (16, 50e-6), (1000, 2.5e-3)])
def test_a_pick_is_cheap(count: int, most_s: float) -> None:
    """Within twice of what it may take, since the machine may have other work."""
    policy, candidates = ExpectedCost(1, clock=Clock()), _pool(count)
    ask = Request(((1, 500),), matches={f"r{number}": 192 for number in range(count)})
    policy.pick(candidates, ask)
    times = []
    for _ in range(9):
        rounds, begun_s = max(1, 200 // count), time.process_time()
        for _ in range(rounds):
            policy.pick(candidates, ask)
        times.append((time.process_time() - begun_s) / rounds)
    assert min(times) < most_s
