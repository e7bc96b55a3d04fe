"""Code that means harm, in real workers: it fails, the loop stays on time, nothing is left."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
import trio
import trio.testing

from server.sandbox import Sandbox, landlock
from server.sandbox.options import CallLimits
from server.workflow.services import CodeFailed
from tests.server.sandbox.watching import (
    children_of,
    comes_true,
    gone,
    keeps_time,
    lives,
    options,
    outcome,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the locks are Linux's"),
]
needs_landlock = pytest.mark.skipif(landlock.abi() == 0, reason="the kernel has no Landlock")

FORBIDDEN = "not permitted|Permission denied|PermissionError|BlockingIOError|can't start new thread"

REFUSED = {
    "fork": "import os\ndef main():\n    return {'pid': os.fork()}",
    "fork bomb": "import os\ndef main():\n    while True:\n        os.fork()",
    "system": "import os\ndef main():\n    os.posix_spawn('/bin/sh', ['sh'], {})",
    "exec": "import os\ndef main():\n    os.execv('/bin/sh', ['sh', '-c', 'true'])",
    "subprocess": "import subprocess\ndef main():\n    subprocess.run(['/bin/true'])",
    "thread": "import threading\ndef main():\n    threading.Thread(target=print).start()",
    "socket": "import socket\ndef main():\n    socket.create_connection(('127.0.0.1', 22))",
    "unix socket": "import socket\ndef main():\n    socket.socket(socket.AF_UNIX)",
    "passwd": "def main():\n    return {'x': open('/etc/passwd').read()}",
    "environ": "def main():\n    return {'x': open('/proc/self/environ').read()}",
    "parent's memory": "import os\ndef main():\n    open(f'/proc/{os.getppid()}/mem', 'rb')",
    "list": "import os\ndef main():\n    return {'x': os.listdir('/')}",
    "write": "def main():\n    open('/tmp/written', 'w').write('x')",
    "mkdir": "import os\ndef main():\n    os.mkdir('/tmp/made')",
    "kill parent": "import os\ndef main():\n    os.kill(os.getppid(), 9)",
    "kill all": "import os\ndef main():\n    os.kill(-1, 9)",
    "setuid": "import os\ndef main():\n    os.setuid(0)",
    "raise limits": "import resource\ndef main():\n    resource.prlimit(1, 7, (9, 9))",
    "own a signal": "import fcntl\ndef main():\n    fcntl.fcntl(0, fcntl.F_SETOWN, 1)",
}

PIPE = (
    "import os, stat, struct, time\n"
    "def is_pipe(n):\n    try:\n        return stat.S_ISSOCK(os.fstat(n).st_mode)\n"
    "    except OSError:\n        return False\n"
    "pipe = next(filter(is_pipe, range(64)))\n"
)
LIBC = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
CALLS = {
    "ptrace": "libc.ptrace(16, 1, 0, 0)",
    "clone": "libc.syscall(56, 17, 0, 0, 0, 0)",
    "execve": "libc.execve(b'/bin/sh', None, None)",
    "socket": "libc.socket(2, 1, 0)",
    "memfd_create": "libc.memfd_create(b'x', 0)",
    "unshare": "libc.unshare(0x10000000)",
    "prctl": "libc.prctl(1, 0, 0, 0, 0)",
    "kill": "libc.kill(1, 9)",
    "io_uring_setup": "libc.syscall(425, 8, 0)",
    "bpf": "libc.syscall(321, 0, 0, 0)",
    "process_vm_readv": "libc.syscall(310, 1, 0, 0, 0, 0, 0)",
    "x32 getpid": "libc.syscall(0x40000000 + 39)",
    "clone3": "libc.syscall(435, 0, 0)",
    "vfork": "libc.syscall(58)",
    "execveat": "libc.syscall(322, 0, b'', 0, 0, 0x1000)",
    "tgkill": "libc.syscall(234, 1, 1, 9)",
    "rt_sigqueueinfo": "libc.syscall(129, 1, 9, 0)",
    "pidfd_open": "libc.syscall(434, 1, 0)",
    "pidfd_send_signal": "libc.syscall(424, 0, 9, 0, 0)",
    "process_madvise": "libc.syscall(440, 0, 0, 0, 0, 0)",
    "setpriority": "libc.syscall(141, 0, 0, -20)",
    "sched_setaffinity": "libc.syscall(203, 1, 0, 0)",
    "userfaultfd": "libc.syscall(323, 0)",
    "perf_event_open": "libc.syscall(298, 0, 0, 0, 0, 0)",
    "keyctl": "libc.syscall(250, 0, 0, 0, 0, 0)",
    "memfd_secret": "libc.syscall(447, 0)",
    "shmget": "libc.syscall(29, 0, 4096, 0o1666)",
    "mq_open": "libc.syscall(240, b'/x', 0o102, 0o666, 0)",
    "sendmsg": "libc.syscall(46, 3, 0, 0)",
    "chmod": "libc.chmod(b'/tmp', 0o777)",
    "truncate": "libc.truncate(b'/etc/hostname', 0)",
    "timer_create": "libc.syscall(222, 0, 0, 0)",
    "landlock": "libc.syscall(444, 0, 0, 1)",
    "setns": "libc.syscall(308, 0, 0)",
}

WASTEFUL = {
    "loop": ("def main():\n    while True:\n        pass", "ran for more than"),
    "regular expression": (
        "import re\ndef main():\n    re.match(r'(a+)+$', 'a' * 60 + 'b')",
        "ran for more than",
    ),
    "sleep": ("import time\ndef main():\n    time.sleep(60)", "ran for more than"),
    "loop that catches all": (
        "def main():\n    while True:\n        try:\n            while True: pass\n"
        "        except BaseException: pass",
        "ran for more than",
    ),
    "deaf to signals": (
        "import signal\ndef main():\n    for n in range(1, 64):\n        try:\n"
        "            signal.signal(n, signal.SIG_IGN)\n        except (OSError, ValueError): pass\n"
        "    while True: pass",
        "ran for more than",
    ),
    "signal handler that loops": (
        "import signal\ndef main():\n    signal.signal(signal.SIGSEGV, lambda *_: main())\n"
        "    while True: pass",
        "ran for more than",
    ),
    "memory": ("def main():\n    return {'x': len(b'x' * (2 << 30))}", "out of memory"),
    "memory in pieces": (
        "def main():\n    kept = []\n    while True:\n        kept.append(bytearray(1 << 20))",
        "out of memory|ran for more than",
    ),
    "mapped memory": (
        "import mmap\ndef main():\n    mmap.mmap(-1, 2 << 30)",
        "Cannot allocate memory|out of memory",
    ),
    "big power": ("def main():\n    return {'x': len(str(7 ** 10 ** 9))}", "ran for|out of memory"),
    "huge result": ("def main():\n    return {'x': 'x' * (2 << 20)}", "larger than"),
    "recursion": ("def f():\n    f()\ndef main():\n    f()", "RecursionError"),
    "recursion in C": (
        "import sys\ndef main():\n    sys.setrecursionlimit(10 ** 9)\n"
        "    f = lambda x: [f(x) for _ in x]\n    f([1])",
        "lost|RecursionError|out of memory|ran for",
    ),
    "deep result": (
        "def main():\n    x = []\n    for _ in range(99999):\n        x = [x]\n    return {'x': x}",
        "cannot be JSON|lost",
    ),
    "crash": (
        "import ctypes\ndef main():\n    ctypes.string_at(0)",
        "lost",
    ),
    "exit": ("import os\ndef main():\n    os._exit(0)", "lost"),
    "SystemExit": ("import sys\ndef main():\n    sys.exit('bye')", "SystemExit: bye"),
    "KeyboardInterrupt": ("def main():\n    raise KeyboardInterrupt", "KeyboardInterrupt"),
    "error that lies": (
        "class E(Exception):\n    def __str__(self):\n        raise E()\n"
        "def main():\n    raise E()",
        "lost|E",
    ),
    "error that loops": (
        "class E(Exception):\n    def __str__(self):\n        while True: pass\n"
        "def main():\n    raise E()",
        "ran for more than",
    ),
    "closed pipe": ("import os\ndef main():\n    os.closerange(0, 64)\n    return {}", "lost"),
    "noise on the pipe": (
        PIPE + "def main():\n    os.write(pipe, b'\\xff' * 64)\n    return {}",
        "lost",
    ),
    "a head without end": (
        PIPE + "def main():\n    os.write(pipe, struct.pack('<II', 1 << 31, 0))",
        "lost",
    ),
    "a body without end": (
        PIPE + "def main():\n"
        "    os.write(pipe, struct.pack('<II', 11, 1 << 31) + b'{\"ok\":true}')",
        "lost",
    ),
    "half an answer": (
        PIPE + "def main():\n    os.write(pipe, b'\\x05\\0')\n    time.sleep(60)",
        "ran for more than",
    ),
    "a deep answer": (
        PIPE + "def main():\n    b = b'[' * 900000\n"
        "    os.write(pipe, struct.pack('<II', 11, len(b)) + b'{\"ok\":true}' + b)",
        "not JSON|lost",
    ),
}


async def failure(sandbox: Sandbox, source: str, language: Any = "python3") -> str:
    with pytest.raises(CodeFailed) as caught:
        await sandbox.run(language, source, {})
    return caught.value.message


def assert_any(text: str, patterns: str) -> None:
    assert any(part in text for part in patterns.split("|")), text


@needs_landlock
@pytest.mark.parametrize("name", REFUSED)
async def test_forbidden_things_fail(sandbox: Sandbox, name: str) -> None:
    """Each is an exception inside the code, and the next call works."""
    assert_any(await failure(sandbox, REFUSED[name]), FORBIDDEN)
    assert await sandbox.run("python3", "def main(): return {'a': 1}", {}) == {"a": 1}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86-64")
async def test_raw_system_calls_fail(sandbox: Sandbox) -> None:
    """ctypes is there and gets nowhere: EPERM, or the end of the process."""
    assert (await sandbox.run("python3", LIBC + "def main(): return {'a': 1}", {}))["a"] == 1
    for name, call in CALLS.items():
        source = f"{LIBC}def main():\n    return {{'r': {call}, 'e': ctypes.get_errno()}}"
        result, error = await outcome(sandbox.run("python3", source, {}))
        assert result == {"r": -1, "e": 1} or "lost" in error, name


OTHER_ARCHITECTURE = (
    "import ctypes, mmap\n"
    "def main():\n"
    "    code = mmap.mmap(-1, 4096, prot=7)\n"
    "    code.write(bytes.fromhex('b814000000cd80c3'))  # getpid of i386\n"
    "    at = ctypes.addressof(ctypes.c_char.from_buffer(code))\n"
    "    return {'r': ctypes.CFUNCTYPE(ctypes.c_int)(at)()}"
)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="code of x86-64")
async def test_calls_of_another_architecture_end_the_process(sandbox: Sandbox) -> None:
    """Their numbers mean other calls; where the kernel has none, they fail all the same."""
    _, error = await outcome(sandbox.run("python3", OTHER_ARCHITECTURE, {}))
    assert "lost" in error


REACH = (
    "import ctypes, fcntl, os, resource, signal\n"
    "libc = ctypes.CDLL(None)\n"
    "def tried(act):\n"
    "    try:\n        act()\n    except OSError:\n        return 'refused'\n"
    "    return 'done'\n"
    "def main(pid):\n"
    "    acts = [lambda: os.kill(pid, 9), lambda: os.kill(-pid, 9), lambda: os.kill(pid, 0),\n"
    "        lambda: os.killpg(pid, 9), lambda: resource.prlimit(pid, 0, (0, 0)),\n"
    "        lambda: open(f'/proc/{pid}/mem', 'r+b'), lambda: os.listdir(f'/proc/{pid}/fd'),\n"
    "        lambda: open(f'/proc/{pid}/environ').read(), lambda: os.pidfd_open(pid),\n"
    "        lambda: os.readlink(f'/proc/{pid}/exe'), lambda: os.sched_setaffinity(pid, {0}),\n"
    "        lambda: os.setpriority(os.PRIO_PROCESS, pid, 19)]\n"
    "    return {'tried': [tried(act) for act in acts]}"
)


@needs_landlock
async def test_a_worker_does_not_reach_its_siblings(sandbox: Sandbox) -> None:
    """They have the same user; their signals, limits, memory and files are out of reach."""
    sleeper = "import time\ndef main():\n    time.sleep(0.4)\n    return {'a': 1}"
    slept = []

    async def sleep() -> None:
        slept.append(await sandbox.run("python3", sleeper, {}))

    async with trio.open_nursery() as nursery:
        await sandbox.run("python3", "def main(): return {}", {})
        nursery.start_soon(sleep)
        await trio.testing.wait_all_tasks_blocked(0.05)
        for pid in [*sandbox.pids, os.getpid()]:
            result = await sandbox.run("python3", REACH, {"pid": pid})
            assert set(result["tried"]) == {"refused"}, result
    assert slept == [{"a": 1}]


async def test_a_worker_has_no_files_but_its_own(sandbox: Sandbox) -> None:
    """Nothing, nothing, nothing, and a socket: no file of the zygote's or of a sibling's."""
    source = (
        "import os, stat\ndef main():\n    found = []\n    for fd in range(4096):\n"
        "        try:\n            found.append(stat.S_IFMT(os.fstat(fd).st_mode))\n"
        "        except OSError:\n            pass\n"
        "    return {'found': found, 'links': [stat.S_IFCHR] * 3 + [stat.S_IFSOCK]}"
    )
    result = await sandbox.run("python3", source, {})
    assert result["found"] == result["links"]


async def test_a_worker_shares_no_memory(sandbox: Sandbox) -> None:
    """What the zygote has mapped is private: writing to it is seen by nobody."""
    assert await sandbox.run("python3", "def main(): return {}", {}) == {}
    maps = await trio.Path(f"/proc/{sandbox.pids[0]}/maps").read_text()
    assert "r--p" in maps
    assert "-w-s" not in maps
    assert "rw-s" not in maps
    assert "rwxs" not in maps


async def test_many_calls_leave_no_process_and_no_file_behind(sandbox: Sandbox) -> None:
    """After calls that end in every way the zygote has its idle workers, and we our sockets."""
    ends = ("return {}", "1 / 0", "import os; os._exit(3)", "import ctypes; ctypes.string_at(0)")
    for end in ends:
        await outcome(sandbox.run("python3", f"def main():\n    {end}", {}))
    files = len(os.listdir("/proc/self/fd"))
    for number in range(60):
        await outcome(sandbox.run("python3", f"def main():\n    {ends[number % 4]}", {}))
    assert len(os.listdir("/proc/self/fd")) <= files
    zygote = sandbox.pids[0]
    assert await comes_true(lambda: len(children_of(zygote)) <= sandbox.options.idle_workers)


async def test_a_worker_that_cannot_be_locked_is_cleared_away() -> None:
    """It never says its process id; its zygote does not keep it as a zombie."""
    from server.sandbox import children, pool

    profile = children.Profile(name="code", prepare=(), memory_bytes=64 << 20, cpu_s="no")  # type: ignore[arg-type]
    workers = pool.WorkerPool(profile, workers=1, idle=0, strict=False, time_s=2)
    for _ in range(2):
        with pytest.raises(pool.WorkFailed, match="started and locked down"):
            await workers.work({"job": "python3", "source": ""}, b"{}", 1000)
    assert await comes_true(lambda: children_of(workers.pids[0]) == set())
    await workers.close()


@pytest.mark.parametrize("name", WASTEFUL)
async def test_waste_ends_within_its_limits_and_the_loop_stays_on_time(name: str) -> None:
    """A clear error in time; while it runs the loop's 99th percentile is under 50 ms late."""
    source, says = WASTEFUL[name]
    async with Sandbox(options()) as sandbox:
        assert await sandbox.run("python3", "def main(): return {}", {}) == {}

        async def call() -> None:
            with trio.fail_after(3):
                assert_any(await failure(sandbox, source), says)

        assert await keeps_time(call)
        assert await sandbox.run("python3", "def main(): return {'a': 1}", {}) == {"a": 1}
        pids = sandbox.pids
    assert await gone(pids)


