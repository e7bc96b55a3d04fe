"""GenAI-Perf's engine, the C++ program `perf_analyzer`, which pip no longer installs.

The package of that name is an empty placeholder; the program was last shipped inside wheels of
`tritonclient`. Version 2.51.0 runs with the C library of any distribution since 2022.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from bench.installation import NotInstalled, run_step

__all__ = ["add_engine", "engine_environment"]

_WHEEL: Final = "tritonclient==2.51.0"
_MEMBER: Final = "/data/bin/perf_analyzer"
_LIBRARY: Final = "libb64.so.0d"
_PACKAGE: Final = "libb64-0d"
_RUNS_LIMIT_S: Final = 30


def add_engine(home: Path) -> None:
    """Put the engine into GenAI-Perf's environment. Raises NotInstalled if it does not run then.

    One of its libraries comes from Debian's or Ubuntu's package if the system has none.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise NotInstalled("its engine perf_analyzer is only to be had for Linux on x86-64")
    with tempfile.TemporaryDirectory(dir=home) as place:
        _take_program(home, Path(place))
        if _LIBRARY in _complaint(home):
            _take_library(home, Path(place))
    complaint = _complaint(home)
    if complaint:
        raise NotInstalled(f"its engine perf_analyzer does not run: {complaint}")


def engine_environment(home: Path) -> dict[str, str]:
    """What the environment needs so that GenAI-Perf finds its engine, and that its libraries."""
    libraries = [str(home / "lib" / "engine")]
    libraries += map(str, home.glob("lib/python3*/site-packages/nvidia/cuda_runtime/lib"))
    return {
        "PATH": os.pathsep.join((str(home / "bin"), os.environ.get("PATH", os.defpath))),
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
    }


def _take_program(home: Path, place: Path) -> None:
    pip = [str(home / "bin" / "python"), "-m", "pip", "download", "--quiet"]
    options = ["--disable-pip-version-check", "--no-input", "--no-deps", "--only-binary=:all:"]
    run_step([*pip, *options, "--dest", str(place), _WHEEL])
    for wheel in place.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith(_MEMBER):
                    program = home / "bin" / "perf_analyzer"
                    program.write_bytes(archive.read(name))
                    program.chmod(0o755)
                    return
    raise NotInstalled(f"{_WHEEL} holds no perf_analyzer for this platform")


def _take_library(home: Path, place: Path) -> None:
    """Unpack the library's package, which needs no root."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise NotInstalled(f"its engine needs {_LIBRARY}: install the system's package for it")
    run_step(["apt-get", "download", _PACKAGE], cwd=place)
    kept = home / "lib" / "engine"
    kept.mkdir(parents=True, exist_ok=True)
    for package in place.glob("*.deb"):
        run_step(["dpkg-deb", "-x", str(package), str(place)])
    for library in place.rglob(f"{_LIBRARY}*"):
        shutil.copy(library, kept / library.name)


def _complaint(home: Path) -> str:
    """What the engine says when it does not run; empty if it runs."""
    try:
        done = subprocess.run(
            [str(home / "bin" / "perf_analyzer"), "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_RUNS_LIMIT_S,
            check=False,
            env={**os.environ, **engine_environment(home)},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stderr.strip() or f"code {done.returncode}" if done.returncode else ""
