"""Comparisons: ratios, what their intervals cover, and when they speak up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.report.command import compare as command
from bench.report.compare import Cell, Comparison, Side, compare, comparison_text
from bench.report.metrics import analyse
from bench.report.run import ClientLag, Run
from bench.report.write import write_reports
from tests.bench.report.samples import failed, noisy_run, run_of, streamed


def side(name: str, *runs: Run) -> Side:
    return Side(name, [analyse(run) for run in runs])


def cell(comparison: Comparison, label: str, place: int = 1) -> Cell:
    (row,) = [row for row in comparison.rows if row.label == label]
    return row.cells[place]


def test_a_ratio_by_hand() -> None:
    """TTFT 100 ms against 50 ms is 2, tokens per second 500 against 1,000 a half."""
    slow = [streamed(place, first_s=0.1, gap_s=0.02) for place in range(20)]
    fast = [streamed(place) for place in range(20)]
    (found,) = compare([side("a", run_of(*fast)), side("b", run_of(*slow))])
    ttft = cell(found, "Time to First Token p50")
    assert ttft.value == pytest.approx(100)
    assert ttft.ratio == pytest.approx(2.0)
    assert (ttft.method, ttft.verdict) == ("requests", "worse")
    user = cell(found, "Output Token Throughput Per User p50")
    assert user.ratio == pytest.approx(0.5)
    assert user.verdict == "worse"
    assert cell(found, "Time to First Token p50", 0).ratio is None


def test_a_real_difference_is_seen() -> None:
    """30 % slower with 300 requests: the interval leaves out 1 and is near 1.3."""
    (found,) = compare([side("a", noisy_run(1, 300)), side("b", noisy_run(2, 300, slower=1.3))])
    for label in ("Time to First Token p50", "Inter Token Latency avg"):
        one = cell(found, label)
        assert one.verdict == "worse"
        assert one.ratio_interval is not None
        assert 1.1 < one.ratio_interval[0] < 1.35
        assert 1.25 < one.ratio_interval[1] < 1.5


def test_repeated_runs_give_intervals_over_runs() -> None:
    """With three runs a side even a throughput has an interval, and the method is named."""
    ours = [noisy_run(seed, 60) for seed in (1, 2, 3)]
    theirs = [noisy_run(seed, 60, slower=2.0) for seed in (4, 5, 6)]
    (found,) = compare([side("a", *ours), side("b", *theirs)])
    for label in ("Time to First Token p50", "Output Token Throughput"):
        assert cell(found, label).method == "runs"
        assert cell(found, label).interval is not None
    assert found.runs == [3, 3]
    assert "over repeated runs" in comparison_text(found)


def test_a_single_runs_throughput_has_no_interval() -> None:
    """One number says nothing of its chance, and nothing is made up."""
    (found,) = compare([side("a", noisy_run(1, 30)), side("b", noisy_run(2, 30))])
    throughput = cell(found, "Request Throughput")
    assert throughput.ratio is not None
    assert (throughput.ratio_interval, throughput.verdict) == (None, "unknown")


def test_pooled_gaps_get_no_interval_from_one_run() -> None:
    """Gaps of one request hang together, so a bootstrap over them would claim too much."""
    (found,) = compare([side("a", noisy_run(1, 30)), side("b", noisy_run(2, 30))])
    gaps = cell(found, "Inter Chunk Latency p99")
    assert gaps.ratio is not None
    assert gaps.ratio_interval is None


def test_longer_answers_are_neither_better_nor_worse() -> None:
    """A difference in length is shown as one, without a judgement."""
    short = run_of(*(streamed(place, chunks=10) for place in range(9)))
    long = run_of(*(streamed(place, chunks=20) for place in range(9)))
    (found,) = compare([side("a", short), side("b", long)])
    assert cell(found, "Output Sequence Length avg").verdict == "differs"


def test_a_comparison_repeats_exactly() -> None:
    """The bootstrap's seed is fixed."""
    sides = [side("a", noisy_run(1, 50)), side("b", noisy_run(2, 50))]
    assert comparison_text(compare(sides)[0]) == comparison_text(compare(sides)[0])


