"""Running a client: its end, its failure, its time limit."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bench.clients.process import offline_environment, run_client
from bench.clients.result import ClientFailed


def run(script: str, place: Path, *, limit_s: float = 30) -> str:
    """Run a Python script as a client; gives what it printed."""
    log = place / "output.log"
    run_client([sys.executable, "-c", script], {"GIVEN": "yes"}, log=log, limit_s=limit_s)
    return log.read_text()


def test_output_is_kept_and_environment_given(tmp_path: Path) -> None:
    """What the client prints is in its log, and it sees what it was given."""
    assert run("import os; print(os.environ['GIVEN'])", tmp_path) == "yes\n"


def test_failure_is_told_with_its_output(tmp_path: Path) -> None:
    """A code other than 0 is a failure, even of a client that printed a table before."""
    with pytest.raises(ClientFailed, match="code 3: so it was"):
        run("import sys; print('so it was'); sys.exit(3)", tmp_path)


def test_missing_program_is_told(tmp_path: Path) -> None:
    """A program that is not there is named."""
    with pytest.raises(ClientFailed, match="no-such-program"):
        run_client(["no-such-program"], {}, log=tmp_path / "log", limit_s=1)


STARTS_ANOTHER = """
import subprocess, sys, time
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(other.pid, flush=True)
time.sleep({sleep})
"""


def ended(pid: int) -> bool:
    """Whether a process has ended, be it that nobody has waited for it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize(("sleep", "limit_s"), [(0, 30), (60, 1.0)])
def test_nothing_of_a_client_survives(sleep: int, limit_s: float, tmp_path: Path) -> None:
    """Processes that a client started are ended with it, at its end and at its time limit."""
    if sleep:
        with pytest.raises(ClientFailed, match="not done within 1 s"):
            run(STARTS_ANOTHER.format(sleep=sleep), tmp_path, limit_s=limit_s)
    else:
        run(STARTS_ANOTHER.format(sleep=sleep), tmp_path, limit_s=limit_s)
    assert ended(int((tmp_path / "output.log").read_text()))


def test_offline_environment_names_no_proxy_for_loopback(tmp_path: Path) -> None:
    """Tools look for models only where the tokenizer lies, and go to loopback directly."""
    given = offline_environment(tmp_path / "home", tmp_path / "hub")
    assert given["HF_HOME"] == os.fspath(tmp_path / "hub")
    assert given["HF_HUB_OFFLINE"] == given["TRANSFORMERS_OFFLINE"] == "1"
    assert "127.0.0.1" in given["NO_PROXY"]