async def test_a_forged_answer_is_a_result_like_any_other(sandbox: Sandbox) -> None:
    """Code that writes its own answer to the pipe gets what it could have returned."""
    source = (
        PIPE + "def main():\n    h, b = b'{\"ok\":true}', b'{\"a\": 7}'\n"
        "    os.write(pipe, struct.pack('<II', len(h), len(b)) + h + b)\n    os._exit(0)"
    )
    assert await sandbox.run("python3", source, {}) == {"a": 7}


async def test_nothing_passes_from_one_call_to_the_next(sandbox: Sandbox) -> None:
    """Each call has a process of its own."""
    spoil = "import json, builtins\ndef main():\n    builtins.x = 1\n    json.dumps = None\n"
    with pytest.raises(CodeFailed):
        await sandbox.run("python3", spoil + "    return {}", {})
    source = "import builtins\ndef main(): return {'x': hasattr(builtins, 'x')}"
    for _ in range(6):
        assert await sandbox.run("python3", source, {}) == {"x": False}


async def test_environment_user_and_identity_are_bare(sandbox: Sandbox) -> None:
    """No variables of ours, no root, a session of its own, random numbers that differ."""
    source = (
        "import os, random, sys\ndef main():\n    return {'env': dict(os.environ),"
        " 'uid': os.getuid(), 'argv': sys.argv, 'r': random.random()}"
    )
    results = [await sandbox.run("python3", source, {}) for _ in range(3)]
    assert all(result["env"] == {} and result["argv"] == [""] for result in results)
    assert all(result["uid"] != 0 for result in results)
    assert len({result["r"] for result in results}) == 3


