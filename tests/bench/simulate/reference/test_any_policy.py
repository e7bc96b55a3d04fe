"""What holds for every reference policy, whatever comes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.policies import UNKNOWN, Ask, Outcome
from balancer.pool import Pool
from balancer.replica import Replica
from balancer.wire.connect import Dialer
from bench.simulate.reference import REFERENCE
from bench.simulate.reference.books import OwnBooks
from tests.bench.simulate.reference.asks import Clock, Member, Prompt, fleet, members, prompt

SHARED = ("system", 200)
ASKS: list[Ask] = [
    UNKNOWN,
    prompt(("short", 5), session="s0"),
    prompt(SHARED, ("one", 40), session="s1"),
    prompt(SHARED, ("one", 40), ("more", 150), session="s1"),
    prompt(SHARED, ("two", 90), session="s2"),
    Prompt((("other", 700),), output_tokens=16),
]

every = pytest.mark.parametrize("name", REFERENCE)


class Lease:
    """A request on its way, and whether its first event came."""

    def __init__(self, replica: Member, ask: Ask) -> None:
        self.replica, self.ask, self.answered = replica, ask, False


def assert_nothing_is_booked(policy: Any) -> None:
    if isinstance(policy, OwnBooks):
        assert policy.ledger.loads == {}
        assert policy.ledger._charges == {}


@every
@given(data=st.data())
@settings(max_examples=40)
def test_books_return_to_zero(name: str, data: st.DataObject) -> None:
    """After any order of leases, first events and ends, abandoned ones too; and while requests
    are out, the books agree with the leases."""
    clock, everyone = Clock(), members(0, 0, 0, 0)
    policy = REFERENCE[name](fleet(kv_tokens=1000, clock=clock))
    leases: list[Lease] = []
    for _ in range(data.draw(st.integers(0, 25))):
        clock.now_s += data.draw(st.floats(0, 5))
        action = data.draw(st.sampled_from(["lease", "lease", "answer", "release"]))
        waiting = [lease for lease in leases if not lease.answered]
        if action == "lease":
            offered = data.draw(st.lists(st.sampled_from(everyone), min_size=1, unique_by=id))
            ask = data.draw(st.sampled_from(ASKS))
            chosen = policy.pick(offered, ask)
            assert chosen in offered
            chosen.in_flight += 1
            policy.leased(chosen, ask)
            leases.append(Lease(chosen, ask))
        elif action == "answer" and waiting:
            lease = data.draw(st.sampled_from(waiting))
            lease.answered = True
            policy.answered(lease.replica, lease.ask)
        elif action == "release" and leases:
            lease = leases.pop(data.draw(st.integers(0, len(leases) - 1)))
            lease.replica.in_flight -= 1
            policy.released(lease.replica, lease.ask, Outcome())
        if isinstance(policy, OwnBooks):
            loads = {one: load.requests for one, load in policy.ledger.loads.items()}
            assert loads == Counter(lease.replica.name for lease in leases)
            for load in policy.ledger.loads.values():
                assert 0 <= load.waiting <= load.requests
                assert load.waiting <= load.waiting_tokens
    for lease in leases:
        policy.released(lease.replica, lease.ask, Outcome())
    assert_nothing_is_booked(policy)


@every
def test_same_seed_same_choices(name: str) -> None:
    """And another seed makes no other promise: nothing comes from a global source of chance."""

    def chosen(seed: int) -> list[str]:
        policy, candidates = REFERENCE[name](fleet(seed=seed)), members(0, 0, 0, 0, 0)
        made = []
        for number in range(40):
            ask = prompt(SHARED, (f"question {number % 7}", 64), session=f"s{number % 7}")
            replica = policy.pick(candidates, ask)
            replica.in_flight += 1
            policy.leased(replica, ask)
            made.append(replica.name)
        return made

    assert chosen(3) == chosen(3)


@every
def test_cold_requests_to_an_idle_fleet_go_everywhere(name: str) -> None:
    """The first in the list does not win the ties."""
    policy, candidates = REFERENCE[name](fleet()), members(0, 0, 0, 0)
    picked: Counter[str] = Counter()
    for number in range(200):
        ask = prompt((f"prompt {number}", 64))
        replica = policy.pick(candidates, ask)
        policy.leased(replica, ask)
        policy.answered(replica, ask)
        policy.released(replica, ask, Outcome())
        picked[replica.name] += 1
    assert all(picked[candidate.name] >= 20 for candidate in candidates)


@every
async def test_in_the_balancers_pool(name: str) -> None:
    """The real pool leases by it, to a full fleet and back; on one replica twice the same ask."""
    policy = REFERENCE[name](fleet(replicas=3))
    replicas = [Replica(f"http://r{number}", Dialer(), max_in_flight=2) for number in range(3)]
    pool = Pool("m", replicas, policy)
    leases = []
    for ask in (ASKS[2], ASKS[2], ASKS[3], ASKS[4], ASKS[4], UNKNOWN):
        lease = pool.lease_nowait((), ask)
        assert lease is not None
        leases.append(lease)
    assert pool.lease_nowait((), UNKNOWN) is None
    for number, lease in enumerate(leases):
        if number % 2:
            lease.answered()
        lease.release()
    assert [replica.in_flight for replica in replicas] == [0, 0, 0]
    assert_nothing_is_booked(policy)