def test_what_one_side_lacks_is_not_compared() -> None:
    """No first token without a stream: N/A and no ratio, and a warning that they differ."""
    whole = run_of(*(streamed(place, streamed=False) for place in range(5)), streamed=False)
    (found,) = compare([side("a", run_of(*map(streamed, range(5)))), side("b", whole)])
    lacking = cell(found, "Time to First Token p50")
    assert (lacking.value, lacking.ratio) == (None, None)
    assert any("differ in streaming" in warning for warning in found.warnings)
    (turned,) = compare([side("b", whole), side("a", run_of(*map(streamed, range(5))))])
    assert cell(turned, "Time to First Token p50").ratio is None


def test_different_identities_are_pointed_out() -> None:
    """Model, workload, seed, load; failures and a slow client too."""
    theirs = run_of(
        streamed(),
        failed(),
        model="other",
        workload="agent",
        seed=7,
        load=9.0,
        was_cancelled=True,
        client_lag=ClientLag(spoiled=True),
    )
    (found,) = compare([side("a", run_of(streamed())), side("b", theirs)])
    said = "\n".join(found.warnings)
    for what in ("model", "workload", "seed", "load"):
        assert f"differ in {what} (" in said
    assert "b: a run was stopped early" in said
    assert "b: the load client was too slow" in said
    assert "b: 50.0% of requests failed" in said
    (same,) = compare([side("a", run_of(streamed())), side("b", run_of(streamed()))])
    assert same.warnings == []


def test_sweeps_are_compared_load_by_load() -> None:
    """Only loads that both have, the first side's order."""
    ours = [run_of(streamed(), load=load) for load in (1.0, 2.0, 4.0)]
    theirs = [run_of(streamed(), load=load) for load in (4.0, 1.0)]
    found = compare([side("a", *ours), side("b", *theirs)])
    assert [one.load for one in found] == ["concurrency 1", "concurrency 4"]


def test_impossible_comparisons_are_refused() -> None:
    """One side, or a confidence of 1."""
    one = side("a", run_of(streamed()))
    with pytest.raises(ValueError, match="two runs"):
        compare([one])
    with pytest.raises(ValueError, match="confidence"):
        compare([one, one], confidence=1.0)


def written(tmp_path: Path, name: str, run: Run) -> str:
    write_reports([run], tmp_path / name)
    return str(tmp_path / name)


def test_the_command_prints_a_table_and_writes_files(tmp_path: Path) -> None:
    """Names as given, ratios, JSON with everything, HTML without anything from elsewhere."""
    first = written(tmp_path, "a", noisy_run(1, 60))
    second = written(tmp_path, "b", noisy_run(2, 60, slower=2.0, model="<b>x"))
    files = ["--json", str(tmp_path / "c.json"), "--html", str(tmp_path / "c.html")]
    result = CliRunner().invoke(command, [f"before={first}", f"after={second}", *files])
    assert result.exit_code == 0, result.output
    assert "before (1 run), after (1 run)" in result.output
    assert "requests worse" in result.output
    assert "warning: the sides differ in model" in result.output
    content = json.loads((tmp_path / "c.json").read_text())
    (comparison,) = content["comparisons"]
    assert comparison["sides"] == ["before", "after"]
    assert 1.7 < comparison["rows"][1]["cells"][1]["ratio"] < 2.3
    text = (tmp_path / "c.html").read_text()
    assert "<b>x" not in text
    assert "src=" not in text


def test_runs_of_one_name_are_repetitions(tmp_path: Path) -> None:
    """By the name given here, or by that they were measured under."""
    paths = [
        written(tmp_path, f"r{seed}", noisy_run(seed, 30, name="base" if seed < 3 else ""))
        for seed in range(1, 5)
    ]
    result = CliRunner().invoke(command, [*paths[:2], f"new={paths[2]}", f"new={paths[3]}"])
    assert result.exit_code == 0, result.output
    assert "base (2 runs), new (2 runs)" in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere", "elsewhere"], "nowhere: no such file or directory"),
        (["{run}"], "two runs or more"),
        (["a={run}", "b={run}", "--confidence", "2"], "above 0 and below 1"),
        (["a={run}", "b={run}", "--json", "{run}/run.json/x"], "Could not open file"),
    ],
)
def test_the_commands_errors_are_sentences(tmp_path: Path, arguments: list[str], said: str) -> None:
    """No traceback, exit code not 0."""
    run = written(tmp_path, "a", run_of(streamed()))
    result = CliRunner().invoke(command, [one.format(run=run) for one in arguments])
    assert result.exit_code != 0
    assert said in result.output
    assert "Traceback" not in result.output
