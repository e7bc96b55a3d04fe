"""CPU time and memory of a process and its descendants, read from Linux.

CPU time is read twice. `clock` is the kernel's CPU clock of a process (what clock_getcpuclockid
returns): nanoseconds, all threads, those that ended too. `stat` is utime + stime of
/proc/<pid>/stat: the same account in ticks of 10 ms, and with it the children that were waited for.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
_CPUCLOCK_SCHED: Final = 2
_PARENT, _UTIME, _STIME, _CUTIME, _CSTIME = 1, 11, 12, 13, 14  # fields after the name


@dataclass(frozen=True)
class CpuReading:
    """CPU seconds used so far by a process tree."""

    clock_s: dict[int, float] | None
    """By process id; None where the kernel does not give the clock."""
    stat_s: float


class CpuUse(NamedTuple):
    """CPU seconds used between two readings, and what they were read from."""

    seconds: float
    source: str
    stat_seconds: float


def read_cpu(pid: int) -> CpuReading:
    """Read the CPU time of `pid` and all its descendants.

    Raises ProcessLookupError if `pid` has ended.
    """
    fields = _stat_fields(pid)
    if fields is None:
        raise ProcessLookupError(f"process {pid} has ended")
    tree = [pid, *descendants(pid)]
    stat_s = (int(fields[_CUTIME]) + int(fields[_CSTIME])) * _TICK_S
    for member in tree:
        own = _stat_fields(member)
        stat_s += (int(own[_UTIME]) + int(own[_STIME])) * _TICK_S if own else 0.0
    try:
        clocks = {member: _clock_s(member) for member in tree}
    except OSError:
        return CpuReading(None, stat_s)
    return CpuReading(clocks, stat_s)


def cpu_between(before: CpuReading, after: CpuReading) -> CpuUse:
    """What was used between two readings of one process: the clocks' account where it is whole.

    It is not where a process of the tree came or went; then the ticks are used.
    """
    stat_s = after.stat_s - before.stat_s
    first, last = before.clock_s, after.clock_s
    if first is None or last is None or first.keys() != last.keys():
        return CpuUse(stat_s, "stat", stat_s)
    return CpuUse(sum(last.values()) - sum(first.values()), "clock", stat_s)


def rss_bytes(pid: int) -> int:
    """Resident memory of `pid` and its descendants. Raises ProcessLookupError if it has ended."""
    return _memory_bytes(pid, "VmRSS:")


def peak_rss_bytes(pid: int) -> int:
    """The most resident memory that `pid` and its descendants had since each began, summed.

    Pages that several of them share count several times. Raises ProcessLookupError if it has ended.
    """
    return _memory_bytes(pid, "VmHWM:")


def descendants(pid: int) -> list[int]:
    """The ids of all living processes below `pid`."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat_fields(int(entry.name))) is not None:
            children.setdefault(int(fields[_PARENT]), []).append(int(entry.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _clock_s(pid: int) -> float:
    # The id that clock_getcpuclockid(3) makes of a process id; Python does not wrap it.
    return time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED) / 1e9


def _stat_fields(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat after the name in brackets; None if the process ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def _memory_bytes(pid: int, field: str) -> int:
    try:
        return sum(_status_bytes(member, field) for member in [pid, *descendants(pid)])
    except FileNotFoundError as error:
        raise ProcessLookupError(f"process {pid} or a child of it has ended") from error


def _status_bytes(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    return 0
