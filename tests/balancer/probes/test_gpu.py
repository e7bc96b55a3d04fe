"""What GPUs mean for replicas: the pure part, the runner, and a driver that hangs."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from balancer.probes import gpu as gpu_probes
from balancer.probes import gpu_local, gpu_thread
from balancer.probes.gpu import GpuPlace, GpuProbes, remote_reading
from balancer.probes.gpu_local import LocalGpus, LocalReplica
from balancer.probes.gpu_processes import Endpoint
from balancer.probes.gpu_sample import GpuProcess, GpuSample, chosen, reading
from balancer.readings import GpuReading
from balancer.replica import Replica
from balancer.wire.memory import MemoryDialer, memory_network
from tests.balancer.probes.engine_process import engine
from tests.balancer.probes.fake_nvml import GPU_B, FakeNvml, loaded, run_python
from tests.balancer.scripted import Act, ScriptedReplica, answer

Clock = trio.testing.MockClock
GIB = 2**30


def gpu(index: int, **fields: object) -> GpuSample:
    return GpuSample(**{"uuid": f"GPU-{index}", "index": index, **fields})  # type: ignore[arg-type]


# -- the pure part


def test_several_gpus_of_one_replica() -> None:
    """The busiest, the fullest, the hottest; power of all; foreign memory of all."""
    samples = [
        gpu(
            0,
            utilisation=0.2,
            memory_used_bytes=70,
            memory_free_bytes=10,
            power_w=100.0,
            temperature_c=80,
            throttled=("power_cap",),
            processes=(GpuProcess(1, 60), GpuProcess(9, 8)),
        ),
        gpu(
            1,
            utilisation=0.9,
            memory_used_bytes=30,
            memory_free_bytes=10,
            power_w=250.0,
            temperature_c=60,
            throttled=("hw_thermal", "power_brake"),
            processes=(GpuProcess(2, 20), GpuProcess(8, 5)),
        ),
    ]
    assert reading(samples, {1, 2}, 7.0) == GpuReading(
        at=7.0,
        utilisation=0.9,
        memory_share=0.875,
        memory_free_bytes=10,
        foreign_memory_bytes=13,
        power_w=350,
        temperature_c=80,
        throttled=("hw_thermal", "power_brake"),
    )


def test_nothing_said() -> None:
    """What no GPU says is None, never 0; no GPU at all is no reading."""
    assert reading([gpu(0)], None, 1.0) == GpuReading(at=1.0)
    assert reading([], {1}, 1.0) is None


def test_power_limit_is_no_trouble() -> None:
    """A GPU that works at its power limit is not counted as throttled."""
    found = reading([gpu(0, throttled=("power_cap",))], None, 0.0)
    assert found is not None
    assert found.throttled == ()


@pytest.mark.parametrize(
    ("own", "processes", "foreign"),
    [
        (None, (GpuProcess(1, 5),), None),
        (set(), (GpuProcess(1, 5),), None),
        ({7}, (GpuProcess(1, 5),), None),  # pids of another namespace
        ({1}, None, None),
        ({1}, (), None),
        ({1}, (GpuProcess(1, 5),), 0),
        ({1}, (GpuProcess(1, None), GpuProcess(2, 6)), 6),
        ({1}, (GpuProcess(1, 5), GpuProcess(2, None)), None),
    ],
)
def test_foreign_memory(
    own: set[int] | None, processes: tuple[GpuProcess, ...] | None, foreign: int | None
) -> None:
    """Known only where the replica's own processes are seen and every other tells its memory."""
    found = reading([gpu(0, processes=processes)], own, 0.0)
    assert found is not None
    assert found.foreign_memory_bytes == foreign


def test_power_of_mig_devices() -> None:
    """Two MIG devices of one GPU draw its power once."""
    devices = [gpu(i, parent="GPU-x", power_w=300.0) for i in range(2)]
    found = reading([*devices, gpu(3, power_w=50.0)], None, 0.0)
    assert found is not None
    assert found.power_w == 350


