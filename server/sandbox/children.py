"""Our end of a zygote and of its workers: starting, asking for forks, killing."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import trio

from server.sandbox import frames
from server.sandbox.zygote import COMMAND

__all__ = ["Child", "ChildLost", "Profile", "Zygote", "python_command"]

_START_S = 30.0
_END_S = 5.0
_READY_BYTES = 64 * 1024
_BOOT = "import sys; sys.path[:0] = {paths!r}; from {module} import main; main()"


class ChildLost(Exception):
    """A worker's socket ended before it had answered."""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What one kind of worker is made with."""

    name: str
    prepare: tuple[str, ...]
    preload: tuple[str, ...] = ()
    packages: bool = False
    """Whether what it runs may go on importing installed packages."""
    network: bool = False
    landlock: bool = True
    """Whether to use it where the kernel has it; tests leave it out."""
    memory_bytes: int
    cpu_s: int


class Reply(msgspec.Struct):
    """The head of a worker's answer."""

    ok: bool
    error: str = ""
    type: str = ""


class Ready(msgspec.Struct):
    """What a zygote says once it has loaded everything."""

    locks: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    error: str = ""


class Child:
    """A worker, from the request to fork it until its end. It takes one job."""

    def __init__(self, zygote: Zygote, number: int, sock: trio.socket.SocketType) -> None:
        self.pid: int | None = None
        self._number = number
        self._ended = False
        self._hello = b""
        self._zygote = zygote
        self._socket = sock

    @property
    def zygote(self) -> Zygote:
        return self._zygote

    async def ready(self) -> None:
        """Wait until it is locked up. May be cancelled, and called again. Raises `ChildLost`."""
        while len(self._hello) < frames.HELLO.size:
            self._hello += await self._some(frames.HELLO.size - len(self._hello))
        (self.pid,) = frames.HELLO.unpack(self._hello)

    async def work(self, head: bytes, body: bytes, most_bytes: int) -> tuple[Reply, bytes]:
        """Give it the job and take its answer. Raises `ChildLost`."""
        try:
            await self._send(frames.frame(head, body))
        except OSError as error:
            raise ChildLost(str(error)) from error
        reply, result = await self._message(most_bytes)
        return _decoded(reply, Reply), result

    def end(self) -> None:
        """Kill it, whatever it does. Synchronous; may be called twice."""
        self._socket.close()
        if self._ended or not self._zygote.alive:
            return
        self._ended = True
        pid, self.pid = self.pid, None
        if pid is not None:  # otherwise the zygote kills it, a little later
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        self._zygote.tell(b"E", self._number)

    async def _send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[await self._socket.send(rest) :]

    async def _message(self, most_bytes: int) -> tuple[bytes, bytes]:
        sizes = frames.lengths(await self._exactly(frames.LENGTHS.size), most_bytes)
        if sizes is None:
            raise ChildLost("its answer is too large")
        return await self._exactly(sizes[0]), await self._exactly(sizes[1])

    async def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            data += await self._some(min(size - len(data), 1 << 18))
        return bytes(data)

    async def _some(self, most: int) -> bytes:
        try:
            part = await self._socket.recv(most)
        except OSError as error:
            raise ChildLost(str(error)) from error
        if not part:
            raise ChildLost("it ended without an answer")
        return part


def _decoded(data: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ChildLost("its answer is not what a worker says") from error


class Zygote:
    """A process that forks workers of one profile."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self.facts = Ready()
        self._process = process
        self._control = control
        self._numbers = itertools.count()

    @classmethod
    async def start(cls, profile: Profile) -> Zygote:
        """Start one and wait until it can fork. Raises `ChildLost`, saying why not."""
        ours, theirs = socket.socketpair()
        with theirs:
            command, settings = _command(profile)
            process = await trio.to_thread.run_sync(_popen, command, settings, theirs)
        zygote = cls(process, ours)
        try:
            zygote.facts = await _ready(ours)
        except BaseException:
            await zygote.end()  # noqa: ASYNC102 - shielded there, with a deadline
            raise
        return zygote

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def fork(self) -> Child:
        """Ask for a worker; it says itself when it is ready. Raises `ChildLost`."""
        number = next(self._numbers) % (1 << 32)
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [COMMAND.pack(b"F", number)], [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise ChildLost(f"the process that forks workers is gone: {error}") from error
        return Child(self, number, trio.socket.from_stdlib_socket(ours))

    def tell(self, letter: bytes, number: int) -> None:
        """Pass an order on. If it cannot take it, it is beyond help, and is ended."""
        try:
            self._control.send(COMMAND.pack(letter, number))
        except OSError:
            self._process.kill()

    async def end(self) -> None:
        """Kill it; its workers die with it."""
        self._control.close()
        self._process.kill()
        with trio.move_on_after(_END_S) as limit:
            limit.shield = True
            await trio.to_thread.run_sync(self._process.wait, abandon_on_cancel=True)


def _popen(
    command: list[str], settings: dict[str, str], control: socket.socket
) -> subprocess.Popen[bytes]:
    null = subprocess.DEVNULL
    stdin = control.fileno()
    return subprocess.Popen(command, stdin=stdin, stdout=null, stderr=null, env=settings, cwd="/")


def _command(profile: Profile) -> tuple[list[str], dict[str, str]]:
    """The command line and the environment of a zygote. The environment is the same everywhere:
    UTC and UTF-8, as in the containers that exports were written in."""
    installed = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    settings = {
        "prepare": profile.prepare,
        "preload": profile.preload,
        "readable": installed if profile.packages else [],
        "network": profile.network,
        "landlock": profile.landlock,
        "memory_bytes": profile.memory_bytes,
        "cpu_s": profile.cpu_s,
        "path": _standard_library() + (installed if profile.packages else []),
    }
    command = python_command("server.sandbox.zygote", settings, installed)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return command, {"TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONUTF8": "1", **threads}


def python_command(module: str, settings: dict[str, Any], paths: Sequence[str] = ()) -> list[str]:
    """Runs `main` of a module of ours, which finds its settings in `sys.argv[1]`, in a Python
    that takes nothing from its surroundings."""
    import server

    root = str(Path(server.__file__ or "").resolve().parent.parent)
    boot = _BOOT.format(paths=[root, *paths], module=module)
    return [sys.executable, "-I", "-S", "-c", boot, json.dumps(settings)]


def _standard_library() -> list[str]:
    import sysconfig

    return [sysconfig.get_path("stdlib"), os.path.join(sysconfig.get_path("stdlib"), "lib-dynload")]


async def _ready(control: socket.socket) -> Ready:
    """Wait for a zygote's one line, with a deadline. Raises `ChildLost`."""
    control.setblocking(False)
    line = b""
    with trio.move_on_after(_START_S):
        while not line.endswith(b"\n") and len(line) < _READY_BYTES:
            await trio.lowlevel.wait_readable(control)
            part = control.recv(_READY_BYTES)
            if not part:
                raise ChildLost("the process that forks workers ended while it started")
            line += part
    if not line.endswith(b"\n"):
        raise ChildLost(f"the process that forks workers was not ready after {_START_S:g} s")
    facts: Ready = _decoded(line, Ready)
    if facts.error:
        raise ChildLost(f"the process that forks workers could not start: {facts.error}")
    return facts
