"""CPU time and memory read from real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench.relay import procstat
from bench.relay.procstat import CpuReading

BURN = """
import sys, threading, time
sys.stdin.readline()
def burn():
    end = time.thread_time() + 0.1
    while time.thread_time() < end: pass
one = threading.Thread(target=burn)
one.start(); burn(); one.join()
print("done", flush=True)
sys.stdin.readline()
"""


@contextmanager
def _python(code: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.slow
def test_cpu_of_a_child_that_burns_a_known_time() -> None:
    """0.1 s on each of two threads, one of which has ended when it is read."""
    with _python(BURN) as process:
        before = procstat.read_cpu(process.pid)
        _go_on(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        used = procstat.cpu_between(before, procstat.read_cpu(process.pid))
    assert used.source == "clock"
    assert 0.19 < used.seconds < 0.4
    assert used.stat_seconds == pytest.approx(used.seconds, abs=0.03)


@pytest.mark.slow
def test_descendants_are_counted_in_memory() -> None:
    """A grandchild is found, and its memory is part of the whole."""
    code = (
        "import subprocess, sys; "
        "code = 'print(flush=True); input()'; "
        "p = subprocess.Popen([sys.executable, '-I', '-S', '-c', code], stdout=subprocess.PIPE); "
        "p.stdout.readline(); print(p.pid, flush=True); input()"  # it is up: its memory stands
    )
    with _python(code) as process:
        assert process.stdout is not None
        below = int(process.stdout.readline())
        assert below in procstat.descendants(os.getpid())
        assert procstat.descendants(process.pid) == [below]
        assert procstat.rss_bytes(process.pid) > procstat.rss_bytes(below) > 1_000_000
        now_bytes = procstat.rss_bytes(process.pid)
        assert procstat.peak_rss_bytes(process.pid) >= now_bytes
        os.kill(below, 15)


def test_a_process_that_ended_is_told() -> None:
    """No silent zero for a proxy that died."""
    with _python("pass") as process:
        process.wait()
    with pytest.raises(ProcessLookupError):
        procstat.read_cpu(process.pid)
    with pytest.raises(ProcessLookupError):
        procstat.rss_bytes(process.pid)
    with pytest.raises(ProcessLookupError):
        procstat.peak_rss_bytes(process.pid)


def test_own_clock_agrees_with_python() -> None:
    """The kernel's clock of a process id is the process's CPU time."""
    reading = procstat.read_cpu(os.getpid())
    assert reading.clock_s is not None
    assert reading.clock_s[os.getpid()] == pytest.approx(time.process_time(), abs=0.2)


def test_ticks_serve_where_the_tree_changed() -> None:
    """A child that came or went makes the clocks' difference meaningless."""
    used = procstat.cpu_between(CpuReading({1: 1.0}, 1.0), CpuReading({1: 1.5, 2: 0.1}, 1.6))
    assert used.source == "stat"
    assert used.seconds == pytest.approx(0.6)
    used = procstat.cpu_between(CpuReading({1: 1.0}, 1.0), CpuReading({1: 1.5}, 1.51))
    assert used.source == "clock"
    assert used.seconds == pytest.approx(0.5)