def test_fault_names_the_gpu() -> None:
    """One GPU with a fault is a fault of the replica."""
    found = reading([gpu(0), gpu(3, fault="lost")], None, 0.0)
    assert found is not None
    assert found.fault == "GPU 3: lost"


@pytest.mark.parametrize(
    ("names", "indices"),
    [
        ((0,), [0]),
        ((0, 2), [0, 2]),
        (("GPU-1",), [1]),
        (("gpu-1", 1), [1]),
        (("1",), [1]),  # a UUID without its prefix
        (("MIG-9",), [2]),
        (("GPU-whole",), [2]),
        ((7, "GPU-7"), []),
    ],
)
def test_chosen(names: tuple[int | str, ...], indices: list[int]) -> None:
    """GPUs by index, by UUID with or without `GPU-`, and MIG devices by theirs or their GPU's."""
    samples = [gpu(0), gpu(1), GpuSample(uuid="MIG-9", index=2, parent="GPU-whole")]
    assert [sample.index for sample in chosen(samples, names)] == indices


@given(
    st.lists(
        st.builds(
            GpuSample,
            uuid=st.text(min_size=1),
            utilisation=st.none() | st.floats(0, 1),
            memory_used_bytes=st.none() | st.integers(0, 2**40),
            memory_free_bytes=st.none() | st.integers(0, 2**40),
            power_w=st.none() | st.floats(0, 2000),
            processes=st.none()
            | st.lists(
                st.builds(GpuProcess, st.integers(1, 5), st.none() | st.integers(0, 2**40))
            ).map(tuple),
        ),
        min_size=1,
    ),
    st.none() | st.sets(st.integers(1, 5)),
)
def test_any_samples(samples: list[GpuSample], own: set[int] | None) -> None:
    """Whatever the samples, shares stay between 0 and 1 and amounts are not negative."""
    found = reading(samples, own, 0.0)
    assert found is not None
    for share in (found.utilisation, found.memory_share):
        assert share is None or 0 <= share <= 1
    for amount in (found.memory_free_bytes, found.foreign_memory_bytes, found.power_w):
        assert amount is None or amount >= 0


@pytest.mark.parametrize(
    ("gpus", "port", "utilisation"),
    [((), 8000, 0.1), ((), 8001, 0.2), ((), 9, None), ((1,), 8000, 0.2), ((5,), 8000, None)],
)
def test_whose_on_another_machine(
    gpus: tuple[int | str, ...], port: int, utilisation: float | None
) -> None:
    """The configured ones; else those that serve its port; else nothing is known."""
    samples = [
        gpu(0, utilisation=0.1, processes=(GpuProcess(1, 5, (8000, 8005)),)),
        gpu(1, utilisation=0.2, processes=(GpuProcess(3, 5, (8001,)), GpuProcess(2, 5))),
    ]
    found = remote_reading(samples, gpus, port, 0.0)
    assert (found.utilisation if found else None) == utilisation


def test_the_only_gpu_of_another_machine() -> None:
    """A machine with one GPU: it is the replica's."""
    assert remote_reading([gpu(0)], (), 8000, 3.0) == GpuReading(at=3.0)


# -- GPUs of this machine, through the fake library


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNvml]:
    with loaded(tmp_path, monkeypatch) as fake:
        yield fake


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch) -> dict[int, set[int]]:
    """Which processes serve which port, to be filled by the test."""
    owners: dict[int, set[int]] = {}

    def find(
        endpoints: frozenset[Endpoint], gpu_pids: frozenset[int], root: Path
    ) -> dict[Endpoint, frozenset[int]]:
        return {e: gpu_pids & owners.get(e.port, set()) for e in endpoints}

    monkeypatch.setattr(gpu_local, "find_gpu_pids", find)
    return owners


def here(port: int, *gpus: int | str) -> LocalReplica:
    return LocalReplica(f"http://127.0.0.1:{port}", (Endpoint("127.0.0.1", port),), gpus)


