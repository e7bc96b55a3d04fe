"""What the terminal shows: the table of a run, a sweep and its knee."""

from __future__ import annotations

import pytest

from bench.load.record import Probe
from bench.report.layout import aligned, printable
from bench.report.metrics import Analysis, analyse, compute
from bench.report.run import Run
from bench.report.sweep import knee, sweep_rows, sweep_text
from bench.report.table import load_label, run_text
from tests.bench.report.samples import failed, run_of, streamed


def text_of(run: Run) -> str:
    return run_text(run, compute(run))


def test_the_table_is_genai_perfs() -> None:
    """Its columns, and one row a metric with two decimals."""
    lines = text_of(run_of(streamed())).splitlines()
    assert lines[2].split() == ["Metric", "avg", "min", "max", "p99", "p90", "p75", "p50", "std"]
    first = next(line for line in lines if line.startswith("Time to First Token"))
    assert first.split()[-8:] == [*["50.00"] * 7, "0.00"]
    assert any(line.startswith("Inter Token Latency (ms)") for line in lines)


def test_columns_line_up() -> None:
    """Text to the left, numbers to the right, one rule under the heading."""
    assert aligned([["a", "n"], ["bb", "1,000"], ["c", "2"]]).splitlines() == [
        "a       n",
        "--  -----",
        "bb  1,000",
        "c       2",
    ]
    assert aligned([]) == ""


def test_outcomes_errors_facts_probes_and_warnings_follow() -> None:
    """Everything a run found has its line."""
    probe = Probe(path="/health", scheduled_s=0, sent_s=0, ended_s=0.01, status=200)
    text = text_of(
        run_of(
            streamed(replica="a", cached_tokens=50),
            streamed(1.0, turn=1, replica="b"),
            failed(),
            streamed(phase="warmup"),
            probes=[probe],
            idle_probes=[probe],
            warnings=["mind the gap"],
            goodput={"time_to_first_token": 200.0},
        )
    )
    for expected in (
        "sent 3 = 2 completed + 1 errored + 0 cancelled + 0 unfinished",
        "http_503: 1, for example: no replica",
        "warm-up: 1 sent",
        "prefix cache: 50.0% of prompt tokens (50 of 100, as 1 of 2 answers report)",
        "replicas: a 1, b 1 (busiest over average 1.00)",
        "time to first token, turn 1: avg 50.0 ms",
        "warning: mind the gap",
        "Good Requests (% of sent)",
    ):
        assert expected in text
    assert [line.split() for line in text.splitlines() if "/health" in line or "idle" in line] == [
        ["/health", "under", "load", "1", "0", "10.0", "10.0", "10.0"],
        ["idle", "1", "0", "10.0", "10.0", "10.0"],
    ]


def test_what_a_refusal_asked_for_is_shown() -> None:
    """The longest Retry-After of a kind, which the load did not heed; nothing where none came."""
    busy = [
        failed(error="http_429", status=429, error_message="busy", retry_after_s=wait)
        for wait in (2.0, 7.0)
    ]
    text = text_of(run_of(*busy, failed()))
    assert "http_429: 2 (retry after up to 7 s, not followed), for example: busy" in text
    assert "http_503: 1, for example: no replica" in text


def test_a_run_without_success_prints_no_table() -> None:
    """The outcome line and the warning stand alone."""
    text = text_of(run_of(failed()))
    assert "Metric" not in text
    assert "0.00" not in text
    assert "no request succeeded" in text


def test_control_characters_from_outside_do_not_reach_the_terminal() -> None:
    """An error text cannot move the cursor or hide what follows it."""
    text = text_of(run_of(failed(error_message="\x1b[2J gone\r\n\x00"), model="m\x1b[31m"))
    assert "\x1b" not in text
    assert "\r" not in text
    assert "\\x1b[2J gone" in text
    assert printable("x" * 300, 10) == "xxxxxxx..."


@pytest.mark.parametrize(
    ("mode", "load", "expected"),
    [
        ("concurrency", 8.0, "concurrency 8"),
        ("request_rate", 2.5, "2.5 requests/s"),
        ("schedule", None, "schedule"),
        ("request_rate", None, "request rate"),
    ],
)
def test_loads_have_names(mode: str, load: float | None, expected: str) -> None:
    """As titles and sweeps show them."""
    assert load_label(run_of(mode=mode, load=load)) == expected


def point(load: float, good: int, bad: int) -> Analysis:
    """A load point of which `good` requests meet a TTFT of 100 ms and `bad` do not."""
    records = [streamed(place) for place in range(good)]
    records += [streamed(place, first_s=0.5) for place in range(bad)]
    return analyse(run_of(*records, load=load, goodput={"time_to_first_token": 100.0}))


def test_the_knee_is_the_highest_load_that_keeps_the_promise() -> None:
    """90 % is enough, 80 % is not, in whatever order the points come."""
    points = [point(8, 8, 2), point(1, 10, 0), point(4, 9, 1)]
    found = knee(points)
    assert found is not None
    assert found.run.load == 4
    assert "knee (highest load with goodput >= 90%): concurrency 4\n" in sweep_text(points)


def test_a_knee_that_was_not_reached_or_not_found_is_said() -> None:
    """The end of the sweep, none at all, or no objectives: three different things."""
    assert "the sweep ends here" in sweep_text([point(1, 10, 0), point(2, 10, 0)])
    assert "no load point had 90%" in sweep_text([point(1, 1, 9)])
    assert "not known without objectives" in sweep_text([analyse(run_of(streamed()))])


def test_a_sweep_has_a_row_a_load_point() -> None:
    """TTFT, ITL, throughputs, goodput and errors; what was not measured is N/A."""
    heading, row, empty = sweep_rows(
        [point(2, 9, 1), analyse(run_of(failed(), load=4.0))],
    )
    cells = dict(zip(heading, row, strict=True))
    assert cells["load"] == "concurrency 2"
    assert cells["TTFT p50 ms"] == "50.0"
    assert cells["ITL p99 ms"] == "10.0"
    assert cells["goodput"] == "90.0%"
    assert (cells["sent"], cells["errors"]) == ("10", "0")
    assert dict(zip(heading, empty, strict=True))["TTFT p50 ms"] == "N/A"
    assert empty[-1] == "1"
