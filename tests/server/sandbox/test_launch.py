"""Programs that are not ours, locked down before they start: Monty, and a probe that tries it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from server.sandbox import Sandbox, landlock, monty
from server.sandbox.children import python_command
from server.sandbox.options import CallLimits
from tests.server.sandbox.watching import (
    LIMITS,
    children_of_this_process,
    comes_true,
    gone,
    lives,
    options,
    outcome,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the locks are Linux's"),
    pytest.mark.skipif(landlock.abi() == 0, reason="the kernel has no Landlock"),
]
needs_monty = pytest.mark.skipif(not monty.is_installed(), reason="pydantic-monty is not here")

PROBE = """
import ctypes, json, os, socket, sys, threading
def tried(act):
    try:
        return repr(act())
    except OSError as error:
        return error.errno
    except RuntimeError as error:
        return str(error)
def thread():
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
libc = ctypes.CDLL(None, use_errno=True)
print(json.dumps({
    "files": [fd for fd in range(3, 4096) if tried(lambda: os.fstat(fd)) != 9],
    "environment": dict(os.environ), "uid": os.getuid(), "argv": sys.argv[1:],
    "refused": {name: tried(act) for name, act in {
        "passwd": lambda: open("/etc/passwd"), "environ": lambda: open("/proc/self/environ"),
        "list": lambda: os.listdir("/"), "write": lambda: open("/tmp/written", "w"),
        "socket": socket.socket, "pair": socket.socketpair, "fork": os.fork,
        "exec": lambda: os.execv("/bin/sh", ["sh"]), "kill": lambda: os.kill(os.getppid(), 9),
        "exec again": lambda: os.execve(os.open(sys.executable, os.O_RDONLY), ["x"], {}),
        "hundredth file": lambda: os.dup2(0, 100), "memfd": lambda: os.memfd_create("x"),
    }.items()},
    "thread": tried(thread),
}))
"""


def launch(path: str, *arguments: str, parent: int | None = None) -> dict[str, Any]:
    """What a program says that was started locked down."""
    # A program in a virtual environment is a link to one that has its libraries around it.
    places = [sysconfig.get_path("stdlib"), os.path.join(sys.base_prefix, "lib")]
    settings = {
        "path": os.path.realpath(path),
        "parent": os.getpid() if parent is None else parent,
        "readable": places,
        "memory_bytes": 512 << 20,
    }
    command = [*python_command("server.sandbox.launch", settings), *arguments]
    done = subprocess.run(
        command, capture_output=True, env={"SECRET": "1"}, close_fds=False, timeout=20
    )
    return {"code": done.returncode, "out": done.stdout.decode(), "error": done.stderr.decode()}


def status_of(pid: int) -> dict[str, str]:
    """What the kernel says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


LOADER_FAILED = 127


def _open_to_all(path: Path) -> bool:
    """Whether users without rights may look into it."""
    return all(place.stat().st_mode & 0o001 for place in (path, *path.parents))


def test_a_program_has_nothing() -> None:
    """No environment, files, sockets, processes, other user's rights or second program; threads
    it may have."""
    with open(__file__, "rb") as inherited:
        os.set_inheritable(inherited.fileno(), True)
        said = launch(sys.executable, "-I", "-S", "-c", PROBE, "a")
    if said["code"] == LOADER_FAILED and not _open_to_all(Path(sys.base_prefix)):
        pytest.skip(f"nobody may not load Python from {sys.base_prefix}")
    assert said["code"] == 0, said
    found = json.loads(said["out"])
    assert set(found["environment"]) <= {"LC_CTYPE"}  # which Python sets itself
    assert found["uid"] != 0
    assert found["argv"] == ["a"]
    assert found["thread"] == "None"
    assert found["files"] == []
    assert set(found["refused"].values()) <= {1, 9, 13, 24}, found["refused"]


