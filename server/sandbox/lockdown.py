"""Taking everything away from a process that is about to run what is not ours.

`Locks` is made once, by the process that forks; `close` is called in each fork, in this order: its
own session, death with its parent, limits, another user, no new privileges, Landlock, seccomp.
Whatever a kernel does not have is left out and is missing in `Locks.names`.
"""

from __future__ import annotations

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

__all__ = ["Locks", "close", "make"]

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_SECCOMP: Final = 22
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_MODE_FILTER: Final = 2
_NOBODY: Final = 65534
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
    open_files: int


def make(readable: Sequence[str] | None, *, network: bool) -> Locks:
    """Ask the kernel what it has, and prepare it. `readable`: folders beside the interpreter's;
    None leaves Landlock out."""
    if sys.platform != "linux":
        return Locks((), None, None, 64)
    ruleset = None
    if readable is not None:
        paths = [*readable, *_interpreter(), *_LIBRARIES, *(_NETWORK_FILES if network else ())]
        ruleset = landlock.make_ruleset(paths, network=network)
    program = seccomp.build(platform.machine(), files=ruleset is not None, network=network)
    names = ("landlock",) * (ruleset is not None) + ("seccomp",) * (program is not None)
    return Locks(names, ruleset, program, 64)


def _interpreter() -> set[str]:
    return {os.path.dirname(os.__file__), os.path.join(sys.base_prefix, "lib")}


def close(locks: Locks, *, memory_bytes: int, cpu_s: int) -> None:
    """Lock this process up. Raises `OSError` if a lock that the kernel has does not close."""
    parent = os.getppid()
    os.setsid()
    _limit(locks, memory_bytes, cpu_s)
    _change_user()
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


def _limit(locks: Locks, memory_bytes: int, cpu_s: int) -> None:
    _set(resource.RLIMIT_CPU, cpu_s)
    _set(resource.RLIMIT_FSIZE, 0)
    _set(resource.RLIMIT_CORE, 0)
    _set(resource.RLIMIT_NOFILE, locks.open_files)
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
    count, and for a user it counts all processes that the user has."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    _set(resource.RLIMIT_NPROC, 0)


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
