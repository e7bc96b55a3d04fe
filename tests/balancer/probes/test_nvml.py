"""NVML through pynvml's real ctypes path: a fake library, and the real one where there is a GPU."""

from __future__ import annotations

import _ctypes
import ctypes
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from balancer.probes.gpu_sample import GpuProcess, GpuSample
from balancer.probes.nvml import NvmlUnavailable
from balancer.probes.nvml_gpus import NvmlGpus
from tests.balancer.probes.fake_nvml import (
    GPU_A,
    GPU_B,
    SONAME,
    FakeNvml,
    build,
    environment,
    loaded,
    run_python,
)

GIB = 2**30
LOST, NO_PERMISSION, NOT_SUPPORTED, RESET_REQUIRED, UNKNOWN = 15, 4, 3, 16, 999


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNvml]:
    with loaded(tmp_path, monkeypatch) as fake:
        yield fake


@pytest.fixture
def gpus(fake: FakeNvml) -> Iterator[NvmlGpus]:
    gpus = NvmlGpus()
    yield gpus
    gpus.close()


def test_several_gpus(gpus: NvmlGpus) -> None:
    """Every field of every GPU, in our units."""
    assert gpus.sample(0.0) == [
        GpuSample(
            uuid=GPU_A,
            index=0,
            utilisation=0.42,
            memory_used_bytes=60 * GIB,
            memory_free_bytes=20 * GIB,
            power_w=300.5,
            temperature_c=61,
            processes=(GpuProcess(100, 50 * GIB), GpuProcess(101, 8 * GIB)),
        ),
        GpuSample(
            uuid=GPU_B,
            index=1,
            utilisation=0.07,
            memory_used_bytes=GIB,
            memory_free_bytes=79 * GIB,
            power_w=90,
            temperature_c=35,
            processes=(),
        ),
    ]


def test_throttled(fake: FakeNvml, gpus: NvmlGpus) -> None:
    """Reasons that slow work have names; idleness and clocks that somebody set have none."""
    fake.say({"0.reasons": 0x1FF, "1.reasons": 0x80})
    first, second = gpus.sample(0.0)
    assert first.throttled == (
        "power_cap",
        "hw_slowdown",
        "sw_thermal",
        "hw_thermal",
        "power_brake",
    )
    assert second.throttled == ("power_brake",)


@pytest.mark.parametrize("error", [NOT_SUPPORTED, NO_PERMISSION, UNKNOWN])
@pytest.mark.parametrize(
    ("key", "field"),
    [
        ("0.util", "utilisation"),
        ("0.used", "memory_used_bytes"),
        ("0.power", "power_w"),
        ("0.temperature", "temperature_c"),
        ("0.processes", "processes"),
        ("0.recovery", "fault"),
    ],
)
def test_field_refused_alone(
    fake: FakeNvml, gpus: NvmlGpus, key: str, field: str, error: int
) -> None:
    """One field that is not supported or not permitted is None; all others are there."""
    whole = gpus.sample(0.0)[0]
    fake.say({key: f"!{error}"})
    partly = gpus.sample(1.0)[0]
    fields = {field, "memory_free_bytes"} if field == "memory_used_bytes" else {field}
    assert partly == msgspec.structs.replace(whole, **dict.fromkeys(fields))