def test_a_program_is_not_started_where_it_could_outlive_us() -> None:
    """Nor is one that is not there: the launcher ends, and says why in one line."""
    assert launch("/bin/echo", "x", parent=1)["out"] == ""
    missing = launch("/nothing/like/it")
    assert missing["code"] == 1
    assert "could not be locked down" in missing["error"]
    assert "Traceback" not in missing["error"]


@needs_monty
async def test_montys_process_is_locked() -> None:
    """As the kernel has it: the user, no new privileges, a filter; no environment; three files."""
    async with Sandbox(options(monty=True)) as sandbox:
        before = children_of_this_process()
        assert await sandbox.run("python3", "def main(): return {'a': 1}", {}) == {"a": 1}
        (pid,) = children_of_this_process() - before
        status = status_of(pid)
        assert status["Seccomp"].strip() == "2"
        assert status["NoNewPrivs"].strip() == "1"
        assert "0" not in status["Uid"].split()
        assert Path(f"/proc/{pid}/environ").read_bytes() == b""  # noqa: ASYNC240
        assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]
    assert await gone([pid])


@needs_monty
@pytest.mark.parametrize("strict", [False, True])
async def test_monty_is_used_where_it_is_locked(
    monkeypatch: pytest.MonkeyPatch, strict: bool
) -> None:
    """And not where it would not be."""
    async with Sandbox(options(monty=True, strict=strict)) as sandbox:
        assert await sandbox.run("python3", "def main(): return {'a': 1}", {}) == {"a": 1}
        assert sandbox.pids == []  # no zygote was needed
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    async with Sandbox(options(monty=True, strict=strict)) as sandbox:
        assert await sandbox.run("python3", "def main(): return {'a': 1}", {}) == {"a": 1}
        assert len(sandbox.pids) > 0


@needs_monty
def test_monty_lives_on_when_the_thread_of_a_call_ends() -> None:
    """The kernel kills it with the thread that started it, so one thread starts all; when that
    one ends, it kills them."""
    starter = monty._Starter(LIMITS.memory_bytes)
    slot = monty._Slot(starter)
    before = children_of_this_process()
    pids = []
    for _ in range(2):
        call = threading.Thread(target=slot.call, args=("def main(): return {}", {}, LIMITS))
        call.start()
        call.join()
        pids.append(children_of_this_process() - before)
        time.sleep(0.05)
    assert len(pids[0]) == 1
    assert pids[0] == pids[1]
    (pid,) = pids[0]
    assert lives(pid)
    starter.close()
    ends = time.monotonic() + 5
    while lives(pid) and time.monotonic() < ends:
        time.sleep(0.01)
    assert not lives(pid)
    slot.close()


@needs_monty
async def test_a_crashed_monty_is_replaced() -> None:
    """By a process that is locked too; the call in flight goes to a worker."""
    limits = CallLimits(time_s=5, memory_bytes=64 << 20, input_bytes=9999, output_bytes=9999)
    sleep = "import time\ndef main():\n    time.sleep(0.5)\n    return {'a': 1}"
    async with Sandbox(options(monty=True, code=limits)) as sandbox:
        results = []
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                results.append(await outcome(sandbox.run("python3", sleep, {})))

            nursery.start_soon(call)
            assert await comes_true(lambda: len(sandbox.pids) == 1)
            os.kill(sandbox.pids[0], 9)
        assert results == [({"a": 1}, "")]
        before = children_of_this_process()
        assert await sandbox.run("python3", "def main(): return {'b': 2}", {}) == {"b": 2}
        (pid,) = children_of_this_process() - before
        assert status_of(pid)["Seccomp"].strip() == "2"


@needs_monty
async def test_code_runs_where_monty_cannot_be_started(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In a worker, with one warning; Monty is not asked again at once."""
    monkeypatch.setattr("pydantic_monty._binary.find_monty_binary", lambda _: "/nothing/like/it")
    async with Sandbox(options(monty=True)) as sandbox:
        for number in range(3):
            source = f"def main(): return {{'a': {number}}}"
            assert await sandbox.run("python3", source, {}) == {"a": number}
    assert [record.message[:23] for record in caplog.records] == ["Monty cannot be started"]
