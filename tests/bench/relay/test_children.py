"""Processes are ended by their id, and say why they failed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.relay.children import Child, ChildFailed

PYTHON = [sys.executable, "-I", "-S", "-c"]
CORES = os.sched_getaffinity(0)


def test_a_child_says_its_first_line_and_is_ended(tmp_path: Path) -> None:
    """The output is in the log; leaving the block ends the process."""
    code = "import time; print('ready', flush=True); time.sleep(60)"
    with Child("one", [*PYTHON, code], log=tmp_path / "log", cores=CORES) as child:
        assert child.first_line(5) == "ready"
        child.check()
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_a_child_is_ended_when_the_block_fails(tmp_path: Path) -> None:
    """Ctrl-C in the middle of a benchmark leaves nothing behind."""
    started = []

    def interrupted() -> None:
        code = "import time; time.sleep(60)"
        with Child("one", [*PYTHON, code], log=tmp_path / "log", cores=CORES) as child:
            started.append(child.pid)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)


def test_a_child_that_fails_shows_its_output(tmp_path: Path) -> None:
    """The reason stands in the error, not only in a file that is deleted."""
    code = "import sys; sys.exit('no such option')"
    with Child("one", [*PYTHON, code], log=tmp_path / "log", cores=CORES) as child:
        assert child.wait(5)
        with pytest.raises(ChildFailed, match=r"one ended with code 1; .* no such option"):
            child.check()


def test_a_missing_command_is_told(tmp_path: Path) -> None:
    """A command that is not there is named."""
    with pytest.raises(ChildFailed, match="cannot start /nowhere/triolet"):
        Child("one", ["/nowhere/triolet"], log=tmp_path / "log", cores=CORES)


def test_a_child_runs_on_its_cores(tmp_path: Path) -> None:
    """Pinned before it starts, so a runtime that counts cores sees these alone."""
    core = min(CORES)
    code = "import os; print(os.sched_getaffinity(0), flush=True)"
    with Child("one", [*PYTHON, code], log=tmp_path / "log", cores={core}) as child:
        assert child.first_line(5) == f"{{{core}}}"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_a_child_ends_with_a_benchmark_that_is_killed(tmp_path: Path) -> None:
    """Nothing can be cleaned up then, so the kernel has to."""
    code = (
        "import os, pathlib, signal, sys\n"
        "from bench.relay.children import Child\n"
        "sleeper = [sys.executable, '-I', '-S', '-c', 'import time; time.sleep(60)']\n"
        "log = pathlib.Path(sys.argv[1])\n"
        "print(Child('one', sleeper, log=log, cores=os.sched_getaffinity(0)).pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "log")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
        check=False,
    )
    status = Path(f"/proc/{int(done.stdout)}/stat")
    end_s = time.perf_counter() + 5
    while status.exists() and ") Z " not in status.read_text():
        assert time.perf_counter() < end_s
        time.sleep(0.01)