def test_older_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library without the newer functions is asked by the older ones."""
    with loaded(tmp_path, monkeypatch, "-DOLD_DRIVER") as fake:
        fake.say({"0.reasons": 0x40})
        gpus = NvmlGpus()
        sample = gpus.sample(0.0)[0]
        gpus.close()
    assert (sample.temperature_c, sample.throttled) == (61, ("hw_thermal",))
    assert sample.processes is not None
    assert len(sample.processes) == 2


def test_process_without_memory(fake: FakeNvml, gpus: NvmlGpus) -> None:
    """Memory of a process that NVML does not tell is None."""
    fake.say({"0.processes": "7:na"})
    assert gpus.sample(0.0)[0].processes == (GpuProcess(7, None),)


@pytest.mark.parametrize(
    ("error", "words"),
    [(NO_PERMISSION, "/dev/nvidia"), (9, "not loaded"), (UNKNOWN, "container"), (23, "NVML: ")],
)
def test_refused_at_the_door(fake: FakeNvml, gpus: NvmlGpus, error: int, words: str) -> None:
    """NVML that does not open says why, and is opened when that is over."""
    fake.say({"init": f"!{error}"})
    for _ in range(2):
        with pytest.raises(NvmlUnavailable, match=words):
            gpus.sample(0.0)
    fake.say({"init": None})
    assert len(gpus.sample(1.0)) == 2


@pytest.mark.parametrize(("error", "fault"), [(LOST, "lost"), (RESET_REQUIRED, "needs a reset")])
def test_gpu_lost_midway(fake: FakeNvml, gpus: NvmlGpus, error: int, fault: str) -> None:
    """A lost GPU is a fault of that GPU alone, with its name, until it is back."""
    gpus.sample(0.0)
    fake.say({"0.all": f"!{error}"})
    for now in (1.0, 100.0, 200.0):  # GPUs are listed anew every minute
        first, second = gpus.sample(now)
        assert first == GpuSample(uuid=GPU_A, index=0, fault=fault)
        assert second.fault is None
        assert second.utilisation == 0.07
    fake.say({"0.all": None})
    assert gpus.sample(201.0)[0].fault is None


def test_gpu_lost_before(fake: FakeNvml, gpus: NvmlGpus) -> None:
    """A GPU that was lost before has no name, but a place; it is found again when it is back."""
    fake.say({"0.all": f"!{LOST}"})
    first, second = gpus.sample(0.0)
    assert (first.index, first.fault, second.uuid) == (0, "lost", GPU_B)
    fake.say({"0.all": None})
    assert gpus.sample(61.0)[0].uuid == GPU_A


def test_gpu_of_others(fake: FakeNvml, gpus: NvmlGpus) -> None:
    """A GPU that this process may not open is not listed."""
    fake.say({"0.handle": f"!{NO_PERMISSION}"})
    assert [sample.uuid for sample in gpus.sample(0.0)] == [GPU_B]


def test_gpu_that_says_nothing(fake: FakeNvml, gpus: NvmlGpus) -> None:
    """Unknown errors for everything are a fault, before NVML itself calls the GPU lost."""
    gpus.sample(0.0)
    fake.say({"0.all": f"!{UNKNOWN}"})
    assert "Unknown Error" in (gpus.sample(1.0)[0].fault or "")
    fake.say({"0.all": f"!{NO_PERMISSION}"})
    assert gpus.sample(2.0)[0].fault is None


def test_grave_xid(fake: FakeNvml, gpus: NvmlGpus) -> None:
    """An XID that asks for a reset is a fault for a minute, of the GPU that had it."""
    gpus.sample(0.0)
    fake.say({"event": "1 1 79"})
    first, second = gpus.sample(1.0)
    assert (first.xid, first.fault) == (None, None)
    assert (second.xid, second.fault) == (79, "XID 79: GPU has fallen off the bus")
    assert gpus.sample(60.0)[1].fault is not None
    assert gpus.sample(62.0)[1].fault is None
    assert gpus.sample(62.0)[1].xid == 79


def test_xid_of_an_application(fake: FakeNvml, gpus: NvmlGpus) -> None:
    """An XID that ends a process only is told, and is no fault."""
    gpus.sample(0.0)
    fake.say({"event": "1 0 31"})
    assert [(s.xid, s.fault) for s in gpus.sample(1.0)] == [(31, None), (None, None)]


def test_no_xid_events(fake: FakeNvml, gpus: NvmlGpus) -> None:
    """Where the driver has no XID events, all else is there."""
    fake.say({"events": 0, "event": "1 0 79"})
    assert gpus.sample(0.0)[0].xid is None
    assert gpus.sample(1.0)[0].utilisation == 0.42


def test_recovery_action(fake: FakeNvml, gpus: NvmlGpus) -> None:
    """What the driver itself wants done is a fault until it is done."""
    assert gpus.sample(0.0)[0].fault is None
    fake.say({"0.recovery": 1})
    assert gpus.sample(1.0)[0].fault == "the driver asks for a GPU reset"
    fake.say({"0.recovery": 0})
    assert gpus.sample(2.0)[0].fault is None


def test_mig(fake: FakeNvml, gpus: NvmlGpus) -> None:
    """A GPU in MIG mode is its MIG devices: memory and processes theirs, heat the whole one's."""
    fake.say(
        {
            "0.util": f"!{NOT_SUPPORTED}",
            "0.mig": 2,
            "0/0.uuid": "MIG-0",
            "0/0.used": 5,
            "0/0.free": 6,
            "0/0.processes": "9:4",
            "0/1.uuid": "MIG-1",
            "0/1.used": 0,
            "0/1.free": 11,
            "0/1.processes": "",
        }
    )
    first, second, other = gpus.sample(0.0)
    assert (first.uuid, first.parent, first.index) == ("MIG-0", GPU_A, 0)
    assert (first.memory_used_bytes, first.processes) == (5, (GpuProcess(9, 4),))
    assert (first.utilisation, first.temperature_c, first.power_w) == (None, 61, 300.5)
    assert (second.memory_free_bytes, second.processes) == (11, ())
    assert other.uuid == GPU_B
    fake.say({"0.all": f"!{LOST}"})
    assert [sample.fault for sample in gpus.sample(1.0)] == ["lost", "lost", None]


def test_uninitialised_midway(fake: FakeNvml, gpus: NvmlGpus) -> None:
    """A session that is gone is opened anew the next time."""
    gpus.sample(0.0)
    fake.say({"0.all": "!1"})
    with pytest.raises(NvmlUnavailable):
        gpus.sample(1.0)
    fake.say({"0.all": None})
    assert len(gpus.sample(2.0)) == 2


