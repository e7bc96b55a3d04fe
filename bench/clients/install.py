"""Each tool is installed once, in a virtual environment of its own, below a cache directory."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["TOOLS", "ClientMissing", "Tool", "install", "run_step"]

_INSTALL_LIMIT_S: Final = 1_800


class ClientMissing(Exception):
    """A tool cannot be installed here; the message says why."""


class Tool(NamedTuple):
    """One load client as the package index has it."""

    name: str
    """Also the name of its program."""
    version: str
    more: tuple[str, ...] = ()
    """What it needs beside itself, pinned."""
    instead: tuple[str, ...] = ()
    """The same for an index that lacks some of `more`."""

    def program(self, home: Path) -> Path:
        """What to run, of the tool installed in `home`."""
        return home / "bin" / self.name


TOOLS: Final = {
    tool.name: tool
    for tool in (
        Tool("aiperf", "0.13.0"),
        # Its engine, and what that is linked against: see bench.clients.perf_analyzer.
        Tool("genai-perf", "0.0.16", more=("nvidia-cuda-runtime-cu12==12.9.79",)),
        # The usual build of torch brings gigabytes for GPUs, of no use to a load client; not every
        # index has the other.
        Tool("guidellm", "0.8.1", more=("torch==2.13.0+cpu",), instead=("torch==2.13.0",)),
        Tool("locust", "2.47.0"),
    )
}


def install(
    tool: Tool,
    cache: Path,
    say: Callable[[str], None],
    finish: Callable[[Path], None] | None = None,
) -> Path:
    """The environment that holds the tool, made on first use; `finish` adds what pip cannot.

    Raises ClientMissing, and leaves nothing half made, if it cannot be installed.
    """
    home = cache / "clients" / f"{tool.name}-{tool.version}"
    done = home / "installed"
    if done.exists():
        return home
    say(f"installing {tool.name} {tool.version} into {home}; this takes minutes")
    shutil.rmtree(home, ignore_errors=True)
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        run_step([sys.executable, "-m", "venv", str(home)])
        _pip_install(tool, home)
        if finish is not None:
            finish(home)
        done.touch()
    except OSError as error:
        shutil.rmtree(home, ignore_errors=True)
        raise ClientMissing(f"{home}: {error}") from error
    except BaseException:
        shutil.rmtree(home, ignore_errors=True)
        raise
    return home


def _pip_install(tool: Tool, home: Path) -> None:
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    options = ["--disable-pip-version-check", "--no-input"]
    command = [*pip, *options, f"{tool.name}=={tool.version}"]
    try:
        run_step([*command, *tool.more])
    except ClientMissing:
        if not tool.instead:
            raise
        run_step([*command, *tool.instead])


def run_step(command: Sequence[str], *, cwd: Path | None = None) -> None:
    """Run one step of an installation. Raises ClientMissing with the last error it printed."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_INSTALL_LIMIT_S,
            check=False,
            cwd=cwd,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClientMissing(f"{command[0]}: {error}") from error
    if done.returncode:
        raise ClientMissing(_reason(done.stderr or done.stdout) or f"code {done.returncode}")


def _reason(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error", "e:"))]
    return (errors or lines or [""])[-1]
