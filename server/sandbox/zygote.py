"""The process that forks workers: it has what they need loaded, and never runs what is not ours.

Started as `python -I -S` with an empty environment. It speaks with us over its standard input, a
socket: five bytes each, a letter and the number that we give a worker.

    F number  fork; the worker's end of its own socket comes along
    E number  kill that worker and wait for it

A worker says its own process id over its own socket, so nothing comes back here but one line when
all is loaded. One whose locks fail never says it; that is what numbers are for. Only this process
waits for its children, and only when told: so a process id that we hold is never somebody else's.
When its socket ends, we are gone: it ends, and with it its children.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import sys
from typing import Any, Final

__all__ = ["COMMAND", "main"]

COMMAND: Final = struct.Struct("<cI")
_REAP_MS: Final = 20


def main() -> None:
    """Load, say so, and fork until the socket ends."""
    settings = json.loads(sys.argv[1])
    control = socket.socket(fileno=0)
    from server.sandbox import lockdown

    lockdown.step_back()
    try:
        missing = _preload(settings)
        readable = settings["readable"] if settings["landlock"] else None
        locks = lockdown.make(readable, network=settings["network"])
    except Exception as error:
        _say(control, {"error": f"{type(error).__name__}: {error}"})
        raise SystemExit(1) from error
    _say(control, {"locks": locks.names, "missing": missing})
    sys.path[:] = settings["path"]
    os.environ.clear()
    gc.collect()
    gc.freeze()
    _serve(control, locks, settings)


def _preload(settings: dict[str, Any]) -> list[str]:
    """What is not installed is reported; whoever needs it gets a clear error later."""
    missing = []
    for name in settings["preload"]:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    for name in settings["prepare"]:
        importlib.import_module(name).prepare()
    return missing


def _say(control: socket.socket, facts: dict[str, Any]) -> None:
    control.sendall(json.dumps(facts).encode() + b"\n")


def _serve(control: socket.socket, locks: Any, settings: dict[str, Any]) -> None:
    living: dict[int, int] = {}  # by number
    ended: set[int] = set()
    poll = select.poll()
    poll.register(control, select.POLLIN)
    while True:
        if poll.poll(_REAP_MS if ended else None):
            command, fds = _receive(control)
            if command is None:
                return
            letter, number = COMMAND.unpack(command)
            if letter == b"F" and fds:
                living[number] = _fork(fds[0], control, locks, settings)
            elif letter == b"E" and living.get(number, -1) > 0:
                _kill(living[number])
                ended.add(living[number])
            if letter == b"E":
                living.pop(number, None)
        ended = {pid for pid in ended if not _is_gone(pid)}


def _receive(control: socket.socket) -> tuple[bytes | None, list[int]]:
    data, fds, _, _ = socket.recv_fds(control, COMMAND.size, 4)
    while data and len(data) < COMMAND.size:
        more = control.recv(COMMAND.size - len(data))
        data = data + more if more else b""
    return data or None, fds


def _kill(pid: int) -> None:
    """The worker and whatever it may have started, where nothing kept it from it."""
    for end in (os.killpg, os.kill):
        try:
            end(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def _is_gone(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _fork(fd: int, control: socket.socket, locks: Any, settings: dict[str, Any]) -> int:
    """The process id. If it fails, -1, and closing the worker's socket says so."""
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        pid = -1
    if pid:
        os.close(fd)
        return pid
    try:
        from server.sandbox import worker

        os.dup2(1, control.detach())
        worker.serve(fd, locks, settings, parent)
    finally:
        os._exit(1)


if __name__ == "__main__":
    main()
