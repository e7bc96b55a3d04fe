"""The tables say what was measured, by whom, and what is only recorded."""

from __future__ import annotations

import json

from bench.workflows.figures import Measured
from bench.workflows.report import Report
from bench.workflows.session import Compiling, Results, Streaming, Waiting


def a_report(**given: object) -> Report:
    measured = [
        Measured(
            contender=contender,
            case="chain-10",
            concurrency=16,
            runs=1000,
            cpu_s=cpu_s + 0.001 * again,
            wall_s=1.0,
        )
        for contender, cpu_s in (("triolet", 0.1), ("graphon", 5.0))
        for again in range(2)
    ]
    results = Results(
        measured=measured,
        compiling=[Compiling("triolet", 3.0, 0.5)],
        waiting=[Waiting("triolet", 1000, 12_500.0)],
        streaming=[Streaming("triolet", 100, 9.0), Streaming("triolet", 100, 11.0)],
        notes=["something was left out"],
    )
    fields: dict[str, object] = {
        "machine": {"cpu": "some"},
        "versions": {"graphon": "graphon 0.8.0"},
        "settings": {"repetitions": 2},
        "results": results,
    }
    return Report(**fields | given)  # type: ignore[arg-type]


def test_text_and_markdown_hold_the_same_figures() -> None:
    """CPU, rate, ratio with its interval, memory, tokens, notes, versions."""
    for text in (a_report().text(), a_report().markdown()):
        flat = " ".join(text.replace("|", " ").split())
        assert "10 nodes in a row 16 triolet 0.1" in flat
        assert "10 nodes in a row 16 graphon 49.8 [" in flat
        assert "memory of one of 1000 runs that wait triolet 12.5 kB" in flat
        assert "CPU of a streamed token triolet 10 us" in flat
        assert "compile its graph triolet 0.5 ms" in flat
        assert "memory of a run that waits, kB <= 30 12.5 kept" in flat
        assert "compile 50 nodes, ms <= 20 0.5 kept" in flat
        assert "note: something was left out" in text
        assert "graphon 0.8.0" in text


def test_recorded_figures_say_so() -> None:
    """In the rows of figures and of ratios."""
    report = a_report(recorded={"chain-10": 12.0})
    assert report.text().count("graphon, as recorded") == 1  # ours was not measured at 1
    assert "12" in report.text()


def test_json_has_every_measurement() -> None:
    """And can be read back."""
    told = json.loads(a_report().json())
    assert len(told["measured"]) == 4
    assert {one["contender"] for one in told["figures"]} == {"triolet", "graphon"}
    assert told["ratios"][0]["than"] == "graphon"
    assert told["ratios"][0]["interval"]["low"] < told["ratios"][0]["times"]
    assert told["waiting"] == [{"contender": "triolet", "runs": 1000, "bytes_per_run": 12500.0}]


def test_an_aim_that_is_missed_is_said_to_be() -> None:
    """Ten nodes in a row, one at a time, beside graphon as it is used or was recorded."""
    slow = Measured(
        contender="triolet", case="chain-10", concurrency=1, runs=100, cpu_s=0.2, wall_s=1.0
    )
    report = a_report(results=Results(measured=[slow]), recorded={"chain-10": 10.0})
    flat = " ".join(report.text().split())
    assert "CPU of a 10-node run, ms <= 1 2 missed" in flat
    name = "runs per CPU second, times graphon's, which reads the export in each run"
    assert f"{name} >= 50 5 missed" in flat


def test_the_export_read_once_is_judged_by_itself() -> None:
    """An aim that is kept beside graphon as it is used may be missed beside that."""
    measured = [
        Measured(
            contender=contender, case="chain-10", concurrency=1, runs=100, cpu_s=cpu_s, wall_s=1.0
        )
        for contender, cpu_s in (("triolet", 0.01), ("graphon", 1.0), ("graphon-read-once", 0.4))
    ]
    flat = " ".join(a_report(results=Results(measured=measured)).text().split())
    assert "graphon's, which reads the export in each run >= 50 100 kept" in flat
    assert "graphon's with the export read once >= 50 40 missed" in flat
