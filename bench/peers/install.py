"""Gateways are installed once, each in its own place below a cache directory, without root."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bench.peers.gateway import DebianPackage, Gateway, NpmPackage, PythonPackage

__all__ = ["PeerMissing", "found_version", "install"]

_INSTALL_LIMIT_S: Final = 900
_VERSION_LIMIT_S: Final = 30
_SYSTEM_PATHS: Final = "/usr/local/sbin:/usr/sbin:/sbin"
_ERROR: Final = re.compile(r"^(npm )?(error|E:)", re.IGNORECASE)
_USELESS: Final = re.compile(
    r"complete log of this run|behind a proxy|^npm error( code)?\s*\S{0,12}$"
)


class PeerMissing(Exception):
    """A gateway cannot be installed here; the message says why."""


def install(gateway: Gateway, cache: Path, say: Callable[[str], None]) -> Path:
    """The directory that holds the gateway, made on first use.

    Raises PeerMissing, and leaves nothing half made, if it cannot be installed.
    """
    source = gateway.source
    if source is None:
        return cache
    name = "-".join(part for part in (gateway.name, gateway.version) if part)
    home = cache / "peers" / name
    done = home / "installed"
    if done.exists():
        return home
    say(f"installing {gateway.name} {gateway.version} into {home}")
    shutil.rmtree(home, ignore_errors=True)
    try:
        home.mkdir(parents=True)
        if isinstance(source, PythonPackage):
            _install_python(source, home)
        elif isinstance(source, NpmPackage):
            _install_npm(source, home)
        else:
            _install_debian(source, home)
        done.touch()
    except OSError as error:
        shutil.rmtree(home, ignore_errors=True)
        raise PeerMissing(f"{home}: {error}") from error
    except BaseException:
        shutil.rmtree(home, ignore_errors=True)
        raise
    return home


def found_version(gateway: Gateway, home: Path) -> str:
    """The version that is reported: the pinned one, or what the program says of itself.

    Raises PeerMissing if the program does not run.
    """
    if isinstance(gateway.source, NpmPackage):
        return f"{gateway.version} on Node.js {_output(['node', '--version']).lstrip('v')}"
    if isinstance(gateway.source, DebianPackage):
        said = _output([str(home / gateway.source.program), "-v"])
        return said.rpartition("/")[2]
    return gateway.version


def _install_python(source: PythonPackage, home: Path) -> None:
    _run([sys.executable, "-m", "venv", str(home)])
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    options = ["--disable-pip-version-check", "--no-input"]
    extras = f"[{source.extras}]" if source.extras else ""
    _run([*pip, *options, f"{source.name}{extras}=={source.version}"])


def _install_npm(source: NpmPackage, home: Path) -> None:
    if shutil.which("npm") is None or shutil.which("node") is None:
        raise PeerMissing("it needs Node.js: no `node` and `npm` on the path")
    wanted = {
        "private": True,
        "dependencies": {source.name: source.version},
        "overrides": dict(source.overrides),
    }
    (home / "package.json").write_text(json.dumps(wanted, indent=1))
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--silent", "--loglevel=error"]
    _run(["npm", "install", "--prefix", str(home), *options])


def _install_debian(source: DebianPackage, home: Path) -> None:
    """Take the program that is there, or unpack its package, which needs no root."""
    program = home / source.program
    given = shutil.which(program.name) or shutil.which(program.name, path=_SYSTEM_PATHS)
    if given is not None:
        program.parent.mkdir(parents=True)
        program.symlink_to(given)
        return
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise PeerMissing(f"no `{program.name}` on the path, and no apt-get to fetch it with")
    why = ""
    for package in source.packages:
        try:
            _run(["apt-get", "download", package], cwd=home)
        except PeerMissing as error:
            why = why or str(error)
            continue
        for archive in home.glob("*.deb"):
            _run(["dpkg", "-x", str(archive), str(home)])
            archive.unlink()
        if program.exists():
            return
    raise PeerMissing(why or f"no package of {', '.join(source.packages)} has {source.program}")


def _run(command: Sequence[str], *, cwd: Path | None = None) -> None:
    """Run one step of an installation. Raises PeerMissing with what its output says."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_INSTALL_LIMIT_S,
            check=False,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerMissing(f"{command[0]}: {error}") from error
    if done.returncode:
        raise PeerMissing(_reason(done.stderr or done.stdout) or f"code {done.returncode}")


def _reason(output: str) -> str:
    """The line of an installer's output that says most: its last error, or its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR.match(line) and not _USELESS.search(line)]
    return (errors or lines or [""])[-1]


def _output(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_VERSION_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerMissing(f"{command[0]}: {error}") from error
    text = (done.stdout or done.stderr).strip()
    if done.returncode:
        raise PeerMissing(f"{command[0]}: {text or f'code {done.returncode}'}")
    return text