def test_found_by_process(fake: FakeNvml, owners: dict[int, set[int]]) -> None:
    """A replica has the GPUs on which its processes run, and others' memory there is foreign."""
    owners[8000] = {100}
    local = LocalGpus()
    found = local.look([here(8000), here(8001)], 5.0)
    local.close()
    first = found["http://127.0.0.1:8000"]
    assert first is not None
    assert (first.at, first.utilisation, first.memory_share) == (5.0, 0.42, 0.75)
    assert first.foreign_memory_bytes == 8 * GIB
    assert found["http://127.0.0.1:8001"] is None


def test_configured_wins(fake: FakeNvml, owners: dict[int, set[int]]) -> None:
    """GPUs that the configuration names are the replica's, whatever runs where."""
    owners[8000] = {100}
    local = LocalGpus()
    found = local.look([here(8000, GPU_B)], 0.0)["http://127.0.0.1:8000"]
    local.close()
    assert found is not None
    assert found.utilisation == 0.07


def test_lost_gpu_stays_the_replicas(fake: FakeNvml, owners: dict[int, set[int]]) -> None:
    """A GPU that is lost lists no processes: it is still the replica's, and its fault is told."""
    owners[8000] = {100, 200}
    fake.say({"1.processes": "200:5"})
    local = LocalGpus()
    name = "http://127.0.0.1:8000"
    local.look([here(8000)], 0.0)
    fake.say({"1.all": "!15"})
    found = local.look([here(8000)], 1.0)[name]
    assert found is not None
    assert found.fault == "GPU 1: lost"
    # Restarted on the other GPU alone: once both can be read, what is found counts again.
    fake.say({"1.all": None, "1.processes": ""})
    found = local.look([here(8000)], 2.0)[name]
    local.close()
    assert found is not None
    assert found.power_w == 300.5


def test_engine_that_is_down_keeps_its_gpus(fake: FakeNvml, owners: dict[int, set[int]]) -> None:
    """While the engine is down, others' work on its GPUs can still be seen."""
    owners[8000] = {100}
    local = LocalGpus()
    local.look([here(8000)], 0.0)
    fake.say({"0.processes": "101:5"})
    found = local.look([here(8000)], 1.0)["http://127.0.0.1:8000"]
    local.close()
    assert found is not None
    assert (found.utilisation, found.foreign_memory_bytes) == (0.42, None)


def test_looked_up_again_after_a_while(fake: FakeNvml, owners: dict[int, set[int]]) -> None:
    """An engine takes its GPU long before it listens: it is found within 10 s of that."""
    local = LocalGpus()
    name = "http://127.0.0.1:8000"
    assert local.look([here(8000)], 0.0)[name] is None
    owners[8000] = {100}
    assert local.look([here(8000)], 9.0)[name] is None
    assert local.look([here(8000)], 10.0)[name] is not None
    local.close()


# -- the runner; with threads, so on the real clock


@asynccontextmanager
async def probing(probes: GpuProbes, *replicas: Replica) -> AsyncIterator[None]:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(probes.run, replicas)
            yield
            nursery.cancel_scope.cancel()


async def until(is_so: Callable[[], bool], within_s: float = 10, step_s: float = 0.001) -> None:
    """Wait for what only can be asked, not waited for."""
    with trio.fail_after(within_s):
        while not is_so():  # noqa: ASYNC110 - what is asked for sets no event
            await trio.sleep(step_s)


def known(replica: Replica) -> GpuReading | None:
    """The reading as it is now."""
    return replica.gpu


async def test_local_replica_is_read(fake: FakeNvml, owners: dict[int, set[int]]) -> None:
    """A replica on this machine gets readings, again and again; one elsewhere gets none."""
    owners[8000] = {100}
    async with memory_network() as network:
        near = Replica("http://localhost:8000", network)
        far = Replica("http://192.0.2.1:8000", network)
        async with probing(GpuProbes(network, interval_s=0.005), near, far):
            await until(lambda: near.gpu is not None)
            fake.say({"0.util": 99})
            await until(lambda: near.gpu is not None and near.gpu.utilisation == 0.99)
        assert far.gpu is None


