"""Which processes on the GPUs belong to a replica on this machine: from its port to its engine.

    port -> the socket that listens on it (/proc/net/tcp, tcp6) -> the process that holds the socket
    (/proc/*/fd) -> the processes with a GPU that are of its family

An engine's listener and its GPU workers are rarely one process. Most engines fork the workers below
the listener (vLLM, SGLang, Ollama, llama-swap): its descendants. Where a launcher starts both side
by side (TGI's router and shards, several API servers of vLLM) they meet in an ancestor: the closest
one that has GPU processes below it is taken, short of shells, supervisors and the end of the
session, below which anything may have been started, and without what belongs to another replica.

Reads /proc, which takes milliseconds: call it from a thread. To bound that, only the families of
GPU processes are looked at, not every process of the machine.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Final, NamedTuple

__all__ = [
    "Endpoint",
    "Process",
    "attribute",
    "find_gpu_pids",
    "find_ports",
    "is_local",
    "listeners",
    "process_table",
]

_LISTEN: Final = "0A"
_FAMILY_MAX: Final = 4096
"""Processes looked at for sockets; an engine has tens."""
_DESCRIPTORS_MAX: Final = 65_536
"""Open files looked at in one process."""
_WILDCARDS: Final = frozenset({"0.0.0.0", "::"})

_STARTERS: Final = frozenset(
    {
        *("ash", "bash", "dash", "fish", "ksh", "sh", "tcsh", "zsh"),
        *("login", "screen", "sshd", "sshd-session", "su", "sudo", "tmux: server"),
        *("containerd-shim", "dumb-init", "init", "runsv", "supervisord", "systemd", "tini"),
        *("cron", "crond", "dockerd", "slurmstepd"),
    }
)
"""Processes that start things that have nothing to do with each other."""


class Endpoint(NamedTuple):
    """Where something listens; `address` is an IP address in its usual form."""

    address: str
    port: int


class Process(NamedTuple):
    """A line of the process table."""

    parent: int
    session: int
    name: str


def find_gpu_pids(
    endpoints: Collection[Endpoint], gpu_pids: Collection[int], root: Path = Path("/proc")
) -> dict[Endpoint, frozenset[int]]:
    """Of the processes with a GPU those that serve each endpoint; none if they cannot be found.

    They cannot be found where the engine belongs to another user and this process is not allowed to
    read `/proc/<pid>/fd`, or where it runs in a container of its own.
    """
    table = process_table(root)
    gpu_pids = {pid for pid in gpu_pids if pid in table}
    if not gpu_pids or not endpoints:
        return {endpoint: frozenset() for endpoint in endpoints}
    sockets = list(listeners(root))
    inodes = {
        endpoint: {inode for where, inode in sockets if _serves(where, endpoint)}
        for endpoint in endpoints
    }
    holders = _holders(root, _families(table, gpu_pids), set().union(*inodes.values()))
    held = {
        endpoint: {holders[inode] for inode in found if inode in holders}
        for endpoint, found in inodes.items()
    }
    return attribute(held, table, gpu_pids)


def find_ports(gpu_pids: Collection[int], root: Path = Path("/proc")) -> dict[int, list[int]]:
    """The other way round, for whoever does not know the replicas: the ports of each GPU process.

    Each port is looked at alone: a worker's own sockets are not taken for another replica's.
    """
    table = process_table(root)
    gpu_pids = {pid for pid in gpu_pids if pid in table}
    ports: dict[int, set[int]] = {pid: set() for pid in gpu_pids}
    if gpu_pids:
        sockets = {inode: endpoint for endpoint, inode in listeners(root)}
        holders = _holders(root, _families(table, gpu_pids), sockets)
        for inode, holder in holders.items():
            endpoint = sockets[inode]
            for pid in attribute({endpoint: [holder]}, table, gpu_pids)[endpoint]:
                ports[pid].add(endpoint.port)
    return {pid: sorted(found) for pid, found in ports.items()}


def attribute(
    holders: Mapping[Endpoint, Collection[int]],
    table: Mapping[int, Process],
    gpu_pids: Collection[int],
) -> dict[Endpoint, frozenset[int]]:
    """Pure: the GPU processes of each endpoint, given who holds its listening sockets."""
    lines = {pid: [pid, *_ancestors(table, pid)] for pid in gpu_pids}
    own = {
        endpoint: frozenset(pid for pid in gpu_pids if not set(pids).isdisjoint(lines[pid]))
        for endpoint, pids in holders.items()
    }
    taken = frozenset().union(*own.values())
    free = [pid for pid in gpu_pids if pid not in taken]
    for endpoint, pids in holders.items():
        if not own[endpoint]:
            own[endpoint] = _nearest(pids, table, {pid: lines[pid] for pid in free})
    return own


def _nearest(
    holders: Iterable[int], table: Mapping[int, Process], lines: Mapping[int, list[int]]
) -> frozenset[int]:
    """The GPU processes below the closest ancestor of a holder that has any."""
    for holder in holders:
        for ancestor in _launchers(table, holder):
            below = frozenset(pid for pid, line in lines.items() if ancestor in line)
            if below:
                return below
    return frozenset()


def _ancestors(table: Mapping[int, Process], pid: int) -> Iterator[int]:
    """From the parent upwards; the table may be torn, so no process is visited twice."""
    seen = {pid}
    while (process := table.get(pid)) is not None and process.parent not in seen:
        pid = process.parent
        seen.add(pid)
        yield pid


def _launchers(table: Mapping[int, Process], pid: int) -> Iterator[int]:
    """The ancestors that may have started this process as a part of one engine."""
    session = table[pid].session if pid in table else 0
    for ancestor in _ancestors(table, pid):
        if _starts_anything(table, ancestor) or table[ancestor].session != session:
            return
        yield ancestor


def _families(table: Mapping[int, Process], gpu_pids: Iterable[int]) -> list[int]:
    """The processes that may listen for one of these, elders first."""
    children: dict[int, list[int]] = {}
    for pid, process in table.items():
        children.setdefault(process.parent, []).append(pid)
    elders = {a: None for pid in gpu_pids for a in reversed([*_ancestors(table, pid)])}
    heads = {[pid, *_launchers(table, pid)][-1]: None for pid in gpu_pids}
    below = chain.from_iterable(_descend(children, head) for head in heads)
    kin = chain((pid for pid in elders if not _starts_anything(table, pid)), heads, below)
    return list(dict.fromkeys(islice(kin, _FAMILY_MAX)))


def _descend(children: Mapping[int, list[int]], head: int) -> Iterator[int]:
    """Everything below, nearer generations first."""
    generation = [head]
    while generation:
        generation = [child for pid in generation for child in children.get(pid, ())]
        yield from generation


def _starts_anything(table: Mapping[int, Process], pid: int) -> bool:
    """Whether what this process started need not belong together. Includes `init`."""
    return pid <= 1 or pid not in table or table[pid].name in _STARTERS


def process_table(root: Path) -> dict[int, Process]:
    """Every process that can be seen, by pid; none on a system without /proc."""
    table: dict[int, Process] = {}
    for name in os.listdir(root) if root.is_dir() else ():
        if name.isdecimal():
            process = _read_stat(f"{root}/{name}/stat")
            if process is not None:
                table[int(name)] = process
    return table


def _read_stat(path: str) -> Process | None:
    """None if the process ended meanwhile. The name, in parentheses, may itself contain any."""
    try:
        # Of all that is read here these are the many; the plain calls take a third of the time.
        file = os.open(path, os.O_RDONLY)
        try:
            text = os.read(file, 4096).decode(errors="replace")
        finally:
            os.close(file)
        name, _, rest = text[text.index("(") + 1 :].rpartition(")")
        _state, parent, _group, session, *_ = rest.split()
        return Process(int(parent), int(session), name)
    except (OSError, ValueError):
        return None


def listeners(root: Path = Path("/proc")) -> Iterator[tuple[Endpoint, int]]:
    """Every listening TCP socket of this network namespace, with its inode."""
    for name in ("tcp", "tcp6"):
        try:
            lines = (root / "net" / name).read_text(encoding="ascii").splitlines()[1:]
        except (OSError, UnicodeDecodeError):
            continue
        for line in lines:
            fields = line.split()
            if len(fields) > 9 and fields[3] == _LISTEN:
                yield _read_endpoint(fields[1]), int(fields[9])


def _read_endpoint(text: str) -> Endpoint:
    """From `0100007F:1F40`: words of four bytes in the machine's own order, and the port."""
    address, _, port = text.partition(":")
    words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
    packed = struct.pack(("<" if sys.byteorder == "little" else ">") + "I" * len(words), *words)
    return Endpoint(_plain(ipaddress.ip_address(packed)), int(port, 16))


def _plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _serves(listening: Endpoint, asked: Endpoint) -> bool:
    """Whether a connection to `asked` may arrive at this listener."""
    same_port = listening.port == asked.port
    return same_port and (listening.address in _WILDCARDS or listening.address == asked.address)


def _holders(root: Path, pids: Iterable[int], inodes: Collection[int]) -> dict[int, int]:
    """For each of these sockets the first process that holds it."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    holders: dict[int, int] = {}
    for pid in pids:
        if len(holders) == len(wanted):
            break
        for target in _open_files(root / str(pid) / "fd"):
            inode = wanted.get(target)
            if inode is not None:
                holders.setdefault(inode, pid)
    return holders


def _open_files(directory: Path) -> Iterator[str]:
    try:
        with os.scandir(directory) as entries:
            for _, entry in zip(range(_DESCRIPTORS_MAX), entries, strict=False):
                try:
                    yield os.readlink(entry.path)
                except OSError:
                    continue  # closed meanwhile
    except OSError:
        return  # ended, or another user's


def is_local(address: str) -> bool:
    """Whether an IP address is one of this machine's: only then can a socket be bound to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((address, 0))
    except OSError:
        return False
    return True