def test_close_lets_go(fake: FakeNvml) -> None:
    """After `close` NVML is shut down: the driver may be unloaded."""
    gpus = NvmlGpus()
    gpus.sample(0.0)
    gpus.close()
    library = ctypes.CDLL(SONAME)
    assert library.nvmlShutdown() == 1  # not initialised
    _ctypes.dlclose(library._handle)
    gpus.close()  # idempotent
    assert len(gpus.sample(1.0)) == 2
    gpus.close()


RELOAD = """
import os, shutil
from balancer.probes.nvml import NvmlUnavailable
from balancer.probes.nvml_gpus import NvmlGpus

def attempt(now):
    try:
        print(len(gpus.sample(now)), "GPUs")
    except NvmlUnavailable as exc:
        print("unavailable:", exc)

gpus = NvmlGpus()
attempt(0.0)
with open(os.environ["FAKE_NVML_STATE"], "a") as state:
    state.write("kernel 2\\n0.all !1\\n")  # the module was changed under us
attempt(1.0)
attempt(2.0)
library = os.path.join(os.environ["LD_LIBRARY_PATH"], "libnvidia-ml.so.1")
os.remove(library)
attempt(3.0)
shutil.copy(os.environ["NEW_LIBRARY"], library)
text = open(os.environ["FAKE_NVML_STATE"]).read().replace("0.all !1\\n", "")
open(os.environ["FAKE_NVML_STATE"], "w").write(text)
attempt(4.0)
"""


@pytest.mark.slow
def test_driver_reload(tmp_path: Path) -> None:
    """With a new kernel module the old library is let go, and the new one works without a restart.

    As long as the two differ, and while there is none at all, NVML is unavailable and says why.
    """
    directory = tmp_path / "lib"
    directory.mkdir()
    shutil.copy(build() / SONAME, directory / SONAME)
    fake = FakeNvml(tmp_path / "nvml")
    env = environment(fake.path, directory)
    env["NEW_LIBRARY"] = str(build("-DLIBRARY_VERSION=2") / SONAME)
    lines = run_python(RELOAD, env).splitlines()
    assert lines[0] == "2 GPUs"
    assert lines[1].startswith("unavailable: NVML: Uninitialized")
    assert "library and kernel module differ" in lines[2]
    assert "Not Found" in lines[3]
    assert lines[4] == "2 GPUs"


ABSENT = """
import ctypes, sys
try:
    ctypes.CDLL("libnvidia-ml.so.1")
    sys.exit(print("found"))
except OSError:
    pass
from balancer.probes.nvml import NvmlAbsent
from balancer.probes.nvml_gpus import NvmlGpus
try:
    NvmlGpus().sample(0.0)
except NvmlAbsent as exc:
    print(exc)
print("pynvml" in sys.modules)
"""


@pytest.mark.slow
def test_no_library() -> None:
    """Without the library that is what is said, and pynvml is not even imported."""
    printed = run_python(ABSENT)
    if printed == "found\n":
        pytest.skip("this machine has an NVIDIA driver")
    assert printed == "no NVIDIA driver on this machine (libnvidia-ml.so.1 not found)\nFalse\n"


CONTRACT = """
import sys, time
import msgspec
from balancer.probes.nvml_gpus import NvmlGpus
gpus = NvmlGpus()
first = gpus.sample(0.0)
second = gpus.sample(1.0)
gpus.close()
print(msgspec.json.encode([first, second]).decode())
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fake", "real"])
def test_contract(kind: str, tmp_path: Path) -> None:
    """What holds for any library and any GPU: the same test against the fake and the real one."""
    env = None
    if kind == "fake":
        env = environment(FakeNvml(tmp_path / "nvml").path, build())
    elif not os.path.exists("/dev/nvidiactl"):
        pytest.skip("this machine has no NVIDIA GPU (no /dev/nvidiactl)")
    first, second = msgspec.json.decode(run_python(CONTRACT, env), type=list[list[GpuSample]])
    assert first
    assert [sample.uuid for sample in first] == [sample.uuid for sample in second]
    assert len({sample.uuid for sample in first}) == len(first)
    for sample in first + second:
        assert sample.uuid.startswith(("GPU-", "MIG-"))
        assert sample.index is not None
        assert sample.utilisation is None or 0 <= sample.utilisation <= 1
        assert sample.power_w is None or 1 < sample.power_w < 3000
        assert sample.temperature_c is None or 0 < sample.temperature_c < 130
        if sample.memory_free_bytes is not None:
            assert sample.memory_used_bytes is not None
            assert GIB / 4 < sample.memory_used_bytes + sample.memory_free_bytes < 1024 * GIB
        assert all(process.pid > 0 for process in sample.processes or ())