JAVASCRIPT = {
    "loop": ("function main() { while (true) {} }", "ran for more than"),
    "regular expression": (
        "function main() { return {x: /(a+)+$/.test('a'.repeat(60) + 'b')} }",
        "ran for more than",
    ),
    "promises without end": (
        "const again = () => Promise.resolve().then(again); function main() { again(); return {} }",
        "ran for more than",
    ),
    "memory": ("function main() { const x = []; while (true) x.push('x'.repeat(1e6)) }", "memory"),
    "recursion": ("function f() { return f() } function main() { f() }", "stack overflow"),
    "huge result": ("function main() { return {x: 'x'.repeat(2e6)} }", "larger than"),
    "no result": ("function main() {}", "must return an object"),
    "error": ("function main() { throw new TypeError('no') }", "TypeError: no"),
    "no main": ("let x = 1", "no function main"),
    "syntax": ("function main( {", "SyntaxError"),
    "a promise that nothing settles": (
        "function main() { return new Promise(() => {}) }",
        "nothing settles",
    ),
    "modules": ("import * as os from 'os'; function main() { return {} }", "SyntaxError"),
    "require": ("function main() { return require('fs') }", "not defined"),
}


@pytest.mark.parametrize("name", JAVASCRIPT)
async def test_hostile_javascript(name: str) -> None:
    """The process is what is limited, where the engine's own limits do not reach."""
    source, says = JAVASCRIPT[name]
    limits = CallLimits(time_s=1, memory_bytes=64 << 20, input_bytes=1 << 20, output_bytes=1 << 20)
    async with Sandbox(options(code=limits)) as sandbox:

        async def call() -> None:
            assert_any(await failure(sandbox, source, "javascript"), says)

        assert await keeps_time(call)


