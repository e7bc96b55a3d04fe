"""A contender is a process that runs workflows as it is told: one JSON object a line, both ways.

    <- {"ready": "Triolet 0.1.0 on Python 3.11.8"}
    -> {"do": "run", "case": "chain-10", "export": "...", "inputs": {}, "concurrency": 16,
        "seconds": 0.5}
    <- {"runs": 1234, "wall_s": 0.5004, "outputs": {}}

What it used of the CPU is read from outside, so that no contender measures itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, NamedTuple

from bench.relay.procstat import cpu_between, read_cpu, rss_bytes

__all__ = ["Contender", "ContenderFailed", "Cost"]

_START_S: Final = 60.0
_END_S: Final = 5.0
_LONGEST_BYTES: Final = 16 * 1024 * 1024
_TAIL_BYTES: Final = 2_000


class ContenderFailed(Exception):
    """It ended, did not answer in time, or said that it cannot. The message says which."""


class Cost(NamedTuple):
    """What it answered, and the CPU seconds of its process and those below it meanwhile."""

    answer: dict[str, Any]
    cpu_s: float


class Contender:
    """One process. Leaving the `with` block ends it."""

    def __init__(
        self, name: str, command: Sequence[str], *, log: Path, cores: set[int], directory: Path
    ) -> None:
        """Its stderr goes to `log`; it runs in `directory`, on these cores alone."""
        self.name = name
        self.version = name
        self._log = log
        self._stderr: IO[bytes] = log.open("wb")
        self._unread = b""
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                cwd=directory,
                preexec_fn=lambda: os.sched_setaffinity(0, cores),
                start_new_session=True,  # Ctrl-C is for the benchmark, which then ends it
            )
        except OSError as error:
            self._stderr.close()
            message = f"{name}: cannot start {command[0]}: {error.strerror or error}"
            raise ContenderFailed(message) from error

    def __enter__(self) -> Contender:
        try:
            self.version = str(self._answer(_START_S)["ready"])
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def ask(self, limit_s: float, **command: Any) -> Cost:
        """Tell it to do something, and wait for its answer. Raises ContenderFailed."""
        before = read_cpu(self._process.pid)
        self._send(command)
        answer = self._answer(limit_s)
        return Cost(answer, cpu_between(before, read_cpu(self._process.pid)).seconds)

    def rss_bytes(self) -> int:
        """Its resident memory now."""
        return rss_bytes(self._process.pid)

    def end(self) -> None:
        """Close its input, which ends it; SIGKILL if that is not enough."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):  # it is gone already
            self._process.stdin.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._stderr.close()

    def _send(self, command: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._failed("is gone") from error

    def _answer(self, limit_s: float) -> dict[str, Any]:
        line = self._line(limit_s)
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise self._failed(f"said {line[:200]!r}") from error
        if not isinstance(answer, dict) or "error" in answer:
            raise ContenderFailed(f"{self.name}: {str(answer)[:2000]}")
        return answer

    def _line(self, limit_s: float) -> bytes:
        assert self._process.stdout is not None
        source, end_s = self._process.stdout.fileno(), time.monotonic() + limit_s
        while b"\n" not in self._unread:
            left_s = end_s - time.monotonic()
            if left_s <= 0 or not select.select([source], [], [], left_s)[0]:
                raise self._failed(f"did not answer within {limit_s:g} s")
            part = os.read(source, 65_536)
            if not part or len(self._unread) > _LONGEST_BYTES:
                raise self._failed("ended" if not part else "said too much")
            self._unread += part
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _failed(self, what: str) -> ContenderFailed:
        tail = self._log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").strip()
        return ContenderFailed(f"{self.name} {what}; its output: {tail or '(nothing)'}")
