"""Where and when a benchmark ran."""

from __future__ import annotations

import datetime
import os
import platform
import sysconfig
from pathlib import Path


def describe_machine() -> dict[str, str]:
    """CPU, cores, kernel, Python, date and the load before the run, as text."""
    one, five, _ = os.getloadavg()
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": _python(),
        "load before": f"{one:.2f} (1 min), {five:.2f} (5 min)",
    }


def _python() -> str:
    """The interpreter; one built without profile-guided optimisation is a good deal slower."""
    version = f"{platform.python_implementation()} {platform.python_version()}"
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    return version if "--enable-optimizations" in options else f"{version}, built without PGO"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.machine()
