"""Regret, hit rate, fallbacks, hedges: each counted once for each call that has it, no other."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.decisions import Decision, Placement
from balancer.policies import Explanation
from server.observe.record import Record
from server.observe.routing_metrics import RoutingMetrics

Samples = dict[tuple[str, ...], float]


def samples(metrics: RoutingMetrics) -> Samples:
    return {
        (sample.name.removeprefix("triolet_"), *sample.labels.values()): sample.value
        for family in metrics.families()
        for sample in family.samples
    }


def record(**facts: Any) -> Record:
    made = Record(method="POST", path="/v1/x", client="", request_id="", started=0.0)
    made.model = "m"
    for name, value in facts.items():
        setattr(made, name, value)
    return made


def settled(*records: Record) -> Samples:
    metrics = RoutingMetrics()
    for one in records:
        metrics.settle(one)
    return samples(metrics)


def decision(
    *,
    predicted_s: float | None = None,
    observed_s: float | None = None,
    matched: int = 0,
    estimated: int = 1000,
    prompt: int | None = None,
    cached: int | None = None,
) -> Decision:
    explanation = Explanation("s", (), (), 1, predicted_s)
    placement = Placement("http://a", 0.0, matched, estimated, explanation)
    return Decision("id", "m", "expected_cost", "batch", (placement,), observed_s, prompt, cached)


def test_late_and_early() -> None:
    """How far off, in a series for each direction; what was not predicted is in neither."""
    found = settled(
        record(decision=decision(predicted_s=0.1, observed_s=0.35)),
        record(decision=decision(predicted_s=0.1, observed_s=0.1)),
        record(decision=decision(predicted_s=1.0, observed_s=0.25)),
        record(decision=decision(predicted_s=1.0)),
        record(decision=decision(observed_s=1.0)),
        record(),
    )
    name, labels = "routing_regret_seconds", ("m", "expected_cost")
    assert found[f"{name}_count", *labels, "late"] == 2
    assert found[f"{name}_sum", *labels, "late"] == pytest.approx(0.25)
    assert found[f"{name}_count", *labels, "early"] == 1
    assert found[f"{name}_sum", *labels, "early"] == pytest.approx(0.75)
    assert found[f"{name}_bucket", *labels, "late", "0.25"] == 2


def test_hit_rates() -> None:
    """Expected in the replica's own tokens, so that the two can be compared."""
    found = settled(
        record(decision=decision(matched=640, estimated=1000, prompt=1500, cached=900)),
        record(decision=decision(matched=0, estimated=1000, prompt=500, cached=0)),
        record(decision=decision(matched=640, prompt=1000, cached=None)),
        record(decision=decision(matched=640, prompt=None, cached=5)),
    )
    assert found["prefix_tokens_total", "m", "prompt"] == 2000
    assert found["prefix_tokens_total", "m", "expected"] == 960
    assert found["prefix_tokens_total", "m", "observed"] == 900


def test_a_decision_without_a_placement() -> None:
    """A request that got no replica expected nothing of any."""
    empty = Decision("id", "m", "random", "batch", (), None, 10, 5)
    assert settled(record(decision=empty)) == {}


@given(
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
)
def test_no_rate_above_one(matched: int, estimated: int, prompt: int, cached: int) -> None:
    """Whatever a replica reports and whatever was estimated."""
    one = decision(matched=matched, estimated=estimated, prompt=prompt, cached=cached)
    found = settled(record(decision=one))
    total = found.get(("prefix_tokens_total", "m", "prompt"), 0)
    for kind in ("expected", "observed"):
        assert 0 <= found.get(("prefix_tokens_total", "m", kind), 0) <= total


def test_fallbacks() -> None:
    """One for each step of the chain, to where it led."""
    found = settled(
        record(model="c", fell_back_from=["a", "b"]),
        record(model="b", fell_back_from=["a"]),
        record(model="a"),
    )
    assert found == {("fallbacks_total", "a", "b"): 2, ("fallbacks_total", "b", "c"): 1}


def test_hedges_and_put_backs() -> None:
    """By who won, and by how often; a call without either adds nothing."""
    found = settled(
        record(hedge="first"),
        record(hedge="second"),
        record(hedge="second"),
        record(hedge="none", put_backs=2),
        record(),
    )
    assert found == {
        ("hedges_total", "m", "first"): 1,
        ("hedges_total", "m", "second"): 2,
        ("hedges_total", "m", "none"): 1,
        ("put_backs_total", "m"): 2,
    }
