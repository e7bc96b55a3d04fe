"""What holds for every policy, whatever comes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.load import Charge
from balancer.policies import DEFAULT_POLICY, POLICIES, UNKNOWN, Ask, Outcome, PolicyName
from balancer.readings import Gauges, GpuReading
from tests.balancer.made import Clock, Member, Request, make, members

ASKS: list[Ask] = [
    UNKNOWN,
    Request(((1, 5),), session="s0"),
    Request(((2, 200), (3, 40)), session="s1"),
    Request(((2, 200), (3, 40), (4, 150)), session="s1", matches={"r0": 192, "gone": 256}),
    Request(((2, 200), (5, 90)), output_tokens=16, matches={"r1": 192, "r2": 64}),
]

every = pytest.mark.parametrize("name", POLICIES)


def test_the_default_is_one_of_them() -> None:
    """A pool that names no policy gets one that exists."""
    assert DEFAULT_POLICY in POLICIES


@every
@given(data=st.data())
@settings(max_examples=30)
def test_any_life(name: PolicyName, data: st.DataObject) -> None:
    """Replicas come, go, are forgotten and get readings; requests are answered or given up. What is
    picked is always one of those offered, and all counts return to zero."""
    clock, everyone = Clock(), members(0, 0, 0, 0)
    policy = make(name, 1, clock)
    leases: list[tuple[Member, Ask, Charge]] = []
    for _ in range(data.draw(st.integers(1, 25))):
        clock.now += data.draw(st.floats(0, 5))
        one = data.draw(st.sampled_from(everyone))
        match data.draw(
            st.sampled_from(["lease", "lease", "lease", "end", "read", "forget", "say"])
        ):
            case "lease":
                offered = data.draw(st.lists(st.sampled_from(everyone), min_size=1, unique_by=id))
                ask = data.draw(st.sampled_from(ASKS))
                chosen = policy.pick(offered, ask)
                assert chosen in offered
                leases.append((chosen, ask, chosen.take(ask.prompt_tokens or 1, now=clock.now)))
                policy.leased(chosen, ask)
            case "end" if leases:
                replica, ask, charge = leases.pop(data.draw(st.integers(0, len(leases) - 1)))
                replica.end(charge, clock.now, itl_s=None if charge.waiting else 0.01)
                policy.released(replica, ask, Outcome(output_tokens=100))
            case "read" if leases:
                replica, ask, charge = data.draw(st.sampled_from(leases))
                if charge.waiting:
                    replica.read(charge, clock.now)
                    policy.answered(replica, ask)
            case "forget":
                policy.forget(one.name)
            case "say":
                one.gauges = Gauges(at=clock.now, kv_tokens=10_000)
                one.gpu = GpuReading(at=clock.now, utilisation=data.draw(st.floats(0, 1)))
    for replica, ask, charge in leases:
        replica.end(charge, clock.now)
        policy.released(replica, ask, Outcome())
    for member in everyone:
        load = member.load
        assert (load.requests, load.waiting, load.waiting_tokens, load.kv_blocks) == (0, 0, 0, 0)


@every
def test_an_idle_pool_is_used_evenly(name: PolicyName) -> None:
    """Nothing in flight, nothing known: no replica gets more than its share by its place."""
    policy, candidates = make(name, 3), members(0, 0, 0, 0)
    picked = Counter(policy.pick(candidates, Request(((n, 100),))).name for n in range(400))
    assert min(picked.values()) > 60
    assert len(picked) == 4


@every
def test_the_same_seed_decides_the_same(name: PolicyName) -> None:
    """And so do the same events."""

    def decisions(policy: Any) -> list[str]:
        candidates, chosen = members(0, 0, 0), []
        for number in range(60):
            ask = Request(((number % 7, 128), (number, 64)), session=f"{number % 5}")
            one = policy.pick(candidates, ask)
            charge = one.take(ask.prompt_tokens, now=0.0)
            policy.leased(one, ask)
            if number % 3 == 0:
                one.end(charge)
                policy.released(one, ask, Outcome())
            chosen.append(one.name)
        return chosen

    assert decisions(make(name, 5)) == decisions(make(name, 5))


@every
def test_one_candidate_is_picked(name: PolicyName) -> None:
    """Whatever is known of it."""
    (only,) = members(7)
    assert make(name).pick([only], UNKNOWN) is only


@every
@pytest.mark.parametrize("ask", ASKS)
def test_explanation_names_the_choice(name: PolicyName, ask: Ask) -> None:
    """If there is one: its cheapest candidate is the one picked, but for a tie."""
    policy, candidates = make(name, 1), members(3, 0, 2, 5)
    chosen = policy.pick(candidates, ask)
    explanation = policy.explanation
    if explanation is None:
        return
    assert explanation.considered == 4
    costs = {one.replica: sum(one.terms) for one in explanation.candidates}
    assert list(costs.values()) == sorted(costs.values())
    assert costs[chosen.name] <= 1.01 * min(costs.values()) + 0.002
    assert all(len(one.terms) == len(explanation.terms) for one in explanation.candidates)
