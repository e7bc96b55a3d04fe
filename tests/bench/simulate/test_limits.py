"""The limits bound what policies reach: by hand on small cases, by simulation on the usual ones."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.engine import find_profile
from bench.simulate.cell import CLAIRVOYANT, INFINITE_CACHE, simulate_workload
from bench.simulate.limits import best_hit_rate, found_at_best, least_ttft_s
from bench.workload.model import Segment, Turn, Workload
from bench.workload.named import WORKLOADS, WorkloadOptions
from bench.workload.reuse import reuse
from tests.bench.simulate.small import ENGINE, run, ttfts_s, turn, workload

FAST = find_profile("h100-llama-8b")
OPEN = ("shared-prefix", "agent", "cold-heavy-tail", "hot-prefix", "fan-out", "mixed-tiers")
PERCENTILES = ("p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95", "p99", "avg")


def test_everything_before_it_is_found_in_whole_blocks() -> None:
    """Prompts and answers of all that came before, by due time; the last token is never found."""
    first = turn(1, 100, 60, due_s=5.0)
    again = turn(1, 100, 60, due_s=9.0)
    followed = turn(3, 40, due_s=0.0, before=(*first.prompt, Segment(-1, 60)))
    found = found_at_best(workload([again], [first], [followed]), 16, 2_000)
    # `followed` comes first and finds nothing; the others find what it shares with them.
    assert [each.cached_tokens for each in found] == [0, 96, 96]
    assert best_hit_rate(found) == 192 / 400


def test_refused_requests_are_in_no_limit() -> None:
    """Nor are those after them in the session: no policy answers them either."""
    played = workload([turn(1, 100), turn(2, 1_999), turn(3, 10)], [turn(4, 100)])
    assert len(found_at_best(played, 16, 2_000)) == 2
    assert len(run(played).calls) == 2


def test_least_ttft_is_that_of_an_idle_replica() -> None:
    """To the microsecond, for a cold prompt of several chunks and for a warm one."""
    cold = turn(1, 1_300, due_s=0.0)
    warm = turn(2, 300, due_s=60.0, before=cold.prompt)
    played = workload([cold], [warm])
    bounds_s = least_ttft_s(found_at_best(played, 16, 2_000), [ENGINE])
    assert bounds_s == pytest.approx(ttfts_s(run(played).calls), abs=1e-6)
    assert bounds_s[1] < bounds_s[0] / 2


def test_of_an_unequal_fleet_the_fastest_for_each_request() -> None:
    """One engine reads long prompts faster, another short ones: neither alone is the limit."""
    quick = msgspec.structs.replace(ENGINE, name="quick", weights_s=0.001, token_s=0.001)
    found = found_at_best(workload([turn(1, 2)], [turn(2, 1_000)]), 16, 2_000)
    both = least_ttft_s(found, [ENGINE, quick, ENGINE])
    assert both == [least_ttft_s(found, [quick])[0], least_ttft_s(found, [ENGINE])[1]]


def test_nothing_served_has_no_limit() -> None:
    """As everywhere: nothing measured is not zero."""
    assert best_hit_rate([]) is None


@pytest.mark.parametrize("name", OPEN)
def test_hit_rate_limit_is_the_reuse_of_the_workload(name: str) -> None:
    """Two ways to the same number: with blocks of one token it is the share of segments seen."""
    played = WORKLOADS[name](WorkloadOptions(scale=0.03))
    limit = best_hit_rate(found_at_best(played, 1, 1_000_000))
    # The last token of a prompt is always computed, so it is a little below.
    assert limit == pytest.approx(reuse(played).share, abs=0.002)


turns = st.builds(
    Turn,
    prompt=st.lists(st.builds(Segment, st.integers(1, 5), st.just(90)), min_size=1, max_size=5).map(
        tuple
    ),
    output_tokens=st.integers(1, 8),
    answer=st.integers(100, 120),
    due_s=st.floats(0, 3),
)


@given(st.lists(turns, min_size=1, max_size=12), st.integers(1, 3))
@settings(max_examples=60)
def test_no_placement_finds_more(turns_due: list[Turn], replicas: int) -> None:
    """The hit rate of any run stays below the limit, however its requests fall."""
    played = workload(*([each] for each in turns_due))
    calls = run(played, replicas).calls
    found = found_at_best(played, ENGINE.block_tokens, 2_000)
    assert sum(calls.cached_tokens) <= sum(each.cached_tokens for each in found)
    assert sum(calls.prompt_tokens) == sum(each.prompt_tokens for each in found)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPEN)
def test_no_policy_is_better_than_the_limits(name: str) -> None:
    """At no percentile of TTFT, and in no hit rate."""
    played = WORKLOADS[name](WorkloadOptions(replicas=2, scale=0.04))
    fleet = [FAST] * 2
    best = simulate_workload(played, fleet, INFINITE_CACHE)
    soonest = simulate_workload(played, fleet, CLAIRVOYANT).ttft_s
    assert best.hit_rate is not None
    assert soonest is not None
    for policy in ("round_robin", "sglang_cache_aware", "lmetric", "llmd_sticky", "expected_cost"):
        row = simulate_workload(played, fleet, policy)
        assert row.requests == best.requests == soonest.count
        assert row.hit_rate is not None
        assert row.hit_rate <= best.hit_rate + 1e-9
        assert row.ttft_s is not None
        for percentile in PERCENTILES:
            assert row.ttft_s.get(percentile) >= soonest.get(percentile) * (1 - 1e-9), percentile


def _closed(name: str) -> Workload:
    return WORKLOADS[name](WorkloadOptions(replicas=2, scale=0.1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["multi-turn", "coding-agent"])
def test_limits_hold_in_a_closed_loop(name: str) -> None:
    """There the order of requests is up to the policy; the hit rate does not depend on it."""
    played, fleet = _closed(name), [FAST] * 2
    best = simulate_workload(played, fleet, INFINITE_CACHE)
    soonest = simulate_workload(played, fleet, CLAIRVOYANT).ttft_s
    row = simulate_workload(played, fleet, "session_sticky")
    assert best.hit_rate is not None
    assert soonest is not None
    assert row.hit_rate is not None
    assert row.ttft_s is not None
    assert row.requests == best.requests == soonest.count
    assert row.hit_rate <= best.hit_rate + 1e-9
    assert row.ttft_s.p50 >= soonest.p50
