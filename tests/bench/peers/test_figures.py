"""A cell's numbers out of its records, and several repetitions as one."""

from __future__ import annotations

import pytest

from bench.peers.figures import Costs, Figures, errors_of, figures_of, median_figures
from bench.peers.replicas import Books
from tests.bench.peers.made import a_record, a_result


def test_numbers_are_those_of_requests_that_succeeded() -> None:
    """Costs are shared by all that were sent: a failed request has cost something too."""
    records = [a_record(start_s=0.0, ttft_s=0.1), a_record(start_s=0.5, ttft_s=0.3)]
    records += [
        a_record(start_s=1.0, ttft_s=0, error="http_503"),
        a_record(start_s=1.0, ttft_s=0, error="http_503"),
    ]
    books = [Books(3, 300, 200), Books(1, 100, 0)]
    costs = Costs(cpu_s=0.02, peak_bytes=30_000_000, ready_s=0.5)
    figures = figures_of(a_result(records), books, costs)
    assert figures.ttft_p50_ms == pytest.approx(200)
    assert figures.itl_p50_ms == pytest.approx(10)
    assert figures.latency_p50_ms == pytest.approx(240)
    assert figures.requests_per_s == pytest.approx(2 / 1.5)
    assert figures.output_tokens_per_s == pytest.approx(10 / 1.5)
    assert figures.hit_rate == 0.5
    assert figures.skew == 1.5
    assert figures.cpu_ms_per_request == pytest.approx(5)
    assert figures.cpu_ms_per_1k_chunks == pytest.approx(2000)
    assert figures.peak_mb == 30
    assert errors_of(a_result(records)) == {"http_503": 2}


def test_where_nothing_succeeded_there_are_no_latencies() -> None:
    """Not zero, and nothing out of failed requests."""
    figures = figures_of(a_result([a_record(start_s=0, ttft_s=0, error="cut")]), [], None)
    assert figures == Figures()


def test_repetitions_become_their_medians() -> None:
    """Of those that have the number."""
    every = [
        Figures(ttft_p50_ms=10, skew=1.0),
        Figures(ttft_p50_ms=30),
        Figures(ttft_p50_ms=11, skew=2.0),
    ]
    assert median_figures(every) == Figures(ttft_p50_ms=11, skew=1.5)
    assert median_figures([]) == Figures()
