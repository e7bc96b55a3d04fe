"""Verdicts, from numbers alone."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.clients.compare import LIMIT, METRICS, Comparison, Reason, Spread, compare
from bench.clients.result import Result, Times

OWN = "ours"
ALIKE = {OWN: 50.0, "theirs": 50.5}
TTFT = "times.ttft_avg_ms"


def result(client: str, ttft_ms: float | None, *, errors: int = 0) -> Result:
    """A run that is known by one figure."""
    return Result(client=client, sent=10, errors=errors, times=Times(ttft_avg_ms=ttft_ms))


def verdict(
    ours: list[float],
    theirs: list[float],
    *reasons: Reason,
    replicas: dict[str, float] = ALIKE,
) -> Comparison:
    """The comparison of one figure over some repetitions."""
    results = {
        OWN: [result(OWN, value) for value in ours],
        "theirs": [result("theirs", value) for value in theirs],
    }
    found = compare(results, OWN, replicas, reasons)
    return next(one for one in found if one.metric.path == TTFT)


@given(
    ours=st.floats(1, 1e4),
    ratio=st.floats(0.5, 1.5).filter(lambda ratio: abs(abs(ratio - 1) - LIMIT) > 1e-6),
)
def test_limit_is_five_percent_of_ours(ours: float, ratio: float) -> None:
    """Within 5 % either way agrees, and everything beyond it differs."""
    one = verdict([ours], [ours * ratio])
    assert one.verdict == ("agrees" if abs(ratio - 1) < LIMIT else "differs")
    assert one.ratio == pytest.approx(ratio)


def test_medians_are_compared() -> None:
    """One bad repetition of three does not decide."""
    one = verdict([50, 51, 90], [20, 51, 53])
    assert (one.verdict, one.ratio) == ("agrees", 1)


def test_overlapping_repetitions_are_scatter() -> None:
    """Where one client's own repetitions lie as far apart, the difference says nothing."""
    one = verdict([50, 50, 60], [55, 57, 58])
    assert one.verdict == "scatter"
    assert "50 to 60" in one.reason
    assert "55 to 58" in one.reason


def test_separate_repetitions_differ() -> None:
    """Off by more than 5 % every time, and no reason known: a finding."""
    assert verdict([50, 50, 52], [55, 57, 58]).verdict == "differs"


KNOWN = Reason("theirs", (TTFT,), 0, 10, "it is slower", same_server=True)


def test_known_reason_explains_as_much_as_it_covers() -> None:
    """Inside its bounds a reason explains; beyond them, or in the other direction, it does not."""
    one = verdict([50], [59], KNOWN)
    assert (one.verdict, one.reason) == ("explained", "it is slower")
    assert verdict([50], [61], KNOWN).verdict == "differs"
    assert verdict([50], [41], KNOWN).verdict == "differs"


def test_reason_is_for_its_client_and_metric() -> None:
    """Another client's reason, or one for another figure, explains nothing."""
    for other in (KNOWN._replace(client="x"), KNOWN._replace(paths=("times.itl_avg_ms",))):
        assert verdict([50], [59], other).verdict == "differs"


@pytest.mark.parametrize("replicas", [{OWN: 50.0, "theirs": 60.0}, {OWN: 50.0}, {}])
def test_client_is_not_blamed_for_a_slower_server(replicas: dict[str, float]) -> None:
    """A reason in the client holds only if the replicas say that they answered both alike."""
    assert verdict([50], [59], KNOWN, replicas=replicas).verdict == "differs"
    anyway = KNOWN._replace(same_server=False)
    assert verdict([50], [59], anyway, replicas=replicas).verdict == "explained"


def test_runs_with_failures_are_left_out() -> None:
    """Times of a run in which requests failed are not compared, ours neither."""
    good, bad = result("theirs", 50), result("theirs", 10, errors=1)
    ours = [result(OWN, 50), result(OWN, 5, errors=2)]
    found = compare({OWN: ours, "theirs": [good, bad]}, OWN, ALIKE)
    assert (found[0].ours, found[0].theirs) == (Spread(50, 50, 50), Spread(50, 50, 50))
    only_bad = compare({OWN: ours, "theirs": [bad]}, OWN, ALIKE)
    assert {one.verdict for one in only_bad} == {"not given"}


def test_every_metric_of_every_client_is_there() -> None:
    """What a client does not say is a line of its own, not an agreement."""
    results = {name: [result(name, 50)] for name in (OWN, "theirs", "others")}
    found = compare(results, OWN, ALIKE)
    assert [(one.client, one.metric) for one in found] == [
        (name, metric) for name in ("theirs", "others") for metric in METRICS
    ]
    said = [one.metric.path for one in found if one.verdict != "not given"]
    assert said == [TTFT, TTFT]


def test_metrics_name_fields_of_a_result() -> None:
    """Each path leads somewhere, and each time is compared."""
    full = msgspec.structs.replace(
        result(OWN, 1),
        times=Times(**dict.fromkeys(Times.__struct_fields__, 1.0)),
        tokens_per_s=1.0,
        requests_per_s=1.0,
        output_tokens_avg=1.0,
    )
    assert [metric.of(full) for metric in METRICS] == [1] * len(METRICS)
    compared = {metric.path.removeprefix("times.") for metric in METRICS}
    assert compared >= set(Times.__struct_fields__)
