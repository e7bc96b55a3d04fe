"""Gateways are installed once, each in its own place below a cache directory, without root."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bench import installation
from bench.installation import NotInstalled
from bench.peers.gateway import DebianPackage, Gateway, NpmPackage, PythonPackage

__all__ = ["found_version", "install"]

_VERSION_LIMIT_S: Final = 30
_SYSTEM_PATHS: Final = "/usr/local/sbin:/usr/sbin:/sbin"


def install(gateway: Gateway, cache: Path, say: Callable[[str], None]) -> Path:
    """The directory that holds the gateway, made on first use.

    Raises NotInstalled, and leaves nothing half made, if it cannot be installed.
    """
    source = gateway.source
    if source is None:
        return cache

    def make(home: Path) -> None:
        if isinstance(source, PythonPackage):
            _install_python(source, home)
        elif isinstance(source, NpmPackage):
            _install_npm(source, home)
        else:
            _install_debian(source, home)

    home = cache / "peers" / "-".join(filter(None, (gateway.name, gateway.version)))
    what = f"installing {' '.join(filter(None, (gateway.name, gateway.version)))} into {home}"
    return installation.made_once(home, make, lambda: say(what))


def found_version(gateway: Gateway, home: Path) -> str:
    """The version that is reported: the pinned one, or what the program says of itself.

    Raises NotInstalled if the program does not run.
    """
    if isinstance(gateway.source, NpmPackage):
        return f"{gateway.version} on Node.js {_output(['node', '--version']).lstrip('v')}"
    if isinstance(gateway.source, DebianPackage):
        said = _output([str(home / gateway.source.program), "-v"])
        return said.rpartition("/")[2]
    return gateway.version


def _install_python(source: PythonPackage, home: Path) -> None:
    installation.make_environment(home)
    extras = f"[{source.extras}]" if source.extras else ""
    installation.pip_install(home, f"{source.name}{extras}=={source.version}")


def _install_npm(source: NpmPackage, home: Path) -> None:
    if shutil.which("npm") is None or shutil.which("node") is None:
        raise NotInstalled("it needs Node.js: no `node` and `npm` on the path")
    wanted = {
        "private": True,
        "dependencies": {source.name: source.version},
        "overrides": dict(source.overrides),
    }
    (home / "package.json").write_text(json.dumps(wanted, indent=1))
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--silent", "--loglevel=error"]
    installation.run_step(["npm", "install", "--prefix", str(home), *options])


def _install_debian(source: DebianPackage, home: Path) -> None:
    """Take the program that is there, or unpack its package, which needs no root."""
    program = home / source.program
    given = shutil.which(program.name) or shutil.which(program.name, path=_SYSTEM_PATHS)
    if given is not None:
        program.parent.mkdir(parents=True)
        program.symlink_to(given)
        return
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise NotInstalled(f"no `{program.name}` on the path, and no apt-get to fetch it with")
    why = ""
    for package in source.packages:
        try:
            installation.run_step(["apt-get", "download", package], cwd=home)
        except NotInstalled as error:
            why = why or str(error)
            continue
        for archive in home.glob("*.deb"):
            installation.run_step(["dpkg", "-x", str(archive), str(home)])
            archive.unlink()
        if program.exists():
            return
    raise NotInstalled(why or f"no package of {', '.join(source.packages)} has {source.program}")


def _output(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_VERSION_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(f"{command[0]}: {error}") from error
    text = (done.stdout or done.stderr).strip()
    if done.returncode:
        raise NotInstalled(f"{command[0]}: {text or f'code {done.returncode}'}")
    return text
