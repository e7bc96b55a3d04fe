"""The arithmetic of the report on fixed numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench.relay import figures
from bench.relay.figures import FIGURES, HeldRun, Run, Spread
from bench.relay.workloads import PACED_32, PLAIN, SATURATED, STAGGERED_32, STAGGERED_256

DIRECT, OWN = "direct", "triolet"


def _run(target: str, workload: str, repetition: int = 0, **values: Any) -> Run:
    base = Run(
        target=target,
        workload=workload,
        repetition=repetition,
        requests=100,
        events=0,
        reads=0,
        errors={},
        wall_s=1.0,
        cpu_s=0.02,
        cpu_stat_s=0.02,
        cpu_source="clock",
        client_cpu_s=0.1,
        fake_cpu_s=0.1,
        ttft_p50_s=0.001,
        ttft_p90_s=0.002,
    )
    return replace(base, **values)


def test_cpu_per_request() -> None:
    """0.02 s for 100 requests is 200 µs each."""
    assert figures.request_us(_run(OWN, PLAIN)) == pytest.approx(200)


def test_cpu_per_chunk_pays_for_the_request_first() -> None:
    """(0.05 s - 100 x 200 µs) / 3,000 chunks = 10 µs."""
    run = _run(OWN, SATURATED, cpu_s=0.05, events=3_000)
    assert figures.chunk_us(run, _run(OWN, PLAIN)) == pytest.approx(10)


def test_each_repetition_uses_its_own_request() -> None:
    """A slow repetition's request must not make its neighbour's chunks look cheap."""
    runs = [
        _run(OWN, PLAIN, 0, cpu_s=0.02),
        _run(OWN, PLAIN, 1, cpu_s=0.04),
        _run(OWN, SATURATED, 0, cpu_s=0.05, events=3_000),
        _run(OWN, SATURATED, 1, cpu_s=0.07, events=3_000),
    ]
    found = figures.figures(runs, [], direct=DIRECT)[OWN]
    assert found["request"] == pytest.approx((300, 200, 400))
    assert found["chunk_saturated"] == pytest.approx((10, 10, 10))


def test_ttft_is_what_is_added_in_the_same_repetition() -> None:
    """Direct's own TTFT is taken away, repetition by repetition."""
    runs = [
        _run(DIRECT, STAGGERED_32, 0, cpu_s=None, ttft_p50_s=0.001, ttft_p90_s=0.001),
        _run(DIRECT, STAGGERED_32, 1, cpu_s=None, ttft_p50_s=0.003, ttft_p90_s=0.003),
        _run(OWN, STAGGERED_32, 0, ttft_p50_s=0.0015, ttft_p90_s=0.004),
        _run(OWN, STAGGERED_32, 1, ttft_p50_s=0.0036, ttft_p90_s=0.004),
        # In step, a stream waits for its replica's next step: that is not the proxy's delay.
        _run(DIRECT, PACED_32, 0, cpu_s=None, ttft_p50_s=0.001, ttft_p90_s=0.001),
        _run(OWN, PACED_32, 0, ttft_p50_s=0.015, ttft_p90_s=0.02),
    ]
    found = figures.figures(runs, [], direct=DIRECT)
    assert DIRECT not in found
    assert found[OWN]["ttft_p50"] == pytest.approx((0.55, 0.5, 0.6))
    assert found[OWN]["ttft_p90"] == pytest.approx((2.0, 1.0, 3.0))


def test_each_pacing_has_a_figure_of_its_own() -> None:
    """Streams in step and staggered streams are held to the same limit, apart."""
    runs = [
        _run(OWN, PLAIN),
        _run(OWN, PACED_32, cpu_s=0.05, events=3_000),
        _run(OWN, STAGGERED_32, cpu_s=0.08, events=3_000),
        _run(OWN, STAGGERED_256, cpu_s=0.05, events=1_000),
    ]
    found = figures.figures(runs, [], direct=DIRECT)[OWN]
    chunks = {key: value.median for key, value in found.items() if key.startswith("chunk")}
    assert chunks == pytest.approx(
        {"chunk_paced_32": 10, "chunk_staggered_32": 20, "chunk_staggered_256": 30}
    )
    limits = {one.key: one.ratio for one in FIGURES if one.key.startswith("chunk")}
    assert limits.pop("chunk_saturated") == 0.8
    assert set(limits.values()) == {1.1}
    assert set(chunks) < set(limits)


def test_memory_and_errors() -> None:
    """60 MB above idle for 2,000 streams is 30 kB each; errors of all workloads add up."""
    held = HeldRun(OWN, 2_000, 50_000_000, 110_000_000, {"status 503": 2})
    runs = [_run(OWN, PLAIN, errors={"unfinished": 1})]
    found = figures.figures(runs, [held], direct=DIRECT)[OWN]
    assert found["idle"].median == pytest.approx(50)
    assert found["stream"].median == pytest.approx(30)
    assert found["errors"].median == 3


def _found(own: float, **peers: float) -> dict[str, dict[str, Spread]]:
    values = {OWN: own, **peers}
    return {name: {"request": Spread(value, value, value)} for name, value in values.items()}


REQUEST = next(one for one in FIGURES if one.key == "request")


def test_the_better_peer_is_the_measure() -> None:
    """150 is 1.5 times the better peer's 100: just kept; 151 is not."""
    kept = figures.verdict(REQUEST, _found(150, slow=200, quick=100), own=OWN)
    assert kept == ("<= 1.5 x quick", 1.5, True)
    missed = figures.verdict(REQUEST, _found(151, slow=200, quick=100), own=OWN)
    assert missed == ("<= 1.5 x quick", 1.51, False)


def test_no_verdict_without_a_peer_or_without_triolet() -> None:
    """A limit that compares says nothing where there is nothing to compare."""
    assert figures.verdict(REQUEST, _found(150), own=OWN) is None
    assert figures.verdict(REQUEST, {"quick": {"request": Spread(1, 1, 1)}}, own=OWN) is None


@pytest.mark.parametrize(("value", "kept"), [(0.99, True), (1.0, False)])
def test_a_plain_limit_needs_no_peer(value: float, kept: bool) -> None:
    """TTFT added must stay below 1 ms whatever others do."""
    figure = next(one for one in FIGURES if one.key == "ttft_p50")
    found = {OWN: {"ttft_p50": Spread(value, value, value)}}
    assert figures.verdict(figure, found, own=OWN) == ("< 1 ms", None, kept)


def test_a_busy_load_side_is_told() -> None:
    """Client and replica at 0.9 of a core were the bottleneck; direct is always so."""
    busy: dict[str, Any] = {"client_cpu_s": 0.5, "fake_cpu_s": 0.4}
    runs = [_run(OWN, SATURATED, **busy), _run(DIRECT, SATURATED, **busy), _run(OWN, PLAIN)]
    (note,) = figures.load_side_notes(runs, direct=DIRECT)
    assert note.startswith("saturated at triolet: client and fake replica used 90%")


def test_percentiles() -> None:
    """The share of values that do not exceed it."""
    values = [float(one) for one in range(100)]
    assert (figures.percentile(values, 0.5), figures.percentile(values, 0.9)) == (50, 90)
    assert figures.percentile([7.0], 0.9) == 7
