"""The tables: what is in them, and that every form can be read back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.relay import profiling
from bench.relay.command import relay
from bench.relay.figures import HeldRun, Run
from bench.relay.report import Report
from bench.relay.session import Cores, Plan, Results
from bench.relay.workloads import HELD, MEASURED, NAMES, PACED_32, PLAIN, STAGGERED_256


def _run(target: str, cpu_s: float | None) -> Run:
    return Run(
        target=target,
        workload=PLAIN,
        repetition=0,
        requests=1_000,
        events=0,
        reads=0,
        errors={},
        wall_s=1.0,
        cpu_s=cpu_s,
        cpu_stat_s=cpu_s,
        cpu_source="clock" if cpu_s else "",
        client_cpu_s=0.1,
        fake_cpu_s=0.1,
        ttft_p50_s=0.001,
        ttft_p90_s=0.002,
    )


def _report() -> Report:
    runs = [_run("direct", None), _run("triolet", 0.2), _run("vllm-router", 0.16)]
    held = [HeldRun("triolet", 2_000, 50_000_000, 110_000_000, {"status 503": 1})]
    return Report(
        machine={"cpu": "a CPU"},
        versions={"vllm-router": "0.1.17"},
        settings={"repetitions": 1},
        workloads=MEASURED,
        results=Results(runs=runs, held=held, notes=["a note"]),
    )


def test_the_text_says_figures_limits_and_errors() -> None:
    """The line people look for first holds both figures, the limit and the verdict."""
    text = _report().text()
    (line,) = [line for line in text.splitlines() if line.startswith("CPU per request")]
    assert " ".join(line.split()).endswith("200 160 <= 1.5 x vllm-router 1.25 x, kept")
    assert "1 status 503" in text
    assert "note: a note" in text
    assert "a CPU" in text


def test_workloads_are_told_in_words() -> None:
    """Which streams are in step and which are not stands in both forms."""
    for text in (_report().text(), _report().markdown()):
        assert "- saturated: 32-token streams, saturated, in step, 32 at once" in text
        assert "- staggered-256: 64-token streams, 20 ms a token, staggered, 256 at once" in text


def test_a_plan_keeps_to_the_wanted_workloads(tmp_path: Path) -> None:
    """Only the wanted are run, in the usual order; by default all are."""
    plan = Plan(1, False, 1024, tmp_path, None)
    assert (*(one.name for one in plan.measured()), HELD) == NAMES
    few = replace(plan, workloads=frozenset({STAGGERED_256, PACED_32, HELD}))
    assert [one.name for one in few.measured()] == [PACED_32, STAGGERED_256]


@pytest.mark.parametrize("given", ["paced-32,paced-9", ","])
def test_workloads_that_are_not_there_are_refused(given: str) -> None:
    """A wrong name is told with those there are, before anything is started."""
    outcome = CliRunner().invoke(relay, ["--workloads", given])
    assert outcome.exit_code == 2
    assert "--workloads: " in outcome.output


def test_markdown_tables_have_even_rows() -> None:
    """Each table's rows have as many cells as its heading."""
    rows = [line for line in _report().markdown().splitlines() if line.startswith("|")]
    assert rows
    heading = 0
    for row in rows:
        if "---" in row:
            heading = row.count("|")
        elif heading and row.startswith("| workload"):
            heading = 0
        assert not heading or row.count("|") == heading


def test_json_holds_every_run() -> None:
    """Raw runs, figures and verdicts are there for later comparison."""
    content = json.loads(_report().json())
    assert [run["target"] for run in content["runs"]] == ["direct", "triolet", "vllm-router"]
    assert content["figures"]["triolet"]["request"]["median"] == 200
    assert content["verdicts"]["request"] == {
        "limit": "<= 1.5 x vllm-router",
        "ratio": 1.25,
        "kept": True,
    }
    assert content["verdicts"]["errors"]["kept"] is False


def test_self_time_is_by_innermost_function() -> None:
    """Lines of one function add up; its callers get nothing, and neither do waiting threads."""
    stacks = ["main (a.py:1);pump (b.py:7) 3", "main (a.py:1);pump (b.py:9) 3", "main (a.py:2) 2"]
    stacks.append("run (threading.py:982);WorkerThread._work (trio/_core/_thread_cache.py:211) 9")
    assert profiling.self_time(stacks) == [(0.75, "pump (b.py)"), (0.25, "main (a.py)")]


def test_the_proxy_gets_a_core_of_its_own() -> None:
    """As far as there are enough; the load side shares what is left."""
    assert Cores.share_out([0, 1]) == Cores(frozenset({1}), frozenset({0}), frozenset({0}))
    assert Cores.share_out(range(4)) == Cores(frozenset({3}), frozenset({0}), frozenset({1}))
    assert Cores.share_out([5]) == Cores(frozenset({5}), frozenset({5}), frozenset({5}))