TEMPLATES = {
    "loop": (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "ran for",
    ),
    "memory": ("{{ 'x' * 10000000000 }}", "memory"),
    "large": ("{{ 'x' * 2000000 }}", "larger than"),
    "power": ("{{ 7 ** 999999999 }}", "ran for|memory"),
    "class": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe|access"),
    "globals": ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "unsafe|undefined"),
    "attr": ("{{ (''|attr('__class__')).mro() }}", "unsafe|undefined"),
    "syntax": ("{% if %}", "line 1"),
    "deep": (
        "{{ " + "(" * 150 + "1" + ")" * 150 + "|nothing }}",
        "No filter|line 1|nested|recursion",
    ),
}


@pytest.mark.parametrize("name", TEMPLATES)
async def test_hostile_templates(sandbox: Sandbox, name: str) -> None:
    """Limits and jinja2's own sandbox hold in the worker; other tasks are on time."""
    source, says = TEMPLATES[name]

    async def call() -> None:
        with pytest.raises(CodeFailed) as caught:
            await sandbox.render(source, {})
        assert_any(caught.value.message, says)

    assert await keeps_time(call)
    assert await sandbox.render("{{ a }}", {"a": "ü"}) == "ü"


async def test_format_strings_reach_no_insides(sandbox: Sandbox) -> None:
    """`str.format` is guarded too: it shows nothing of the object."""
    text = await sandbox.render("[{{ '{0.__class__}'.format('') }}]", {})
    assert "class" not in text


