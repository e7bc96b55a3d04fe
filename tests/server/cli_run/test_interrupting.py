"""Ctrl-C on `triolet run`: the run stops, and everything in it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.cli_run.replica import ScriptedReplica, serving
from tests.server.running.exports import chat

ROOT = Path(__file__).parents[3]
_LIMIT_S = 20.0

pytestmark = pytest.mark.slow


@pytest.fixture
def hanging() -> Iterator[ScriptedReplica]:
    with serving() as replica:
        replica.hangs = True
        yield replica


@pytest.fixture
def process(hanging: ScriptedReplica, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run whose model has begun to answer, and does not go on."""
    (tmp_path / "app.yml").write_text(chat(), encoding="utf-8")
    command = [sys.executable, "-m", "server.cli", "run", "app.yml", "-q", "begun", "--events"]
    started = subprocess.Popen(
        [*command, "--graph", "run.svg", *hanging.pool()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert started.stdout is not None
        seen = b""
        end_s = time.monotonic() + _LIMIT_S
        while b'"chunk"' not in seen and time.monotonic() < end_s:
            seen += started.stdout.readline()
        assert b'"chunk"' in seen
        yield started
    finally:
        started.kill()
        started.communicate()


def test_an_interrupt_stops_the_run_down_to_the_replica(
    process: subprocess.Popen[bytes], hanging: ScriptedReplica, tmp_path: Path
) -> None:
    """Exit code 130; the last event says stopped; the replica sees its client leave; the timeline
    shows how far it came."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=_LIMIT_S)
    assert process.returncode == 130
    assert hanging.gone.wait(_LIMIT_S)
    assert b'"status":"stopped"' in out.splitlines()[-1]
    assert b"the run was stopped: Stopped by user." in err
    assert b"Traceback" not in err
    assert b"data-node-run" in (tmp_path / "run.svg").read_bytes()


def test_a_reader_that_leaves_ends_nothing_else(process: subprocess.Popen[bytes]) -> None:
    """Nobody reads the events any more: the run can still be stopped, without a traceback."""
    assert process.stdout is not None
    process.stdout.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(_LIMIT_S) == 130
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
