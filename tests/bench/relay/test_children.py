"""Processes are ended by their id, and say why they failed."""

from __future__ import annotations

import os
import sys
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
