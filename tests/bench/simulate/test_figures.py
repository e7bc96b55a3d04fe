"""A row says what the calls say: each figure against a sum done by hand."""

from __future__ import annotations

import pytest

from balancer.pool import PoolStatistics
from bench.engine import Engine
from bench.engine import Sequence as Running
from bench.simulate.calls import Calls
from bench.simulate.figures import Row, row_of
from bench.simulate.play import Played
from bench.workload.model import Session
from tests.bench.simulate.small import ENGINE, prompt

POOL = PoolStatistics("simulated", 2, 2, 0, 0)


def note(
    calls: Calls,
    asked_s: float,
    first_s: float,
    ended_s: float,
    *,
    tokens: int = 100,
    cached: int = 0,
    output: int = 11,
    tier: str = "interactive",
    group: int = 0,
) -> None:
    """One answered request."""
    running = Running(prompt((1, tokens)), output, 2)
    running.arrived_s, running.first_token_s, running.finished_s = asked_s, first_s, ended_s
    running.cached_tokens = cached
    calls.note(Session(id=1, turns=(), tier=tier, group=group), asked_s, running, 0)


def row(calls: Calls, *busy_s: float) -> Row:
    engines = [Engine(ENGINE) for _ in busy_s or (0.0,)]
    for engine, seconds in zip(engines, busy_s or (0.0,), strict=True):
        engine.books.busy_s = seconds
    return row_of("w", "p", Played(calls, engines, POOL))


def test_times_and_rates() -> None:
    """TTFT and latency run from when a request should have been sent, ITL from its first token."""
    calls = Calls()
    note(calls, 10.0, 10.5, 11.5)
    note(calls, 12.0, 12.1, 14.1)
    made = row(calls)
    assert made.requests == 2
    assert made.duration_s == pytest.approx(4.1)
    assert made.ttft_s is not None
    assert (made.ttft_s.min, made.ttft_s.max) == pytest.approx((0.1, 0.5))
    assert made.itl_s is not None
    assert (made.itl_s.min, made.itl_s.max) == pytest.approx((0.1, 0.2))
    assert made.latency_s is not None
    assert made.latency_s.avg == pytest.approx((1.5 + 2.1) / 2)
    assert made.output_tokens_per_s == pytest.approx(22 / 4.1)


def test_hit_rate_is_by_token() -> None:
    """A long prompt counts for what it is: the share is of tokens, not of requests."""
    calls = Calls()
    note(calls, 0.0, 1.0, 2.0, tokens=900, cached=0)
    note(calls, 0.0, 1.0, 2.0, tokens=100, cached=80)
    assert row(calls).hit_rate == 0.08


def test_skew_is_the_busiest_over_the_mean() -> None:
    """1 if all worked equally long, the number of replicas if one did everything."""
    calls = Calls()
    note(calls, 0.0, 1.0, 2.0)
    assert row(calls, 5.0, 5.0).skew == 1
    assert row(calls, 6.0, 2.0).skew == 1.5
    assert row(calls, 8.0, 0.0, 0.0, 0.0).skew == 4
    assert row(calls, 0.0, 0.0).skew is None


def test_answers_of_one_token_have_no_time_between_tokens() -> None:
    """They are left out instead of counting as 0."""
    calls = Calls()
    note(calls, 0.0, 1.0, 1.0, output=1)
    assert row(calls).itl_s is None
    note(calls, 0.0, 1.0, 3.0, output=3)
    itl = row(calls).itl_s
    assert itl is not None
    assert (itl.count, itl.avg) == (1, 1.0)


def test_run_is_from_its_first_request_to_its_last_answer() -> None:
    """One that misses a branch has not ended, and counts for nothing."""
    calls = Calls()
    note(calls, 1.0, 2.0, 3.0, group=1)
    note(calls, 1.5, 2.0, 7.0, group=1)
    note(calls, 2.0, 3.0, 4.0, group=2)
    note(calls, 0.0, 1.0, 99.0)
    calls.refuse(Session(id=9, turns=(), group=2))
    made = row(calls)
    assert made.runs_s is not None
    assert (made.runs_s.count, made.runs_s.avg) == (1, 6.0)
    assert made.refused == 1


def test_tiers_are_told_apart() -> None:
    """Each with its own requests and refusals, even if all of a tier were refused."""
    calls = Calls()
    note(calls, 0.0, 1.0, 2.0)
    assert row(calls).tiers == []
    note(calls, 0.0, 5.0, 6.0, tier="batch")
    calls.refuse(Session(id=1, turns=(), tier="never"), not_sent=4)
    made = row(calls)
    assert [(tier.tier, tier.requests, tier.refused) for tier in made.tiers] == [
        ("batch", 1, 0),
        ("interactive", 1, 0),
        ("never", 0, 1),
    ]
    assert made.tiers[0].ttft_s is not None
    assert made.tiers[0].ttft_s.p99 == 5.0
    assert made.tiers[2].ttft_s is None
    assert (made.refused, made.not_sent) == (1, 4)


def test_nothing_answered_is_nothing_measured() -> None:
    """No zeros where there is no figure."""
    made = row(Calls())
    assert (made.requests, made.duration_s) == (0, 0.0)
    assert made.ttft_s is made.itl_s is made.latency_s is made.runs_s is None
    assert made.output_tokens_per_s is made.hit_rate is made.skew is made.gap_p99_s is None
