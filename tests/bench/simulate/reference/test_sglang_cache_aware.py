"""SGLang's three branches and its two thresholds."""

from __future__ import annotations

import pytest

from bench.simulate.reference import REFERENCE
from bench.simulate.reference.sglang_cache_aware import SglangCacheAware
from tests.bench.simulate.reference.asks import fleet, members, picks, prompt, send

WARM = prompt(("system", 640), ("question", 64))


@pytest.mark.parametrize(
    ("name", "loads", "chosen"),
    [
        ("sglang_cache_aware", (64, 0), "r0"),  # not more than 64 apart
        ("sglang_cache_aware", (65, 0), "r1"),
        ("sglang_cache_aware", (300, 200), "r0"),  # not more than 1.5 times
        ("sglang_cache_aware", (301, 200), "r1"),
        ("sglang_cache_aware_code", (32, 0), "r0"),
        ("sglang_cache_aware_code", (33, 0), "r1"),
        ("sglang_cache_aware_code", (440, 400), "r0"),  # not more than 1.1 times
        ("sglang_cache_aware_code", (441, 400), "r1"),
    ],
)
def test_imbalance_takes_both_thresholds(name: str, loads: tuple[int, int], chosen: str) -> None:
    """r0 has the prefix; it loses the request only if it is ahead absolutely and relatively."""
    policy, candidates = REFERENCE[name](fleet()), members(*loads)
    send(policy, members(0)[0], WARM)
    assert picks(policy, candidates, WARM) == {chosen}


@pytest.mark.parametrize(("matched", "chosen"), [(192, "r1"), (256, "r0")])
def test_match_counts_above_its_share(matched: int, chosen: str) -> None:
    """Of 640 tokens 192 are 0.3 exactly, which is not enough: then the least loaded gets it."""
    policy, candidates = SglangCacheAware(fleet()), members(1, 0)
    send(policy, members(0)[0], prompt(("system", matched)))
    assert picks(policy, candidates, prompt(("system", matched), ("own", 640 - matched))) == {
        chosen
    }


def test_last_who_was_sent_the_prefix_has_it() -> None:
    """One replica per prefix, though both hold it; and only while it may be chosen."""
    policy, candidates = SglangCacheAware(fleet()), members(0, 0, 0)
    send(policy, candidates[0], WARM, until="over")
    send(policy, candidates[1], WARM, until="over")
    assert picks(policy, candidates, WARM) == {"r1"}
    assert picks(policy, [candidates[0], candidates[2]], WARM) == {"r2"}  # r0 was sent one already


def test_tree_learns_what_imbalance_decided() -> None:
    """After the burst, the one that took over keeps the prefix."""
    policy = SglangCacheAware(fleet())
    send(policy, members(0)[0], WARM, until="over")
    over = policy.pick(members(65, 0), WARM)
    send(policy, over, WARM, until="over")
    assert picks(policy, members(0, 0), WARM) == {"r1"}


def test_least_loaded_ties_go_to_the_least_used() -> None:
    """Cold requests that end at once are dealt out in turn."""
    policy, candidates = SglangCacheAware(fleet()), members(0, 0, 0)
    dealt = []
    for number in range(6):
        cold = prompt((f"cold {number}", 64))
        replica = policy.pick(candidates, cold)
        send(policy, replica, cold, until="over")
        dealt.append(replica.name)
    assert dealt == ["r0", "r1", "r2"] * 2


def test_tree_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the prompt sent longest ago goes first."""
    monkeypatch.setattr("bench.simulate.reference.sglang_cache_aware._MOST_TOKENS", 6 * 64)
    policy, candidates = SglangCacheAware(fleet()), members(0, 0)
    old, new = prompt(("old", 256)), prompt(("new", 256))
    send(policy, candidates[0], old)
    send(policy, candidates[1], new)
    assert len(policy._last_sent) == 6
    assert picks(policy, members(5, 0), old) == {"r0"}  # half of it is left, more than 0.3
    assert picks(policy, members(5, 9), prompt(("old", 64), ("else", 192))) == {"r0"}
