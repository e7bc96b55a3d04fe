"""The report of made-up runs."""

from __future__ import annotations

import json

import msgspec

from bench.clients.report import Report
from bench.clients.result import Load, Result, Times
from bench.clients.server import Pace, Seen
from bench.clients.session import Run

OWN = "triolet bench"
SEEN = Seen(124, 124 * 0.0507, 124, 124 * 0.49, 124 * 49, 124 * 0.5407, 124)


def run(client: str, ttft_ms: float, *, errors: int = 0, remarks: tuple[str, ...] = ()) -> Run:
    """One run of 120 requests."""
    times = Times(ttft_avg_ms=ttft_ms, itl_avg_ms=10.0)
    result = Result(client=client, sent=120, errors=errors, times=times, remarks=remarks)
    return Run(0, result, SEEN)


def report(*runs: Run, notes: tuple[str, ...] = ()) -> Report:
    """A session of these runs."""
    return Report(
        own=OWN,
        load=Load(),
        pace=Pace(),
        repeat=1,
        runs=runs,
        versions={OWN: "0.1.0", "aiperf": "0.13.0"},
        machine={"cores": "2"},
        notes=notes,
    )


def test_table_shows_both_and_the_replicas() -> None:
    """Our figure, theirs with its ratio, and what the replicas measured themselves."""
    text = report(run(OWN, 52.0), run("aiperf", 53.0)).text()
    line = next(line for line in text.splitlines() if line.startswith("TTFT avg, ms"))
    assert line.split() == ["TTFT", "avg,", "ms", "50.70", "52.00", "53.00", "(1.019)"]
    assert "aiperf 0.13.0" in text
    assert "120 requests measured, 0 failed; the replicas ended 124" in text


def test_unexplained_difference_is_marked_and_fails() -> None:
    """A figure that is far off carries a mark, is listed, and the session does not agree."""
    found = report(run(OWN, 52.0), run("aiperf", 99.0))
    assert "99.00 (1.904) !" in found.text()
    assert "- aiperf, TTFT avg: differs" in found.text()
    assert not found.agrees


def test_explained_difference_is_listed_with_its_reason() -> None:
    """A known cause is named in full, and the session agrees."""
    found = report(run(OWN, 52.0), run("aiperf", 58.0))
    assert "58.00 (1.115) *" in found.text()
    assert "comes late" in found.text()
    assert found.agrees


def test_failures_and_absence_never_agree() -> None:
    """Neither a run with failed requests nor a session without any comparison passes."""
    assert report(run(OWN, 52.0), run("aiperf", 52.0)).agrees
    assert not report(run(OWN, 52.0), run("aiperf", 52.0, errors=1)).agrees
    assert not report(run(OWN, 52.0, errors=1), run("aiperf", 52.0)).agrees
    assert not report(run(OWN, 52.0)).agrees
    assert not report(run("aiperf", 52.0)).agrees
    assert not report().agrees


def test_notes_and_remarks_are_shown() -> None:
    """What could not be installed, and what a client says of itself, is in every form."""
    said = run("aiperf", 52.0, remarks=("requests left late",))
    found = report(run(OWN, 52.0), said, notes=("guidellm is left out: no space",))
    for form in (found.text(), found.markdown()):
        assert "guidellm is left out: no space" in form
        assert '"requests left late"' in form
    assert json.loads(found.json())["notes"] == ["guidellm is left out: no space"]


def test_markdown_is_one_table() -> None:
    """Every row has the columns of the heading."""
    lines = report(run(OWN, 52.0), run("aiperf", 53.0)).markdown().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 13
    assert {row.count("|") for row in rows} == {5}


def test_json_holds_runs_and_comparisons() -> None:
    """Another program can judge anew from the file alone."""
    content = json.loads(report(run(OWN, 52.0), run("aiperf", 53.0)).json())
    assert content["agrees"] is True
    assert content["load"]["requests"] == 120
    results = [msgspec.convert(one["result"], Result) for one in content["runs"]]
    assert [one.client for one in results] == [OWN, "aiperf"]
    first = content["comparisons"][0]
    assert (first["metric"], first["verdict"]) == ("ttft_avg_ms", "agrees")
    assert first["ratio"] == 53 / 52
