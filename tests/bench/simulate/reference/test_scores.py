"""Policies that add up or multiply: where one number begins to outweigh the other."""

from __future__ import annotations

import pytest

from balancer.policies import UNKNOWN, Outcome
from bench.simulate.reference import Engine
from bench.simulate.reference.dynamo_cost import DynamoCost
from bench.simulate.reference.lmetric import LMetric
from bench.simulate.reference.smg_least_load import SmgLeastLoad
from tests.bench.simulate.reference.asks import Prompt, fleet, members, picks, prompt, send

WARM = prompt(("system", 640))


@pytest.mark.parametrize(("batch", "chosen"), [(1, {"r0"}), (2, {"r0", "r1"}), (3, {"r1"})])
def test_lmetric_multiplies(batch: int, chosen: set[str]) -> None:
    """r0 has a third of the prompt to read (320 of 960): worth a batch of three to one."""
    policy, candidates = LMetric(fleet()), members(0, 0)
    send(policy, candidates[0], WARM, until="over")
    for number in range(batch):
        send(policy, candidates[0], prompt((f"{number}", 64)), until="answered")
    assert picks(policy, candidates, prompt(("system", 640), ("own", 320))) == chosen


def test_lmetric_counts_what_waits() -> None:
    """Prompt tokens sent and not read yet are new tokens too, until the first event."""
    policy, candidates, cold = LMetric(fleet()), members(0, 0), prompt(("cold", 400))
    send(policy, candidates[0], WARM, until="over")
    send(policy, candidates[0], cold)
    ask = prompt(("system", 640), ("own", 320))  # r0: (400 + 320) x 2, r1: 960 x 1
    assert picks(policy, candidates, ask) == {"r1"}
    policy.answered(candidates[0], cold)  # r0: 320 x 2
    assert picks(policy, candidates, ask) == {"r0"}


def test_lmetric_sees_the_batch_even_if_all_is_held() -> None:
    """A prompt held completely everywhere goes to the smallest batch."""
    policy, candidates = LMetric(fleet()), members(0, 0, 0)
    for candidate in candidates:
        send(policy, candidate, WARM, until="over")
    send(policy, candidates[0], prompt(("own", 64)), until="answered")
    assert picks(policy, candidates, WARM) == {"r1", "r2"}


def test_dynamo_adds_blocks_to_read_and_blocks_in_use() -> None:
    """10 blocks held save 10: so much and no more may be in use there, shared ones aside."""
    policy, candidates = DynamoCost(fleet()), members(0, 0)
    send(policy, candidates[0], WARM, until="over")
    send(policy, candidates[0], prompt(("eight", 512)), until="answered")  # 8 and 1 of its own
    assert picks(policy, candidates, WARM) == {"r0"}
    send(policy, candidates[0], Prompt((("tiny", 5),)), until="answered")  # 10: a tie
    assert picks(policy, candidates, WARM) == {"r0", "r1"}
    send(policy, candidates[0], Prompt((("tiny", 6),)), until="answered")
    assert picks(policy, candidates, WARM) == {"r1"}


def test_dynamo_counts_shared_blocks_once() -> None:
    """Nine more requests with the prompt in flight take one block each, not eleven."""
    policy, candidates = DynamoCost(fleet()), members(0, 0)
    for _ in range(10):
        send(policy, candidates[0], WARM, until="answered")
    assert policy.load(candidates[0]).kv_blocks == 20
    send(policy, candidates[1], prompt(("other", 512)), until="answered")
    # r0: 0 to read, 20 + 0 + 1 in use; r1: 10 to read, 9 + 10 + 1 in use
    assert picks(policy, candidates, WARM) == {"r0"}


def test_dynamo_charges_prompts_until_they_are_read() -> None:
    """Then only for the blocks they keep."""
    policy, candidates, cold = DynamoCost(fleet()), members(0, 0), prompt(("cold", 640))
    send(policy, candidates[0], WARM, until="over")
    send(policy, candidates[0], cold)
    assert picks(policy, candidates, WARM) == {"r1"}  # 10 to read and 11 in use against 10
    policy.answered(candidates[0], cold)
    policy.released(candidates[0], cold, Outcome())
    assert picks(policy, candidates, WARM) == {"r0"}


def test_smg_goes_by_time_not_by_tokens() -> None:
    """Twice the queue on a replica four times as fast is the shorter wait."""
    fast = Engine(kv_tokens=10**9, prefill_tokens_per_s=40_000.0, max_running=128)
    policy = SmgLeastLoad(fleet(kv_tokens=10**9, engines={"r1": fast}))
    candidates = members(0, 0)
    send(policy, candidates[0], prompt(("one", 500)))
    send(policy, candidates[1], prompt(("two", 1000)))
    assert picks(policy, candidates, WARM) == {"r1"}


def test_smg_keeps_off_a_full_cache() -> None:
    """0.15 s x 9 at 90 % in use is a longer way than 1 s of queue; at 50 % it is not."""
    policy, candidates = SmgLeastLoad(fleet(kv_tokens=6400, rate=500.0)), members(0, 0)
    send(policy, candidates[1], prompt(("queue", 500)))  # 1 s and 8 of 100 blocks
    for number in range(10):
        send(policy, candidates[0], prompt((f"{number}", 256)), until="answered")
    assert picks(policy, candidates, WARM) == {"r0"}  # 50 of 100 blocks
    for number in range(10, 18):
        send(policy, candidates[0], prompt((f"{number}", 256)), until="answered")
    assert picks(policy, candidates, WARM) == {"r1"}  # 90 of 100 blocks


def test_smg_charges_the_unknown() -> None:
    """A request without a count is taken for 1024 tokens."""
    policy, candidates = SmgLeastLoad(fleet()), members(0, 0)
    send(policy, candidates[0], UNKNOWN)
    assert policy.load(candidates[0]).waiting_tokens == 1024
    assert picks(policy, candidates, UNKNOWN) == {"r1"}
