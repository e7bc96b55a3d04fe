"""Policies rank as published measurements and the reasoning behind them say.

Small runs with wide margins: what is tested is who wins clearly, never by how much exactly.
"""

from __future__ import annotations

from functools import cache

import pytest

from bench.simulate.cell import Cell, simulate
from bench.simulate.experiment import run
from bench.simulate.figures import Row
from bench.workload.named import WorkloadOptions

pytestmark = pytest.mark.slow


@cache
def row(workload: str, policy: str, *, scale: float = 0.15, rate: float | None = None) -> Row:
    options = WorkloadOptions(replicas=4, scale=scale, rate=rate)
    fleet = ("h100-llama-8b",) * 4
    return simulate(Cell(workload=workload, policy=policy, fleet=fleet, options=options))


def p90_s(row: Row) -> float:
    assert row.ttft_s is not None
    return row.ttft_s.p90


def hit_rate(row: Row) -> float:
    assert row.hit_rate is not None
    return row.hit_rate


@pytest.mark.parametrize("blind", ["round_robin", "least_request", "least_tokens"])
@pytest.mark.parametrize("aware", ["expected_cost", "sglang_cache_aware", "llmd_sticky", "lmetric"])
def test_many_prefixes_need_a_policy_that_knows_them(blind: str, aware: str) -> None:
    """llm-d's prefix-cache benchmark: blind balancing collapses where the others do not."""
    good, bad = (row("shared-prefix", policy, scale=0.5) for policy in (aware, blind))
    assert p90_s(good) < p90_s(bad) / 3
    assert hit_rate(good) > hit_rate(bad) + 0.15


def test_one_prefix_for_all_sends_all_to_one_replica_without_a_load_guard() -> None:
    """A hash of the beginning does; a bound on the load, or a cost of load, prevents it."""
    hashed = row("hot-prefix", "ring_hash", scale=0.4)
    assert hashed.skew == pytest.approx(4, abs=0.01)
    # Sticky until saturated fills one replica after the other: uneven, but none is swamped.
    most_skew = {"llmd_sticky": 3, "bounded_hash": 1.5, "expected_cost": 1.5, "lmetric": 1.5}
    for guarded, skew in most_skew.items():
        good = row("hot-prefix", guarded, scale=0.4)
        assert good.skew is not None
        assert good.skew < skew
        assert p90_s(good) < p90_s(hashed) / 5


def test_cold_traffic_is_about_load_by_tokens() -> None:
    """No prefixes to gain from: who counts tokens beats who counts requests, and affinity that
    finds nothing does no harm."""
    by_tokens = p90_s(row("cold-heavy-tail", "least_tokens"))
    assert by_tokens < p90_s(row("cold-heavy-tail", "round_robin"))
    assert p90_s(row("cold-heavy-tail", "expected_cost")) < 1.2 * by_tokens


def test_branches_of_a_run_are_done_sooner_together() -> None:
    """They share a context, which is read once where they are together."""
    together, apart = row("fan-out", "expected_cost"), row("fan-out", "round_robin")
    assert together.runs_s is not None
    assert apart.runs_s is not None
    assert together.runs_s.p50 < apart.runs_s.p50
    assert hit_rate(together) > hit_rate(apart) + 0.1


def test_spare_capacity_hides_differences() -> None:
    """At a tenth of the rate nobody waits, and who balances better gains little."""
    blind = row("cold-heavy-tail", "round_robin", rate=0.8)
    aware = row("cold-heavy-tail", "expected_cost", rate=0.8)
    assert p90_s(blind) < 1.3 * p90_s(aware)


def test_published_prefix_experiment_has_the_published_shape() -> None:
    """Prefix-aware balancing halves TTFT at least and doubles the hit rate at least; throughput
    gains a little, and the tail of the latency does not suffer."""
    before, after = run(["round_robin", "higress_prefix"], ("a10-llama-8b",) * 4, 1).values()
    [blind], [aware] = before, after
    assert blind.ttft_s is not None
    assert aware.ttft_s is not None
    assert aware.ttft_s.avg < blind.ttft_s.avg / 2
    assert hit_rate(aware) > 2 * hit_rate(blind)
    assert blind.output_tokens_per_s is not None
    assert aware.output_tokens_per_s is not None
    assert 1 < aware.output_tokens_per_s / blind.output_tokens_per_s < 1.2
