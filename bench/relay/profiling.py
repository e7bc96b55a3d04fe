"""Where a proxy's CPU goes: py-spy's stacks, and a summary by function."""

from __future__ import annotations

import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from bench.relay.children import Child

SECONDS: Final = 5
_RATE: Final = 250
# A pooled thread that waits for work: it uses no CPU (its schedstat stands still), but py-spy
# takes it for running.
_WAITING: Final = "WorkerThread._work (trio/_core/_thread_cache.py)"
_LINE = re.compile(r":\d+\)$")


def find_py_spy() -> str | None:
    """The py-spy beside this Python, or on the path; None if there is none."""
    return shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")


def start_recording(py_spy: str, pid: int, output: Path, form: str, cores: set[int]) -> Child:
    """Record a process for SECONDS. `form` is py-spy's: "raw" or "flamegraph"."""
    command = [py_spy, "record", "--pid", str(pid), "--output", str(output), "--format", form]
    options = ["--duration", str(SECONDS), "--rate", str(_RATE)]
    return Child("py-spy", [*command, *options], log=output.with_suffix(".log"), cores=cores)


def self_time(folded: Iterable[str], longest: int = 15) -> list[tuple[float, str]]:
    """The functions at the top of the stacks and their share of all samples, highest first.

    `folded`: lines of "outer (file:line);inner (file:line) count".
    """
    samples: Counter[str] = Counter()
    for line in folded:
        stack, _, count = line.strip().rpartition(" ")
        innermost = _LINE.sub(")", stack.rpartition(";")[2])
        if innermost and innermost != _WAITING and count.isdigit():
            samples[innermost] += int(count)
    total = samples.total()
    return [(count / total, function) for function, count in samples.most_common(longest)]
