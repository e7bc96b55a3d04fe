"""A `libnvidia-ml.so.1` that says what a test wants, compiled from `fake_nvml.c`.

pynvml loads it as it loads the real one, by name: in this process because a library with that
soname is loaded already, in others through LD_LIBRARY_PATH.
"""

from __future__ import annotations

import _ctypes
import atexit
import ctypes
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = [
    "GPU_A",
    "GPU_B",
    "MACHINE",
    "SONAME",
    "FakeNvml",
    "build",
    "environment",
    "loaded",
    "run_python",
]

SONAME = "libnvidia-ml.so.1"
ROOT = Path(__file__).resolve().parents[3]
GPU_A = "GPU-11111111-aaaa-bbbb-cccc-000000000001"
GPU_B = "GPU-22222222-aaaa-bbbb-cccc-000000000002"

MACHINE: dict[str, object] = {
    "count": 2,
    "0.uuid": GPU_A,
    "0.util": 42,
    "0.power": 300_500,
    "0.temperature": 61,
    "0.reasons": 0,
    "0.used": 60 * 2**30,
    "0.free": 20 * 2**30,
    "0.recovery": 0,
    "0.processes": f"100:{50 * 2**30},101:{8 * 2**30}",
    "1.uuid": GPU_B,
    "1.util": 7,
    "1.power": 90_000,
    "1.temperature": 35,
    "1.reasons": 1,
    "1.used": 2**30,
    "1.free": 79 * 2**30,
    "1.recovery": 0,
    "1.processes": "",
}
"""Two healthy GPUs, one at work."""


class FakeNvml:
    """What the library says from now on. `say(**{"0.util": 5})`; None takes a key away."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state: dict[str, object] = dict(MACHINE)
        self.say({})

    def say(self, changes: dict[str, object]) -> None:
        """Takes effect with the next call."""
        self._state |= changes
        lines = [f"{key} {value}\n" for key, value in self._state.items() if value is not None]
        written = self.path.with_suffix(".new")
        written.write_text("".join(lines), encoding="ascii")
        written.replace(self.path)


@functools.cache
def build(*options: str) -> Path:
    """The directory with the library, compiled once in a session. Skips without a compiler."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler (cc) to build a fake libnvidia-ml.so.1")
    directory = Path(tempfile.mkdtemp(prefix="fake-nvml-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    source = Path(__file__).with_name("fake_nvml.c")
    command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", *options]
    command += [f"-Wl,-soname,{SONAME}", "-o", str(directory / SONAME), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        pytest.fail(f"the fake NVML does not compile:\n{done.stderr}")
    return directory


@contextmanager
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> Iterator[FakeNvml]:
    """The fake in this process. At the end pynvml is as if it had never loaded anything."""
    import pynvml  # type: ignore[import-untyped]

    assert getattr(pynvml, "nvmlLib", None) is None, "a test left a library loaded"
    fake = FakeNvml(tmp_path / "nvml")
    monkeypatch.setenv("FAKE_NVML_STATE", str(fake.path))
    library = ctypes.CDLL(str(build(*options) / SONAME))
    try:
        yield fake
    finally:
        fake.say({"hang": None})
        if pynvml.nvmlLib is not None:
            _ctypes.dlclose(pynvml.nvmlLib._handle)
            pynvml.nvmlLib = None
        pynvml._nvmlGetFunctionPointer_cache.clear()
        _ctypes.dlclose(library._handle)


def environment(state: Path, directory: Path) -> dict[str, str]:
    """For a process that shall find the library in `directory`."""
    return {
        **os.environ,
        "FAKE_NVML_STATE": str(state),
        "LD_LIBRARY_PATH": str(directory),
        "PYTHONPATH": str(ROOT),
    }


def run_python(script: str, env: dict[str, str] | None = None) -> str:
    """What a script prints in a process of its own; it must end well, within 30 s."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=env or {**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