async def test_gpus_not_found_are_told(
    fake: FakeNvml, owners: dict[int, set[int]], caplog: pytest.LogCaptureFixture
) -> None:
    """Of an engine that serves, and whose GPUs cannot be found, this is said, once; of one that is
    down nothing."""
    caplog.set_level(logging.INFO, "triolet.gpu")
    async with memory_network() as network:
        serving, down = (Replica(f"http://127.0.0.1:{port}", network) for port in (8000, 8001))
        serving.probed(True, trio.current_time())
        async with probing(GpuProbes(network, interval_s=0.001), serving, down):
            await until(lambda: "could be tied to it" in caplog.text)
            await trio.sleep(0.1)
    assert caplog.text.count("could be tied to it") == 1
    assert f"replica {serving.name}:" in caplog.text


class NotesClose(LocalGpus):
    """Tells when the driver was let go."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = threading.Event()

    def close(self) -> None:
        super().close()
        self.closed.set()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
async def test_from_port_to_gpu(fake: FakeNvml) -> None:
    """The whole way on real processes: a port, who listens there, its child on the second GPU,
    beside another's process."""
    with engine() as (port, _, worker), engine() as (_, _, stranger):
        fake.say({"1.processes": f"{worker}:5000,{stranger}:700"})
        async with memory_network() as network:
            replica = Replica(f"http://localhost:{port}", network)
            async with probing(GpuProbes(network, interval_s=0.01), replica):
                await until(lambda: replica.gpu is not None)
    assert replica.gpu is not None
    assert replica.gpu.utilisation == 0.07
    assert replica.gpu.foreign_memory_bytes == 700


async def test_watch(fake: FakeNvml, owners: dict[int, set[int]]) -> None:
    """A replica that comes is read at once, one that goes loses its reading; the driver is let go
    when none is left."""
    owners[8000] = owners[8001] = {100}
    async with memory_network() as network:
        first, second = (Replica(f"http://127.0.0.1:{port}", network) for port in (8000, 8001))
        local = NotesClose()
        probes = GpuProbes(network, interval_s=60, local=local)
        async with probing(probes, first):
            await until(lambda: first.gpu is not None)
            probes.watch([second])
            assert known(first) is None
            await until(lambda: second.gpu is not None)
            probes.watch([])
            await until(local.closed.is_set)


