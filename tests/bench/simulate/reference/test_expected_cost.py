"""The cost in seconds, term by term."""

from __future__ import annotations

import pytest

from balancer.policies import UNKNOWN
from bench.simulate.reference import Engine
from bench.simulate.reference.expected_cost import ExpectedCost
from tests.bench.simulate.reference.asks import Prompt, fleet, members, picks, prompt, send

WARM = prompt(("system", 640))
HUGE = 10**12  # a cache so large that its barrier is nothing


def test_each_term() -> None:
    """Against the formula worked out by hand: r0 warm and busy, r1 cold and idle."""
    policy, candidates = ExpectedCost(fleet(rate=1000.0, kv_tokens=6400)), members(0, 0)
    send(policy, candidates[0], WARM, until="answered")
    send(policy, candidates[0], prompt(("cold", 320)))
    warm_s, cold_s = policy.costs_s(candidates, prompt(("system", 640), ("own", 160)))
    k = (10 + 5 + 2) / 100
    decode_s = 200 * 0.00042 * 2
    assert warm_s == pytest.approx((320 + 160) / 1000 + decode_s + 0.15 * k / (1 - k))
    assert cold_s == pytest.approx((800 + 640 * 3) / 1000)


def test_waste_grows_with_the_streams_it_stalls() -> None:
    """A cold candidate with n in flight pays 3 + n/2 for each token read again."""
    policy, candidates = ExpectedCost(fleet(rate=1000.0, kv_tokens=HUGE)), members(0, 4)
    send(policy, candidates[0], WARM, until="over")
    _, cold_s = policy.costs_s(candidates, WARM)
    assert cold_s == pytest.approx((640 + 639 * (3 + 0.5 * 4)) / 1000 + 200 * 0.00042 * 4)


def test_cold_prompts_pay_no_waste() -> None:
    """They are new everywhere: only queue, work and decode decide."""
    policy = ExpectedCost(fleet(rate=1000.0, kv_tokens=HUGE))
    costs = policy.costs_s(members(10, 0), prompt(("cold", 500)))
    assert costs == pytest.approx([0.5 + 200 * 0.00042 * 10, 0.5])


def test_answer_is_no_longer_than_its_limit() -> None:
    """A request for 10 tokens does not mind company as one for 200 does."""
    policy, candidates = ExpectedCost(fleet(kv_tokens=HUGE)), members(10)
    short = policy.costs_s(candidates, Prompt(output_tokens=10))
    long = policy.costs_s(candidates, Prompt(output_tokens=4000))
    assert long[0] - short[0] == pytest.approx(190 * 0.00042 * 10)


@pytest.mark.parametrize(("queued", "chosen"), [(2500, {"r0"}), (2600, {"r1"})])
def test_warm_is_left_when_the_wait_outweighs_the_waste(queued: int, chosen: set[str]) -> None:
    """639 tokens to read again at 1 + 3 each: worth 2556 queued ones, give or take 1 %."""
    engine = Engine(
        kv_tokens=HUGE, prefill_tokens_per_s=1000.0, max_running=128, decode_s_per_stream=1e-9
    )
    policy = ExpectedCost(fleet(engines={"r0": engine, "r1": engine}))
    candidates = members(0, 0)
    send(policy, candidates[0], WARM, until="over")
    send(policy, candidates[0], prompt(("queue", queued)))
    assert picks(policy, candidates, WARM) == chosen


@pytest.mark.parametrize(
    ("prompt_tokens", "in_flight", "chosen"),
    [
        (0, (0, 1), {"r0"}),  # 84 ms apart
        (100_000, (0, 1), {"r0", "r1"}),  # 84 ms of 10 s are less than 1 %
    ],
)
def test_ties_within_a_tolerance(
    prompt_tokens: int, in_flight: tuple[int, int], chosen: set[str]
) -> None:
    """What the estimate cannot tell apart is spread."""

    class Long(Prompt):
        @property
        def prompt_tokens(self) -> int:
            return prompt_tokens

    policy = ExpectedCost(fleet(kv_tokens=HUGE))
    assert picks(policy, members(*in_flight), Long()) == chosen


def test_nearly_full_cache_is_avoided() -> None:
    """The barrier ends at 0.98: a full replica is dear, not impossible."""
    policy, candidates = ExpectedCost(fleet(kv_tokens=640)), members(0, 3)
    send(policy, candidates[0], prompt(("cold", 640)), until="answered")
    costs = policy.costs_s(candidates, UNKNOWN)
    assert picks(policy, candidates, UNKNOWN) == {"r1"}
    assert costs[0] == pytest.approx(1 / 10_000 + 200 * 0.00042 + 0.15 * 49)
