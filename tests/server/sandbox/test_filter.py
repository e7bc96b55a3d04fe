"""The seccomp program, run by the rules of BPF: for the machine at hand and for the other."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest

from server.sandbox import lockdown
from server.sandbox.filter import PROGRAM_FD, build, simulate
from server.sandbox.syscalls import ALWAYS, FILES, NETWORK, NUMBERS

MACHINES = ("x86_64", "aarch64")


def verdict(
    machine: str, name: str, *arguments: int, files: bool = True, network: bool = False
) -> str:
    program = build(machine, files=files, network=network)
    assert program is not None
    return simulate(program, machine, NUMBERS[machine][name], arguments)


@pytest.mark.parametrize("machine", MACHINES)
def test_the_list_is_let_through_and_nothing_else(machine: str) -> None:
    """Every number up to 500: allowed if it is on the list, refused otherwise."""
    program = build(machine, files=True, network=False)
    assert program is not None
    guarded = {"open", "openat", "fcntl", "ioctl", "prlimit64"}
    names = {number: name for name, number in NUMBERS[machine].items()}
    for number in range(500):
        name = names.get(number)
        if name not in guarded:
            expected = "allow" if name in ALWAYS + FILES else "refuse"
            assert simulate(program, machine, number) == expected, name


@pytest.mark.parametrize("machine", MACHINES)
def test_files_open_for_reading_only(machine: str) -> None:
    """O_RDONLY with flags that change nothing; not O_WRONLY, O_CREAT, O_TRUNC."""
    assert verdict(machine, "openat", 0, 0, 0o2000000) == "allow"
    for flags in (1, 2, 0o100, 0o1000, 0o2000, 0o2000101):
        assert verdict(machine, "openat", 0, 0, flags) == "refuse"
    assert verdict(machine, "openat", 0, 0, 0, files=False) == "refuse"


@pytest.mark.parametrize("machine", MACHINES)
def test_arguments_that_reach_other_processes_are_refused(machine: str) -> None:
    """Whose signals a file sends, and whose limits are set."""
    assert verdict(machine, "fcntl", 0, 3) == "allow"
    assert verdict(machine, "fcntl", 0, 8) == "refuse"
    assert verdict(machine, "ioctl", 0, 0x5421) == "allow"
    assert verdict(machine, "ioctl", 0, 0x8901) == "refuse"
    assert verdict(machine, "prlimit64", 0, 7) == "allow"
    assert verdict(machine, "prlimit64", 1, 7) == "refuse"


@pytest.mark.parametrize("machine", MACHINES)
def test_sockets_are_of_the_internet_if_granted(machine: str) -> None:
    """TCP and UDP over IPv4 and IPv6; no Unix sockets, no raw ones, and none at all ungranted."""
    for family, kind in ((2, 1), (10, 2), (2, 1 | 0o2000000 | 0o4000)):
        assert verdict(machine, "socket", family, kind, 0, network=True) == "allow"
        assert verdict(machine, "socket", family, kind, 0) == "refuse"
    for family, kind in ((1, 1), (2, 3), (16, 3), (17, 1)):
        assert verdict(machine, "socket", family, kind, 0, network=True) == "refuse"
    assert all(verdict(machine, name, network=True) == "allow" for name in NETWORK)
    assert all(verdict(machine, name) == "refuse" for name in NETWORK)


@pytest.mark.parametrize("machine", MACHINES)
def test_a_process_becomes_another_program_once(machine: str) -> None:
    """From one file, which no process can open again; threads, but no processes or namespaces."""
    program = build(machine, files=True, network=False, program=True)
    plain = build(machine, files=True, network=False)
    assert program is not None
    assert plain is not None
    numbers = NUMBERS[machine]
    calls = {
        ("execveat", PROGRAM_FD): "allow",
        ("execveat", 3): "refuse",
        ("clone", 0x3D0F00): "allow",
        ("clone", 17): "refuse",
        ("clone", 0x10000 | 0x10000000): "refuse",
        ("clone3", 0): "absent",
        ("set_tid_address", 0): "allow",
    }
    for (name, argument), expected in calls.items():
        assert simulate(program, machine, numbers[name], (argument,)) == expected, name
        assert simulate(plain, machine, numbers[name], (argument,)) == "refuse", name
    assert lockdown.OPEN_FILES <= PROGRAM_FD


def test_another_architecture_is_killed() -> None:
    """Its numbers would mean other calls."""
    program = build("x86_64", files=True, network=False)
    assert program is not None
    assert simulate(program, "aarch64", 0) == "kill"
    assert simulate(program, "x86_64", 0x40000000 + 39) == "kill"
    assert build("riscv64", files=True, network=True) is None


HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_are_the_kernels(machine: str) -> None:
    """Compared with the kernel's own headers, where they are installed."""
    header = HEADERS[machine]
    if not header.exists():
        pytest.skip(f"no {header} here")
    defined = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    kernel = {"newfstatat": 79} if machine == "aarch64" else {}
    kernel |= {name: int(number) for name, number in defined}
    assert {name: kernel.get(name) for name in NUMBERS[machine]} == NUMBERS[machine]


def test_what_the_inside_imports_is_the_standard_library() -> None:
    """Modules that run in workers import no package at their top: the zygote has none to give."""
    inside = ("frames", "filter", "syscalls", "landlock", "lockdown", "zygote", "worker", "loading")
    for name in (*inside, "python_job", "javascript", "jinja_worker"):
        found = importlib.util.find_spec(f"server.sandbox.{name}")
        assert found is not None
        assert found.origin is not None
        tree = ast.parse(Path(found.origin).read_text(encoding="utf-8"))
        for node in tree.body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {"trio", "msgspec", "jinja2", "quickjs"} & set(names), name
