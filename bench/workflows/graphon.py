"""graphon in an environment of its own: found or made, and what was measured of it before."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from bench import installation
from bench.installation import NotInstalled

__all__ = ["GRAPHON", "READ_ONCE", "RECORDED", "RECORDED_WITH", "VERSION", "interpreter"]

GRAPHON: Final = "graphon"
"""As a contender: each run loads its export, which is graphon's one public way."""

READ_ONCE: Final = "graphon-read-once"
"""As a contender: what was read is kept, by a way around graphon; its graph is built each time."""

VERSION: Final = "0.8.0"
_LEAST: Final = (3, 12)
_NAMES: Final = ("python3.12", "python3.13", "python3.14")
_LIMIT_S: Final = 30.0

RECORDED: Final = {
    "start-end": 4.5,
    "chain-10": 11.4,
    "branch-10": 14.3,
    "chain-50": 47.8,
    "templates-10": 21.9,
    "iteration-10x5": 24.2,
}
"""CPU milliseconds per run, one at a time: for machines that cannot have it."""

RECORDED_WITH: Final = "graphon 0.8.0, Python 3.12.1, one core of an Intel Xeon, November 2026"
"""What these were measured with."""


def interpreter(given: Path | None, cache: Path, say: Callable[[str], None]) -> Path:
    """A Python that has graphon: the one given, or an environment made of one that is new enough.

    Raises NotInstalled.
    """
    base = given or _found()
    if base is None:
        raise NotInstalled("it needs Python 3.12 or later: none was found; see --graphon-python")
    if _has_graphon(base):
        return base
    _check_version(base)

    def make(home: Path) -> None:
        installation.run_step([str(base), "-m", "venv", str(home)])
        installation.pip_install(home, f"graphon=={VERSION}")

    home = cache / "engines" / f"graphon-{VERSION}"
    what = f"installing graphon {VERSION} into {home}"
    return installation.made_once(home, make, lambda: say(what)) / "bin" / "python"


def _found() -> Path | None:
    return next(_candidates(), None)


def _candidates() -> Iterator[Path]:
    if sys.version_info >= _LEAST:
        yield Path(sys.executable)
    for name in _NAMES:
        path = shutil.which(name)
        if path is not None:
            yield Path(path)


def _has_graphon(python: Path) -> bool:
    code = f"from importlib.metadata import version; assert version('graphon') == '{VERSION}'"
    return _runs(python, code)


def _check_version(python: Path) -> None:
    if not _runs(python, f"import sys; assert sys.version_info >= {_LEAST}"):
        raise NotInstalled(f"{python} is no Python 3.12 or later")


def _runs(python: Path, code: str) -> bool:
    try:
        done = subprocess.run(
            [str(python), "-c", code], capture_output=True, timeout=_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
