"""`triolet bench simulate` says what is wrong before it starts, and keeps what it has simulated."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from bench.engine import find_profile
from bench.relay.procstat import descendants
from bench.simulate.command import simulate_command
from bench.simulate.experiment import experiment_command

ROOT = Path(__file__).parents[3]
SMALL = ("--scale", "0.01", "--jobs", "1")


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(simulate_command, arguments)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--policy", "best"), "'best'"),
        (("--policy", "random,best"), "'best'"),
        (("--policy", ","), "no policy"),
        (("--workload", "chat"), "'chat'"),
        (("--fleet", "h100-llama-8b:none"), "'h100-llama-8b:none'"),
        (("--fleet", "h1000-llama-8b:4"), "h100-llama-8b"),
        (("--scale", "0"), "--scale"),
        (("--rate", "-1"), "--rate"),
        (("--rate", "nan"), "the rate must be a number"),
        (("--scale", "inf"), "the scale must be a number"),
        (("--seeds", "0"), "--seeds"),
        (("--jobs", "0"), "--jobs"),
        (("--max-in-flight", "0"), "--max-in-flight"),
        (("--slow", "sim-7:2"), "sim-7:2"),
        (("--foreign", "sim-0:1"), "below 1"),
        (("--prior-error", "nan"), "the prior error must be a number"),
        (("--within", "1.1", "--policy", "random"), "'expected_cost'"),
        (("--judge", "random", "--within", "0.5"), "--within"),
        (("--json", "no/such/place/figures.json"), "no/such/place"),
        (("--html", "."), "--html"),
    ],
)
def test_what_is_wrong_is_named(arguments: tuple[str, ...], named: str) -> None:
    """At once, with an exit status of its own and no traceback."""
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert named in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("option", ["--policy", "--fleet"])
def test_experiment_names_what_is_wrong(option: str) -> None:
    """The same there."""
    result = CliRunner().invoke(experiment_command, [option, "wrong"])
    assert result.exit_code == 2
    assert "wrong" in result.output


def test_list_shows_workloads_and_policies() -> None:
    """Without simulating anything."""
    listed = invoke("--list").output
    assert "  hot-prefix: " in listed
    assert "\n  least_request\n" in listed


@pytest.mark.slow
def test_tables_and_files(tmp_path: Path) -> None:
    """A table for each workload; all figures as JSON; the same tables as Markdown; a page."""
    files = {name: tmp_path / f"out.{name}" for name in ("json", "markdown", "html")}
    arguments = [word for name, file in files.items() for word in (f"--{name}", str(file))]
    result = invoke(
        *("--workload", "hot-prefix,agent", "--policy", "random,random,round_robin"),
        *("--seeds", "2", *SMALL, *arguments),
    )
    assert result.exit_code == 0, result.output
    assert result.output.count("limit: clairvoyant") == 2
    assert result.output.index("\nhot-prefix: ") < result.output.index("\nagent: ")
    document = json.loads(files["json"].read_text())
    assert document["fleets"] == dict.fromkeys(("hot-prefix", "agent"), ["h100-llama-8b"] * 4)
    rows = document["workloads"]["agent"]
    assert [(row["policy"], row["seed"]) for row in rows] == [
        (policy, seed)
        for policy in ("random", "round_robin", "limit: infinite cache", "limit: clairvoyant")
        for seed in (1, 2)
    ]
    assert rows[0]["ttft_s"]["count"] == rows[0]["requests"]
    assert files["markdown"].read_text().count("\n| round_robin |") == 2
    assert files["html"].read_text().count("<h2>") == 2


def test_summary_judges_a_policy(tmp_path: Path) -> None:
    """Within a bound it exits with 0; else with 1, and says where and by how much."""
    file = tmp_path / "ratios.md"
    common = (
        *("--workload", "shared-prefix", "--policy", "random,lmetric", "--no-limits"),
        *("--scale", "0.05", "--seeds", "2", "--jobs", "1", "--judge"),
    )
    good = invoke(*common, "lmetric", "--within", "1.1", "--ratios", str(file))
    assert good.exit_code == 0, good.output
    assert "lmetric is within 1.1 times of the best everywhere" in good.output
    assert "| shared-prefix | 1 | lmetric |" in file.read_text()
    bad = invoke(*common, "random", "--within", "1.1")
    assert bad.exit_code == 1
    assert "\n  shared-prefix, TTFT p90: " in bad.output
    assert "times worse than lmetric" in bad.output


def test_disturbed_fleet_has_its_comparison() -> None:
    """Three tables, and one of ratios between them."""
    result = invoke(
        *("--workload", "agent", "--policy", "random", "--slow", "sim-0:3", *SMALL, "--no-limits")
    )
    assert result.exit_code == 0, result.output
    for title in ("agent", "agent, undisturbed", "agent, without sim-0"):
        assert f"\n{title}: " in result.output
    undisturbed, without = result.output.splitlines()[-2:]
    assert (
        undisturbed.split()[:5] == without.split()[:5] == ["agent", "random", "TTFT", "p90", "ms"]
    )
    assert " undisturbed " in undisturbed
    assert " without sim-0 " in without


@pytest.mark.slow
def test_experiment_compares_the_last_with_the_first() -> None:
    """The table has the published figures beside the simulated ones."""
    result = CliRunner().invoke(
        experiment_command, ["--seeds", "1", "--policy", "round_robin,higress_prefix"]
    )
    assert result.exit_code == 0, result.output
    [hits] = [line for line in result.output.splitlines() if line.startswith("prefix cache hits")]
    *_, before, after, ratio, _, _, _ = hits.split()
    assert float(before) < 50 < 85 < float(after)
    assert float(ratio) == pytest.approx(float(after) / float(before), abs=0.02)
    assert hits.endswith("40 -> 80")
    *_, last = result.output.splitlines()
    assert last.startswith("Of the hits of an infinite cache: round_robin 0.")
    assert 0.95 < float(last.split()[-1]) <= 1


def test_experiment_without_an_answer_says_why(tmp_path: Path) -> None:
    """Replicas whose context is too short for any request."""
    small = msgspec.structs.replace(find_profile("a10-llama-8b"), max_model_len=100)
    file = tmp_path / "small.json"
    file.write_bytes(msgspec.json.encode(small))
    options = ["--fleet", f"{file}:2", "--seeds", "1", "--policy", "random"]
    result = CliRunner().invoke(experiment_command, options)
    assert result.exit_code == 1
    assert "Error: random: every request was refused" in result.output


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_processes_end_with_a_run_that_is_killed() -> None:
    """Nobody is left to tell them to: they would wait for the next cell for ever."""
    command = [
        *(sys.executable, "-u", "-m", "bench", "simulate", "--workload", "hot-prefix,conversation"),
        *("--policy", "round_robin", "--no-limits", "--jobs", "2"),
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    left: list[int] = []
    try:
        while not (line := process.stdout.readline()).startswith("round_robin"):
            assert line, "it ended before its first table"
        left = _begun_by(process.pid)
        assert len(left) == 2
        process.kill()
        process.wait()
        assert _within(10.0, lambda: not any(map(_runs, left)))
    finally:
        process.kill()
        process.stdout.close()
        for pid in filter(_runs, left):
            os.kill(pid, signal.SIGKILL)


def _within(limit_s: float, holds: Callable[[], bool]) -> bool:
    end_s = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.05)
    return True


def _begun_by(parent: int) -> list[int]:
    """The processes of `parent` that simulate."""
    return [pid for pid in descendants(parent) if _runs(pid)]


def _runs(pid: int) -> bool:
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@pytest.mark.slow
def test_interrupted_run_writes_what_there_is(tmp_path: Path) -> None:
    """Ctrl-C after the first table: it is in the file, the processes are gone, no traceback."""
    file = tmp_path / "partial.json"
    command = [
        *(sys.executable, "-u", "-m", "bench", "simulate", "--workload", "hot-prefix,conversation"),
        *("--policy", "round_robin", "--no-limits", "--jobs", "2", "--json", str(file)),
    ]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Also where the tests themselves run with interrupts ignored, as a shell's job does.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )
    assert process.stdout is not None
    try:
        while not (line := process.stdout.readline()).startswith("round_robin"):
            assert line, "it ended before its first table"
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        _end_group(process)
    assert process.returncode != 0
    assert "Traceback" not in errors
    assert list(json.loads(file.read_text())["workloads"]) == ["hot-prefix"]


def _end_group(process: subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    for _ in range(100):  # who is killed leaves the group at once
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
