"""Programs installed once, each in a directory of its own, without root, whole or not at all."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

__all__ = ["NotInstalled", "make_environment", "made_once", "pip_install", "run_step"]

_LIMIT_S: Final = 1_800
_ERROR: Final = re.compile(r"^(npm )?(error|E:)", re.IGNORECASE)
_USELESS: Final = re.compile(
    r"complete log of this run|behind a proxy|^npm error( code)?\s*\S{0,12}$"
)


class NotInstalled(Exception):
    """A program cannot be installed here; the message says why."""


def made_once(home: Path, make: Callable[[Path], None], begin: Callable[[], None]) -> Path:
    """`home`, which `make` fills if that was not done before; `begin` is called first then.

    Raises NotInstalled, and leaves nothing half made, if it cannot be done.
    """
    done = home / "installed"
    if done.exists():
        return home
    begin()
    shutil.rmtree(home, ignore_errors=True)
    try:
        home.mkdir(parents=True)
        make(home)
        done.touch()
    except OSError as error:
        shutil.rmtree(home, ignore_errors=True)
        raise NotInstalled(f"{home}: {error}") from error
    except BaseException:
        shutil.rmtree(home, ignore_errors=True)
        raise
    return home


def make_environment(home: Path) -> None:
    """A virtual environment with this interpreter."""
    run_step([sys.executable, "-m", "venv", str(home)])


def pip_install(home: Path, *requirements: str) -> None:
    """Into the environment in `home`, from the configured index."""
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    run_step([*pip, "--disable-pip-version-check", "--no-input", *requirements])


def run_step(command: Sequence[str], *, cwd: Path | None = None) -> None:
    """Run one step of an installation. Raises NotInstalled with what its output says."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
            cwd=cwd,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(f"{command[0]}: {error}") from error
    if done.returncode:
        raise NotInstalled(reason(done.stderr or done.stdout) or f"code {done.returncode}")


def reason(output: str) -> str:
    """The line of an installer's output that says most: its last error, or its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR.match(line) and not _USELESS.search(line)]
    return (errors or lines or [""])[-1]
