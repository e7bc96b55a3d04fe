"""What calls of the sandbox cost on this machine: `python -m server.sandbox.measure`. Linux only.

Wall time is seen by the caller. CPU is of this process and of all that it started, by the kernel's
count in ticks (10 ms), so it means something only over many calls.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, NamedTuple

import trio

from server.sandbox import Sandbox, SandboxOptions, monty

__all__ = ["main"]

_PYTHON: Final = (
    "import json, re\n"
    "def main(text):\n"
    "    found = re.findall(r'[0-9]+', text)\n"
    "    return {'numbers': [int(number) for number in found], 'text': json.dumps(found)}"
)
_TEMPLATE: Final = "{% for row in rows %}{{ loop.index }}. {{ row|upper }}\n{% endfor %}"
_DOCUMENT: Final = b"name,number\n" + b"a,1\n" * 200
_PAUSE_S: Final = 0.05


class Kind(NamedTuple):
    """One way to use a sandbox."""

    name: str
    options: SandboxOptions
    call: Callable[[Sandbox], Awaitable[object]]
    pause_s: float = 0.0


class Cost(NamedTuple):
    """Of one kind of call."""

    first_s: float
    wall_s: list[float]
    """Sorted."""
    here_s: float
    there_s: float
    bytes: list[int]
    """Of each process that is kept, its share of what it shares with others included."""

    def quantile_ms(self, share: float) -> float:
        return 1000 * self.wall_s[min(int(share * len(self.wall_s)), len(self.wall_s) - 1)]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m server.sandbox.measure")
    parser.add_argument("--calls", type=int, default=400, help="of each kind (default: 400)")
    calls = parser.parse_args().calls
    say = sys.stdout.write
    load = " ".join(f"{number:.1f}" for number in os.getloadavg())
    say(f"{os.cpu_count()} cores, load {load}, Python {sys.version.split()[0]}, {calls} calls\n\n")
    say(f"{'':28}{'p50 ms':>8}{'p95 ms':>8}{'first ms':>10}{'CPU here us':>13}")
    say(f"{'CPU there us':>14}  MiB of each process\n")
    for kind in _kinds():
        cost = trio.run(_measured, kind, calls)
        per_call = 1e6 / calls
        held = " ".join(f"{size / (1 << 20):.1f}" for size in sorted(cost.bytes, reverse=True))
        say(f"{kind.name:28}{cost.quantile_ms(0.5):8.2f}{cost.quantile_ms(0.95):8.2f}")
        say(f"{1000 * cost.first_s:10.0f}{cost.here_s * per_call:13.0f}")
        say(f"{cost.there_s * per_call:14.0f}  {held}\n")


def _kinds() -> list[Kind]:
    plain = SandboxOptions(enabled=True, monty=False)
    kinds = [
        Kind("CPython, back to back", plain, _python),
        Kind("CPython, with pauses", plain, _python, _PAUSE_S),
        Kind("template, with pauses", plain, _template, _PAUSE_S),
        Kind("document, with pauses", plain, _document, _PAUSE_S),
    ]
    if monty.is_installed():
        kinds.insert(0, Kind("Monty", SandboxOptions(enabled=True), _python))
    return kinds


async def _python(sandbox: Sandbox) -> object:
    return await sandbox.run("python3", _PYTHON, {"text": "one 1, two 2, three 3"})


async def _template(sandbox: Sandbox) -> object:
    return await sandbox.render(_TEMPLATE, {"rows": ["a", "b", "c"]})


async def _document(sandbox: Sandbox) -> object:
    return await sandbox.text_of(_DOCUMENT, "a.csv", None)


async def _measured(kind: Kind, calls: int) -> Cost:
    async with Sandbox(kind.options) as sandbox:
        first_s = await _timed(kind, sandbox)
        for _ in range(5):
            await _timed(kind, sandbox)
        here, there = time.process_time(), _cpu_s_of_others()
        wall = []
        for _ in range(calls):
            await trio.sleep(kind.pause_s)
            wall.append(await _timed(kind, sandbox))
        here_s, there_s = time.process_time() - here, _cpu_s_of_others() - there
        await trio.sleep(_PAUSE_S)
        held = [_bytes_of(pid) for pid in _started()]
        return Cost(first_s, sorted(wall), here_s, there_s, held)


async def _timed(kind: Kind, sandbox: Sandbox) -> float:
    began = time.perf_counter()
    await kind.call(sandbox)
    return time.perf_counter() - began


def _started(pid: int | str = "self") -> list[int]:
    """The processes that it started and that live, and those that they started."""
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
            found += [int(child), *_started(child)]
    return found


def _cpu_s_of_others() -> float:
    """Of zygotes with the workers that they have waited for, and of Monty's processes."""
    ticks = 0
    for task in os.listdir("/proc/self/task"):
        for child in Path(f"/proc/self/task/{task}/children").read_text().split():
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _bytes_of(pid: int) -> int:
    """Its own memory, and its share of what it shares."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    main()
