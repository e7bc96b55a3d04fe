"""What replicas say of themselves, and what follows from it."""

from __future__ import annotations

import pytest

from bench.peers.replicas import (
    Books,
    books_between,
    hit_rate,
    parse_books,
    replica_command,
    skew,
)

PAGE = """\
# HELP vllm:prefix_cache_queries_total Prompt tokens looked up.
# TYPE vllm:prefix_cache_queries_total counter
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 1200.0
vllm:prefix_cache_queries_created{engine="0",model_name="m"} 1.7e+09
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 300.0
vllm:request_success_total{finished_reason="stop",model_name="m"} 3.0
vllm:request_success_total{finished_reason="length",model_name="m"} 4.0
vllm:num_requests_running{model_name="m"} 9.0
"""


def test_counters_are_summed_over_their_labels() -> None:
    """And nothing else is taken for them."""
    assert parse_books(PAGE) == Books(requests=7, cache_queries=1200, cache_hits=300)


def test_old_names_count_too() -> None:
    """vLLM called them gpu_... before."""
    page = "vllm:gpu_prefix_cache_queries_total 10\nvllm:gpu_prefix_cache_hits_total 5\n"
    assert parse_books(page) == Books(0, 10, 5)


def test_the_hit_rate_is_that_of_all_tokens() -> None:
    """Not the mean of the replicas' rates: one that did little counts little."""
    before = [Books(5, 100, 0), Books(0, 0, 0)]
    after = [Books(15, 1100, 900), Books(1, 100, 0)]
    between = books_between(before, after)
    assert between == [Books(10, 1000, 900), Books(1, 100, 0)]
    assert hit_rate(between) == pytest.approx(900 / 1100)
    assert hit_rate([Books(1, 0, 0)]) is None


def test_skew_is_the_busiest_over_the_average() -> None:
    """A replica that got nothing counts as one."""
    assert skew([Books(5, 0, 0), Books(5, 0, 0)]) == 1
    assert skew([Books(9, 0, 0), Books(0, 0, 0), Books(0, 0, 0)]) == 3
    assert skew([Books(6, 0, 0), Books(2, 0, 0)]) == pytest.approx(1.5)
    assert skew([Books(0, 0, 0)]) is None


def test_a_replica_is_started_with_its_engine() -> None:
    """Without a profile it is the demo replica."""
    plain = " ".join(replica_command(0, "m", "r-1", None))
    assert plain.endswith("replica --port 0 --model m --name r-1")
    assert replica_command(0, "m", "r-1", "h100")[-2:] == ["--profile", "h100"]