@pytest.mark.slow
async def test_hang(
    fake: FakeNvml,
    owners: dict[int, set[int]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A driver call that blocks holds up nothing: the loop runs, what was known becomes unknown, no
    threads pile up, and readings come again when it is over."""
    monkeypatch.setattr(gpu_thread, "_HANG_S", 0.05)
    owners[8000] = {100}
    async with memory_network() as network:
        replica = Replica("http://127.0.0.1:8000", network)
        async with probing(GpuProbes(network, interval_s=0.005), replica):
            await until(lambda: replica.gpu is not None)
            threads = threading.active_count()
            fake.say({"hang": 1})
            await until(lambda: replica.gpu is None)
            started = trio.current_time()
            for _ in range(100):
                await trio.lowlevel.checkpoint()
            assert trio.current_time() - started < 1
            await until(lambda: "did not answer" in caplog.text)
            await trio.sleep(0.2)
            assert threading.active_count() <= threads + 1
            fake.say({"hang": None})
            await until(lambda: replica.gpu is not None)
    assert caplog.text.count("did not answer") == 1


async def test_ends_while_the_driver_hangs(
    fake: FakeNvml, owners: dict[int, set[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelling does not wait for a call into the driver."""
    async with memory_network() as network:
        replica = Replica("http://127.0.0.1:8000", network)
        called = threading.Event()
        done = threading.Event()
        local = LocalGpus()
        look = local.look

        def watched(replicas: list[LocalReplica], now: float) -> dict[str, GpuReading | None]:
            called.set()
            try:
                return look(replicas, now)
            finally:
                done.set()

        monkeypatch.setattr(local, "look", watched)
        fake.say({"hang": 1})
        started = trio.current_time()
        async with probing(GpuProbes(network, local=local), replica):
            await until(called.is_set)
        assert trio.current_time() - started < 4
        assert not done.is_set()
        fake.say({"hang": None})
        await until(done.is_set)
        local.close()


async def test_broken_driver(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error that nobody thought of is logged once, and ends nothing."""
    asked = threading.Semaphore(0)

    def look(*_: object) -> dict[str, GpuReading | None]:
        asked.release()
        raise RuntimeError("what is this?")

    local = LocalGpus()
    monkeypatch.setattr(local, "look", look)
    async with memory_network() as network:
        replica = Replica("http://127.0.0.1:8000", network)
        async with probing(GpuProbes(network, interval_s=0.001, local=local), replica):
            for _ in range(3):
                await until(lambda: asked.acquire(blocking=False))
    assert caplog.text.count("Traceback") == 1


# -- exporters, in virtual time


def page(utilisation: int, gpus: int = 1) -> bytes:
    line = 'DCGM_FI_DEV_GPU_UTIL{{gpu="{0}",UUID="GPU-{0}"}} {1}\n'
    return "".join(line.format(index, utilisation + index) for index in range(gpus)).encode()


def at_exporter(
    network: MemoryDialer, *gpus: int | str, url: str = "http://node:9400/metrics"
) -> GpuProbes:
    return GpuProbes(network, place_of=lambda _: GpuPlace(gpus, url))


async def test_exporter(autojump_clock: Clock) -> None:
    """An exporter is asked every interval, at the path of its URL, for all its replicas at once."""
    async with memory_network() as network:
        exporter = ScriptedReplica([answer(page(30))], [answer(page(50))])
        network.serve("http://node:9400", exporter)
        replicas = [Replica(f"http://node:{port}", network) for port in (8000, 8001)]
        async with probing_virtually(at_exporter(network), *replicas):
            await trio.testing.wait_all_tasks_blocked()
            assert [r.gpu and r.gpu.utilisation for r in replicas] == [0.3, 0.3]
            await trio.sleep(1.2)
            assert [r.gpu and r.gpu.utilisation for r in replicas] == [0.5, 0.5]
            await trio.sleep(10)
        assert exporter.requests[0].startswith(b"GET /metrics HTTP/1.1\r\n")
        assert 9 <= len(exporter.requests) <= 14
        assert network.open == 0


@asynccontextmanager
async def probing_virtually(probes: GpuProbes, *replicas: Replica) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(probes.run, replicas)
        yield
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "steps",
    [
        [answer(b"", status=500)],
        [answer(b"not a page")],
        [Act.RESET],
        [Act.HANG],
        [b"SSH-2.0-x\r\n"],
    ],
)
async def test_exporter_fails(
    steps: list[bytes | float | Act], autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Two failures change nothing, a third makes it unknown; told once; asked more rarely; then it
    is read again."""
    async with memory_network() as network:
        good = [answer(page(30))]
        exporter = ScriptedReplica(good, *[steps] * 8, good)
        network.serve("http://node:9400", exporter)
        replica = Replica("http://node:8000", network)
        async with probing_virtually(at_exporter(network), replica):
            await trio.testing.wait_all_tasks_blocked()
            assert replica.gpu is not None
            await until(lambda: known(replica) is None, 60, 0.05)
            assert len(exporter.requests) == 4
            await until(lambda: known(replica) is not None, 600, 0.5)
            assert len(exporter.requests) == 10
            assert trio.current_time() > 60
        assert network.open == 0
    warnings = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "GPU exporter http://node:9400/metrics" in warnings[0].message


async def test_large_page() -> None:
    """A page too large to be read on the loop is read all the same."""
    async with memory_network() as network:
        large = page(30) + b"# HELP x y\n" * 10_000
        network.serve("http://node:9400", ScriptedReplica([answer(large)]))
        replica = Replica("http://node:8000", network)
        async with probing(at_exporter(network), replica):
            await until(lambda: replica.gpu is not None)


async def test_which_gpus(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Of several GPUs it must be said which; who says it gets them."""
    async with memory_network() as network:
        network.serve("http://node:9400", ScriptedReplica([answer(page(10, gpus=4))]))
        replica = Replica("http://node:8000", network)
        url = "http://node:9400"
        async with probing_virtually(at_exporter(network, url=url), replica):
            await trio.sleep(5)
            assert known(replica) is None
        assert caplog.text.count("which of the 4 GPUs") == 1
        async with probing_virtually(at_exporter(network, 1, "GPU-2", url=url), replica):
            await trio.sleep(5)
            assert replica.gpu is not None
            assert replica.gpu.utilisation == 0.12


async def test_exporter_is_left(autojump_clock: Clock) -> None:
    """When its last replica goes, an exporter is asked no more."""
    async with memory_network() as network:
        exporter = ScriptedReplica([answer(page(30))])
        network.serve("http://node:9400", exporter)
        replica = Replica("http://node:8000", network)
        probes = at_exporter(network)
        async with probing_virtually(probes, replica):
            await trio.sleep(3)
            probes.watch([])
            asked = len(exporter.requests)
            await trio.sleep(30)
            assert len(exporter.requests) == asked
            assert known(replica) is None
            probes.watch([replica])
            await trio.sleep(1)
            assert known(replica) is not None


async def test_a_fault_cannot_forge_the_log(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is the exporter's own text: one line, and nothing that steers a terminal."""
    text = (
        b'triolet_gpu_info{uuid="a",gpu="0",processes="known"} 1\n'
        b'triolet_gpu_fault{uuid="a",fault="lost\\n2026-01-01 info triolet: \x1b[31mforged"} 1\n'
    )
    async with memory_network() as network:
        network.serve("http://node:9400", ScriptedReplica([answer(text)]))
        replica = Replica("http://node:8000", network)
        async with probing_virtually(at_exporter(network), replica):
            await trio.sleep(3)
    [message] = caplog.messages
    assert message == "replica http://node:8000: GPU 0: lost?2026-01-01 info triolet: ?[31mforged"


async def test_a_name_is_looked_up_until_it_is_found(
    fake: FakeNvml, owners: dict[int, set[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS may come up after us: the GPUs of a replica here are found then."""
    known_names: dict[str, str] = {}

    async def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        if host not in known_names:
            raise OSError("no such name")
        return [(0, 0, 0, "", (known_names[host], port))]

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(gpu_probes, "_LOCATE_S", 0.01)
    async with memory_network() as network:
        replica = Replica("http://engine:8000", network)
        owners[8000] = {100}
        async with probing(GpuProbes(network, interval_s=0.01), replica):
            await trio.sleep(0.05)
            assert known(replica) is None
            known_names["engine"] = "127.0.0.1"
            await until(lambda: known(replica) is not None)


async def test_fault_is_logged_once(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A new fault is news; that it goes on is not."""
    line = b'nvidia_smi_gpu_recovery_action{uuid="a"} %d\n'
    async with memory_network() as network:
        scripts = [[answer(line % value)] for value in (0, 1, 1, 1)]
        network.serve("http://node:9400", ScriptedReplica(*scripts))
        replica = Replica("http://node:8000", network)
        async with probing_virtually(at_exporter(network), replica):
            await trio.sleep(10)
            assert replica.gpu is not None
            assert replica.gpu.fault is not None
    assert caplog.text.count("asks for a reset") == 1


@pytest.mark.slow
def test_no_driver_costs_nothing() -> None:
    """Importing the probes does not import pynvml."""
    script = "import sys, balancer.probes.gpu; print('pynvml' in sys.modules)"
    assert run_python(script) == "False\n"
