"""The target's metrics before and after: read, added up, and told when they cannot be had."""

from __future__ import annotations

import pytest
import trio.testing

from balancer.wire.memory import memory_network
from bench.load.handover import report_run
from bench.load.runner import run
from bench.load.scrape import read_samples
from tests.balancer.scripted import ScriptedReplica, answer
from tests.bench.load.rig import URL, plan, talk, workload

Clock = trio.testing.MockClock

PAGE = b"""# HELP vllm:prefix_cache_hits_total hits
# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{model_name="a b"} 12.5
up 1 1700000000
latency_bucket{le="+Inf"} 7
latency_sum 3e2
strange{a="}"} NaN
odd{a="}"} 4
not a sample line
"""


def test_samples() -> None:
    """Names keep their labels; comments, buckets and nonsense are left out."""
    samples = read_samples(PAGE)
    assert samples == {
        'vllm:prefix_cache_hits_total{model_name="a b"}': 12.5,
        "up": 1,
        'odd{a="}"}': 4,
        "latency_sum": 300,
    }


async def test_before_and_after(autojump_clock: Clock) -> None:
    """Pages of several replicas are added up; one that fails is a warning, not a failure."""
    pages = [answer(b"x_total %d\n" % value, content_type=b"text/plain") for value in (1, 5)]
    async with memory_network() as network:
        network.serve(URL, ScriptedReplica(talk("a")))
        network.serve("http://m1", ScriptedReplica([pages[0]], [pages[1]]))
        network.serve("http://m2", ScriptedReplica([pages[0]], [pages[1]]))
        network.serve("http://m3", ScriptedReplica([answer(b"", status=404)]))
        urls = ("http://m1/metrics", "http://m2", "http://m3", "http://m4")
        result = await run(plan(metrics_urls=urls), workload(), dialer=network)
    assert (result.metrics_before, result.metrics_after) == ({"x_total": 2}, {"x_total": 10})
    told = [text for text in result.warnings if text.startswith("server metrics")]
    assert len(told) == 2
    server = report_run(result).server
    assert server is not None
    assert server.metrics_after["x_total"] == pytest.approx(10)