async def test_without_landlock_no_file_can_be_opened() -> None:
    """Where seccomp alone is there, it refuses to open anything."""
    from server.sandbox import children, pool

    profile = children.Profile(
        name="code", prepare=("server.sandbox.python_job",), memory_bytes=64 << 20, cpu_s=2,
        landlock=False,
    )  # fmt: skip
    workers = pool.WorkerPool(profile, workers=1, idle=0, strict=False, time_s=2)
    source = "def main():\n    return {'x': open('/etc/hostname').read()}"
    with pytest.raises(pool.WorkFailed, match="not permitted"):
        await workers.work({"job": "python3", "source": source}, b"{}", 1000)
    assert workers.locks == ("seccomp",)
    await workers.close()


async def test_strict_refuses_where_locks_are_missing() -> None:
    """Nothing runs, and the message says what to do."""
    from server.sandbox import children, pool

    profile = children.Profile(
        name="code", prepare=(), memory_bytes=64 << 20, cpu_s=2, landlock=False
    )
    workers = pool.WorkerPool(profile, workers=1, idle=0, strict=True, time_s=2)
    with pytest.raises(pool.WorkFailed, match="strict"):
        await workers.work({"job": "python3", "source": ""}, b"{}", 1000)
    await workers.close()


async def test_a_worker_lives_no_longer_than_its_call(sandbox: Sandbox) -> None:
    """Its process id, which the code tells, is gone once it has answered."""
    result = await sandbox.run("python3", "import os\ndef main(): return {'p': os.getpid()}", {})
    assert await gone([result["p"]])
    assert all(map(lives, sandbox.pids))
