"""From a port to the processes on the GPUs: on a /proc of our own making, and on the real one."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.probes.gpu_processes import (
    Endpoint,
    Process,
    attribute,
    find_gpu_pids,
    find_ports,
    is_local,
    listeners,
    process_table,
)
from tests.balancer.probes.engine_process import engine

HTTP = Endpoint("127.0.0.1", 8000)
OTHER = Endpoint("127.0.0.1", 8001)


class Proc:
    """A /proc with the files that are read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "net").mkdir(parents=True)
        self._sockets: dict[str, list[str]] = {"tcp": [], "tcp6": []}
        self._inode = 1000
        self._write()

    def process(self, pid: int, parent: int, *, session: int = 100, name: str = "python") -> None:
        directory = self.root / str(pid)
        (directory / "fd").mkdir(parents=True)
        stat = f"{pid} ({name}) S {parent} {pid} {session} 0 -1 4194560 1 2 3"
        (directory / "stat").write_text(stat)
        (directory / "fd" / "0").symlink_to("/dev/null")

    def listen(self, pid: int, port: int, address: str = "0100007F", state: str = "0A") -> None:
        self._inode += 1
        family = "tcp" if len(address) == 8 else "tcp6"
        line = f"   0: {address}:{port:04X} 00000000:0000 {state} 0:0 0:0 0 1000 0 {self._inode} 1"
        self._sockets[family].append(line)
        self._write()
        fd = self.root / str(pid) / "fd"
        (fd / str(len(os.listdir(fd)))).symlink_to(f"socket:[{self._inode}]")

    def _write(self) -> None:
        for family, lines in self._sockets.items():
            (self.root / "net" / family).write_text("\n".join(["  sl  local_address", *lines, ""]))


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    """A machine with init and a login shell, from which things are started."""
    proc = Proc(tmp_path / "proc")
    proc.process(1, 0, session=1, name="systemd")
    proc.process(100, 1, session=100, name="bash")
    return proc


def found(proc: Proc, *gpu_pids: int, port: int = 8000) -> set[int]:
    where = Endpoint("127.0.0.1", port)
    return set(find_gpu_pids([where], gpu_pids, proc.root)[where])


def test_one_process(proc: Proc) -> None:
    """llama.cpp: what listens is what computes."""
    proc.process(200, 100)
    proc.listen(200, 8000)
    assert found(proc, 200) == {200}


def test_workers_below_the_listener(proc: Proc) -> None:
    """vLLM, SGLang: children and grandchildren, also in sessions of their own."""
    proc.process(200, 100)
    proc.process(210, 200)
    proc.process(211, 210, session=211)
    proc.process(212, 210, name="VLLM::Worker) 7 (")
    proc.process(300, 100)
    proc.listen(200, 8000)
    assert found(proc, 211, 212, 300) == {211, 212}


def test_listener_below_the_worker(proc: Proc) -> None:
    """An API server that the process with the GPU started."""
    proc.process(200, 100)
    proc.process(210, 200)
    proc.listen(210, 8000)
    assert found(proc, 200) == {200}


def test_launcher_of_both(proc: Proc) -> None:
    """TGI: a launcher starts the router, which listens, and the shards, which compute."""
    proc.process(200, 100, name="text-generation")
    proc.process(210, 200)
    proc.process(220, 200)
    proc.process(221, 200)
    proc.listen(210, 8000)
    proc.listen(220, 29500)
    assert found(proc, 220, 221) == {220, 221}
    ports = find_ports([220, 221], proc.root)
    assert ports == {220: [8000, 29500], 221: [8000]}


@pytest.mark.parametrize("starter", ["bash", "supervisord", "systemd"])
def test_neighbours_are_not_family(proc: Proc, starter: str) -> None:
    """What one shell or supervisor started need not belong together: unknown, not wrong."""
    proc.process(200, 1, session=100, name=starter)
    proc.process(210, 200)
    proc.process(220, 200)
    proc.listen(210, 8000)
    assert found(proc, 220) == set()


def test_other_sessions_are_not_family(proc: Proc) -> None:
    """An ancestor in another session is not a launcher of the listener."""
    proc.process(200, 1, session=200, name="start")
    proc.process(210, 200, session=210)
    proc.process(220, 200, session=220)
    proc.listen(210, 8000)
    assert found(proc, 220) == set()


