"""Processes of a benchmark: started on given cores, always ended by their id."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from bench.relay.fake import raise_descriptor_limit

# Loaded here, since little may be done between fork and exec.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1
_END_S = 10.0
_TAIL_BYTES = 2_000


class ChildFailed(Exception):
    """A process ended or did not get ready. The message holds the end of its output."""


class Child:
    """One process with its output in a file. Leaving the `with` block ends it."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        cores: set[int],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._output = log.open("wb")
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                # Before exec, so that a runtime that counts its cores counts these.
                preexec_fn=lambda: _prepare(cores),
                # Ctrl-C is for the benchmark, which then ends its children in order.
                start_new_session=True,
            )
        except OSError as error:
            self._output.close()
            raise ChildFailed(f"{name}: cannot start {command[0]}: {error.strerror}") from error
        self.pid = self._process.pid

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def check(self) -> None:
        """Raise ChildFailed if the process has ended."""
        code = self._process.poll()
        if code is not None:
            raise ChildFailed(f"{self.name} ended with code {code}; its output: {self.tail()}")

    def wait(self, limit_s: float) -> bool:
        """Wait for the process to end by itself; False if it has not within the limit."""
        try:
            self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self) -> None:
        """SIGTERM, and SIGKILL if that is not enough."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            if not self.wait(_END_S):
                self._process.kill()
                self._process.wait()
        self._output.close()

    def tail(self) -> str:
        """The last part of what the process printed."""
        text = self.log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").strip()
        return text or "(nothing)"

    def first_line(self, limit_s: float) -> str:
        """The first line the process prints. Raises ChildFailed if there is none in time."""
        end_s = time.perf_counter() + limit_s
        while time.perf_counter() < end_s:
            line, newline, _ = self.log.read_bytes().partition(b"\n")
            if newline:
                return line.decode(errors="replace")
            self.check()
            time.sleep(0.02)
        raise ChildFailed(f"{self.name} printed nothing within {limit_s:g} s")


def _prepare(cores: set[int]) -> None:
    os.sched_setaffinity(0, cores)
    raise_descriptor_limit()
    # A benchmark that is killed outright must not leave its processes behind.
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def free_port() -> int:
    """A port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
