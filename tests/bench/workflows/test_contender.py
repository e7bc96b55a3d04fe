"""Processes that are told what to run: what they answer, what they used, how they fail."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bench.workflows.cases import CASES, CHAIN_50, STREAM, WAIT
from bench.workflows.contender import Contender, ContenderFailed
from bench.workflows.session import Plan, measure

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="CPU is read from /proc")


def contender(name: str, *command: str, tmp_path: Path) -> Contender:
    cores = set(os.sched_getaffinity(0))
    log = tmp_path / name
    return Contender(name, [sys.executable, *command], log=log, cores=cores, directory=ROOT)


def scripted(code: str, tmp_path: Path) -> Contender:
    return contender("scripted", "-c", code, tmp_path=tmp_path)


SPINS = """
import json, sys, time
print('{"ready": "a script"}', flush=True)
for line in sys.stdin:
    end = time.process_time() + json.loads(line)["spin"]
    while time.process_time() < end: pass
    print('{"done": true}', flush=True)
"""


@pytest.mark.slow
def test_what_it_used_is_read_from_outside(tmp_path: Path) -> None:
    """CPU seconds between the question and the answer, and no others."""
    with scripted(SPINS, tmp_path) as one:
        assert one.version == "a script"
        cost = one.ask(10, spin=0.2)
        assert cost.answer == {"done": True}
        assert cost.cpu_s == pytest.approx(0.2, abs=0.05)
        assert one.ask(10, spin=0).cpu_s < 0.05
        assert one.rss_bytes() > 1_000_000


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise SystemExit('out of luck')", "ended; its output: out of luck"),
        ("print('nonsense', flush=True); input()", "said b'nonsense'"),
        ('print(\'{"error": "no"}\', flush=True); input()', "{'error': 'no'}"),
    ],
)
def test_one_that_does_not_start_says_why(code: str, message: str, tmp_path: Path) -> None:
    """With the end of its output."""
    with pytest.raises(ContenderFailed) as caught, scripted(code, tmp_path):
        raise AssertionError("it must not start")
    assert message in str(caught.value)


def test_one_that_hangs_is_given_up(tmp_path: Path) -> None:
    """After the limit, and it is ended all the same."""
    code = 'import sys\nprint(\'{"ready": "x"}\', flush=True)\nsys.stdin.read()'
    with scripted(code, tmp_path) as one, pytest.raises(ContenderFailed, match=r"within 0\.1 s"):
        one.ask(0.1, do="anything")


def test_a_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    """By the reason of the system."""
    with pytest.raises(ContenderFailed, match="cannot start /no/python: No such file"):
        Contender("x", ["/no/python"], log=tmp_path / "x", cores={0}, directory=ROOT)


@pytest.mark.slow
def test_our_engine_and_the_floor_are_measured(tmp_path: Path) -> None:
    """All that is measured, with the smallest plan: outputs are checked on the way."""
    plan = Plan(1, 0.02, tuple(CASES), (1, 4), 4, 20, 100, warm_s=0.01, compiled=1)
    said: list[str] = []
    with (
        contender("triolet", "-m", "server.engine_bench", tmp_path=tmp_path) as ours,
        contender("raw", "-m", "bench.workflows.raw_child", tmp_path=tmp_path) as raw,
    ):
        assert ours.version.startswith("Triolet ")
        results = measure([ours, raw], plan, said.append)
    assert len(results.measured) == 2 * 2 * len(CASES)
    assert all(one.runs > 0 and one.cpu_s > 0 for one in results.measured)
    assert [one.contender for one in results.compiling] == ["triolet"]
    assert {(one.contender, one.tokens) for one in results.streaming} == {
        ("triolet", 100),
        ("raw", 100),
    }
    assert results.waiting[0].runs == 20
    assert results.notes == []


@pytest.mark.slow
def test_wrong_outputs_do_not_count(tmp_path: Path) -> None:
    """What is fast and wrong is an error."""
    code = (
        'import sys\nprint(\'{"ready": "x"}\', flush=True)\n'
        'for line in sys.stdin:\n print(\'{"runs": 5, "wall_s": 1, "outputs": {}}\', flush=True)'
    )
    plan = Plan(1, 0.01, ("chain-10",), (1,), 1, 1, 1, warm_s=0.01)
    with scripted(code, tmp_path) as one, pytest.raises(ContenderFailed, match="expected"):
        measure([one], plan, lambda text: None)


@pytest.mark.slow
def test_runs_that_wait_are_released(tmp_path: Path) -> None:
    """Held runs go on holding, more of them can be added, and all end together."""
    wait = {"case": WAIT.name, "export": WAIT.export, "inputs": WAIT.inputs}
    with contender("triolet", "-m", "server.engine_bench", tmp_path=tmp_path) as ours:
        assert ours.ask(20, do="hold", **wait, runs=3).answer == {"held": 3}
        assert ours.ask(20, do="hold", **wait, runs=2).answer == {"held": 5}
        assert ours.ask(20, do="release").answer == {}
        stream = {"case": STREAM.name, "export": STREAM.export, "inputs": STREAM.inputs}
        told = ours.ask(20, do="stream", **stream, runs=2, tokens=7).answer
        assert told == {"tokens": 14}
        broken = {"case": "broken", "export": "{}", "inputs": {}}
        with pytest.raises(ContenderFailed, match="DslError"):
            ours.ask(20, do="run", **broken, concurrency=1, seconds=0.01)
        compiled = ours.ask(20, do="compile", case="c", export=CHAIN_50.export, inputs={}, times=1)
        assert compiled.answer["compile_s"] > 0
