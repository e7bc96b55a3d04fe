"""The seccomp filter: a BPF program that lets through what is on the list, and nothing else. Pure.

Anything else fails with EPERM, as an exception in the code that tried. A call in the numbering of
another architecture ends the process: there it could mean something else.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from server.sandbox.syscalls import ALWAYS, ARCHITECTURES, FILES, NETWORK, NUMBERS, PROGRAM

__all__ = ["PROGRAM_FD", "build", "simulate"]


class Step(NamedTuple):
    """One instruction of classic BPF: code, jumps if true and false, operand."""

    code: int
    if_true: int
    if_false: int
    operand: int


_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_ANY_BIT: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_MASK: Final = 0x54  # BPF_ALU | BPF_AND | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K

_ALLOW: Final = Step(_RETURN, 0, 0, 0x7FFF0000)
_REFUSE: Final = Step(_RETURN, 0, 0, 0x00050000 | errno.EPERM)
_ABSENT: Final = Step(_RETURN, 0, 0, 0x00050000 | errno.ENOSYS)
_KILL: Final = Step(_RETURN, 0, 0, 0x80000000)

_NR: Final = 0  # offsets in struct seccomp_data
_ARCH: Final = 4
_X32: Final = 0x40000000

_WRITING: Final = 0o1 | 0o2 | 0o100 | 0o1000 | 0o2000  # WRONLY, RDWR, CREAT, TRUNC, APPEND
_FCNTL: Final = (0, 1, 2, 3, 4, 1030)  # F_DUPFD to F_SETFL, F_DUPFD_CLOEXEC; not F_SETOWN
_IOCTL: Final = (0x5421, 0x5451, 0x5450)  # FIONBIO, FIOCLEX, FIONCLEX
_FAMILIES: Final = (2, 10)  # AF_INET, AF_INET6
_SOCKETS: Final = (1, 2)  # SOCK_STREAM, SOCK_DGRAM
_THREAD: Final = 0x10000  # CLONE_THREAD
_NAMESPACES: Final = 0x7E020080  # CLONE_NEW*
_SET_FS: Final = (0x1002,)  # ARCH_SET_FS

PROGRAM_FD: Final = 100
"""The only file that may become a process's program. It is above the limit on open files and is
closed as that happens, so there is no second time."""


def build(machine: str, *, files: bool, network: bool, program: bool = False) -> bytes | None:
    """The program for `prctl(PR_SET_SECCOMP)`; None for an architecture that is not known.

    `files`: let files be opened for reading, because something else says which. `program`: let
    the process become the program in `PROGRAM_FD` and start threads.
    """
    numbers = NUMBERS.get(machine)
    if numbers is None:
        return None
    steps = [*_architecture(machine)]
    names = ALWAYS + FILES * files + NETWORK * network + PROGRAM * program
    for number in (numbers[name] for name in names if name in numbers):
        steps += [Step(_EQUAL, 0, 1, number), _ALLOW]
    for name, guard in _guards(files, network, program):
        if name in numbers:
            steps += [Step(_EQUAL, 0, len(guard), numbers[name]), *guard]
    steps.append(_REFUSE)
    return b"".join(struct.pack("<HBBI", *step) for step in steps)


def _architecture(machine: str) -> Iterator[Step]:
    yield Step(_LOAD, 0, 0, _ARCH)
    yield Step(_EQUAL, 1, 0, ARCHITECTURES[machine])
    yield _KILL
    yield Step(_LOAD, 0, 0, _NR)
    if machine == "x86_64":
        yield Step(_AT_LEAST, 0, 1, _X32)
        yield _KILL


def _guards(files: bool, network: bool, program: bool) -> Iterator[tuple[str, list[Step]]]:
    """Calls that depend on an argument. fcntl and ioctl could have signals sent to others, and
    prlimit64 could change the limits of others."""
    yield "fcntl", _one_of(1, _FCNTL)
    yield "ioctl", _one_of(1, _IOCTL)
    yield "prlimit64", _one_of(0, (0,))
    if files:
        yield "open", _no_bit_of(1, _WRITING)
        yield "openat", _no_bit_of(2, _WRITING)
    if network:
        family = _one_of(0, _FAMILIES)[:-1]
        yield "socket", [*_or_refuse(family), *_one_of(1, _SOCKETS, mask=0xF)]
    if program:
        yield "execveat", _one_of(0, (PROGRAM_FD,))
        yield "clone", _one_of(0, (_THREAD,), mask=_THREAD | _NAMESPACES)
        yield "clone3", [_ABSENT]  # its flags are out of sight: the C library then takes clone
        yield "arch_prctl", _one_of(0, _SET_FS)


def _argument(number: int) -> Step:
    return Step(_LOAD, 0, 0, 16 + 8 * number)  # its lower half: both machines are little-endian


def _one_of(argument: int, values: tuple[int, ...], mask: int | None = None) -> list[Step]:
    steps = [_argument(argument)]
    if mask is not None:
        steps.append(Step(_MASK, 0, 0, mask))
    for value in values:
        steps += [Step(_EQUAL, 0, 1, value), _ALLOW]
    return [*steps, _REFUSE]


def _or_refuse(steps: list[Step]) -> list[Step]:
    """The same checks, but what passes goes on behind them."""
    values = [step.operand for step in steps if step.code == _EQUAL]
    checks = [Step(_EQUAL, len(values) - at, 0, value) for at, value in enumerate(values)]
    return [steps[0], *checks, _REFUSE]


def _no_bit_of(argument: int, bits: int) -> list[Step]:
    return [_argument(argument), Step(_ANY_BIT, 0, 1, bits), _REFUSE, _ALLOW]


def simulate(program: bytes, machine: str, number: int, arguments: tuple[int, ...] = ()) -> str:
    """What the kernel would do: "allow", "refuse", "absent" (ENOSYS) or "kill". For tests of the
    other machine."""
    six = (*arguments, *(0,) * 6)[:6]
    data = struct.pack("<iIQ6Q", number, ARCHITECTURES[machine], 0, *six)
    steps = [Step(*step) for step in struct.iter_unpack("<HBBI", program)]
    held, at = 0, 0
    while True:
        step = steps[at]
        at += 1
        if step.code == _RETURN:
            ends = {_ALLOW: "allow", _REFUSE: "refuse", _ABSENT: "absent", _KILL: "kill"}
            return ends[step]
        if step.code == _LOAD:
            held = int.from_bytes(data[step.operand : step.operand + 4], "little")
        elif step.code == _MASK:
            held &= step.operand
        else:
            holds = {
                _EQUAL: held == step.operand,
                _AT_LEAST: held >= step.operand,
                _ANY_BIT: bool(held & step.operand),
            }[step.code]
            at += step.if_true if holds else step.if_false