def test_what_is_another_replicas(proc: Proc) -> None:
    """An engine without a GPU beside one with a GPU, from one script: it gets none."""
    proc.process(200, 100, name="start.py")
    proc.process(210, 200)
    proc.process(220, 200)
    proc.listen(210, 8000)
    proc.listen(220, 8001)
    both = find_gpu_pids([HTTP, OTHER], [220], proc.root)
    assert both == {HTTP: frozenset(), OTHER: frozenset({220})}


def test_socket_of_init(proc: Proc) -> None:
    """A socket that systemd holds for a service makes not every process the service's."""
    proc.listen(1, 8000)
    proc.process(200, 1)
    assert found(proc, 200) == set()


@pytest.mark.parametrize(
    ("address", "reached"),
    [
        ("0100007F", True),
        ("00000000", True),
        ("0200007F", False),
        ("00000000000000000000000000000000", True),
        ("0000000000000000FFFF00000100007F", True),
        ("00000000000000000000000001000000", False),
    ],
)
def test_addresses(proc: Proc, address: str, reached: bool) -> None:
    """A listener counts if a connection to 127.0.0.1 may arrive there, over IPv4 or IPv6."""
    if sys.byteorder != "little":
        pytest.skip("the addresses are written as a little-endian machine has them")
    proc.process(200, 100)
    proc.listen(200, 8000, address)
    assert bool(found(proc, 200)) is reached


def test_only_listeners(proc: Proc) -> None:
    """A connection from the same port is not a listener."""
    proc.process(200, 100)
    proc.listen(200, 8000, state="01")
    assert found(proc, 200) == set()


def test_not_permitted(proc: Proc, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's process hides its files: nothing is found, and nothing fails."""
    proc.process(200, 100)
    proc.listen(200, 8000)

    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert found(proc, 200) == set()


def test_process_that_ended(proc: Proc) -> None:
    """A process may end between two looks; pids of another namespace are not in the table."""
    proc.process(200, 100)
    proc.listen(200, 8000)
    (proc.root / "200" / "stat").unlink()
    assert found(proc, 200, 4711) == set()
    assert find_ports([200, 4711], proc.root) == {}


def test_no_proc(tmp_path: Path) -> None:
    """A system without /proc: nothing is known."""
    assert find_gpu_pids([HTTP], [5], tmp_path / "none") == {HTTP: frozenset()}
    assert list(listeners(tmp_path / "none")) == []


@given(
    st.dictionaries(
        st.integers(1, 12),
        st.builds(
            Process, st.integers(0, 12), st.integers(1, 2), st.sampled_from(["bash", "python"])
        ),
    ),
    st.sets(st.integers(1, 12)),
    st.sets(st.integers(1, 12)),
    st.sets(st.integers(1, 12)),
)
def test_any_table(
    table: dict[int, Process], gpu_pids: set[int], here: set[int], there: set[int]
) -> None:
    """Whatever the table, cycles included: it ends, and nobody gets what is surely another's."""
    own = attribute({HTTP: here, OTHER: there}, table, gpu_pids)
    sure = {HTTP: _below(table, here) & gpu_pids, OTHER: _below(table, there) & gpu_pids}
    for endpoint, other in ((HTTP, OTHER), (OTHER, HTTP)):
        if sure[endpoint]:
            assert own[endpoint] == sure[endpoint]
        else:
            assert own[endpoint] <= gpu_pids - sure[other]


def _below(table: dict[int, Process], heads: set[int]) -> set[int]:
    """Everything that descends from one of these, or is one."""
    below = set(heads)
    while more := {pid for pid, p in table.items() if p.parent in below} - below:
        below |= more
    return below


# -- the real thing


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_real_processes() -> None:
    """On this machine: the worker of the process that listens is found, another process is not."""
    with engine() as (port, listener, worker), engine() as (other_port, _, other_worker):
        where, elsewhere = Endpoint("127.0.0.1", port), Endpoint("127.0.0.1", other_port)
        own = find_gpu_pids([where, elsewhere], [worker, other_worker])
        assert own == {where: frozenset({worker}), elsewhere: frozenset({other_worker})}
        assert find_ports([worker, other_worker]) == {worker: [port], other_worker: [other_port]}
        assert process_table(Path("/proc"))[worker].parent == listener


def test_own_addresses() -> None:
    """Addresses of this machine are local; documentation's are nobody's."""
    assert is_local("127.0.0.1")
    assert is_local("127.1.2.3")
    assert not is_local("192.0.2.1")
    assert not is_local("2001:db8::1")
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return
    assert is_local("::1")
