"""Taking everything away from a process that is about to run what is not ours.

`Locks` is made once, by the process that forks; `close` is called in each fork, in this order: its
own session, death with its parent, limits, another user, no new privileges, Landlock, seccomp.
Whatever a kernel does not have is left out and is missing in `Locks.names`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import signal
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

from server.sandbox import filter as seccomp
from server.sandbox import landlock

__all__ = ["OPEN_FILES", "Locks", "available", "close", "make", "make_for_program", "step_back"]

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_SECCOMP: Final = 22
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_MODE_FILTER: Final = 2
_NOBODY: Final = 65534
_NICE: Final = 5
OPEN_FILES: Final = 64
_NETWORK_FILES: Final = (
    *("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf"),
    *("/etc/services", "/etc/ssl", "/etc/pki", "/usr/share/ca-certificates"),
)
_LIBRARIES: Final = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo")


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


class Locks(NamedTuple):
    """What is taken from each fork. `names` says which locks this kernel has."""

    names: tuple[str, ...]
    ruleset: int | None
    program: bytes | None
    becomes: bool = False
    """Whether the process becomes another program, which may have threads."""


def available() -> bool:
    """Whether this kernel has both Landlock and seccomp, as far as can be told by asking."""
    if sys.platform != "linux" or landlock.abi() == 0:
        return False
    return seccomp.build(platform.machine(), files=True, network=False) is not None


def make(readable: Sequence[str] | None, *, network: bool) -> Locks:
    """Ask the kernel what it has, and prepare it. `readable`: folders beside the interpreter's;
    None leaves Landlock out."""
    if sys.platform != "linux":
        return Locks((), None, None)
    ruleset = None
    if readable is not None:
        paths = [*readable, *_interpreter(), *_LIBRARIES, *(_NETWORK_FILES if network else ())]
        ruleset = landlock.make_ruleset(paths, network=network)
    program = seccomp.build(platform.machine(), files=ruleset is not None, network=network)
    names = ("landlock",) * (ruleset is not None) + ("seccomp",) * (program is not None)
    return Locks(names, ruleset, program)


def make_for_program(path: str, readable: Sequence[str] = ()) -> Locks:
    """For a process that becomes the program at `path`, which reads the system's libraries and
    what is `readable`."""
    ruleset = landlock.make_ruleset(readable, network=False, runnable=(path, *_LIBRARIES))
    files = ruleset is not None
    program = seccomp.build(platform.machine(), files=files, network=False, program=True)
    names = ("landlock",) * files + ("seccomp",) * (program is not None)
    return Locks(names, ruleset, program, becomes=True)


def step_back() -> None:
    """Last in line for the processor, first for the kernel to end when memory is short."""
    os.nice(_NICE)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def _interpreter() -> set[str]:
    return {os.path.dirname(os.__file__), os.path.join(sys.base_prefix, "lib")}


def close(locks: Locks, *, memory_bytes: int, cpu_s: int | None, parent: int) -> None:
    """Lock this process up. `parent`: who must be its parent still. `cpu_s` None: no such limit.
    Raises `OSError` if a lock that the kernel has does not close."""
    os.setsid()
    _limit(memory_bytes, cpu_s)
    _change_user()
    if not locks.becomes:
        _set(resource.RLIMIT_NPROC, 0)
    if sys.platform != "linux":
        return
    _die_with(parent)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if locks.ruleset is not None:
        landlock.restrict(locks.ruleset)
        os.close(locks.ruleset)
    if locks.program is not None:
        program = _Program(len(locks.program) // 8, locks.program)
        _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(program))


def _limit(memory_bytes: int, cpu_s: int | None) -> None:
    if cpu_s is not None:
        _set(resource.RLIMIT_CPU, cpu_s)
    _set(resource.RLIMIT_FSIZE, 0)
    _set(resource.RLIMIT_CORE, 0)
    _set(resource.RLIMIT_NOFILE, OPEN_FILES)
    if sys.platform == "linux":
        _set(resource.RLIMIT_AS, _mapped_bytes() + memory_bytes)


def _set(what: int, limit: int) -> None:
    hard = resource.getrlimit(what)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(what, (limit, limit))


def _mapped_bytes() -> int:
    with open("/proc/self/statm", "rb") as facts:
        return int(facts.read().split()[0]) * resource.getpagesize()


def _change_user() -> None:
    """To nobody, where we are root. The limit on processes comes after: for root it would not
    count. It counts all that the user has, threads as well: so it is none or not at all."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)


def _die_with(parent: int) -> None:
    """After the change of user, which would undo it. The parent may have died just before."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _prctl(_PR_SET_DUMPABLE, 0)
    if os.getppid() != parent:
        os._exit(1)


def _prctl(option: int, value: int, more: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = [ctypes.c_ulong(number) for number in (value, more, 0, 0)]
    if libc.prctl(option, *arguments) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")
