"""Gateways are installed once, or not at all, and what is in the way is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench import installation
from bench.installation import NotInstalled
from bench.peers import install
from bench.peers.gateway import DebianPackage, Gateway, NpmPackage, PythonPackage, Setup, Source

PYTHON = PythonPackage("thing", "1.2", "proxy")
NPM = NpmPackage("@maker/thing", "3.4", (("below", "5.6"),))
DEBIAN = DebianPackage("usr/sbin/thing", ("thing", "thing-light"))


class Steps:
    """Stands for the installers: keeps what was to be run; fails on request."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.commands: list[list[str]] = []
        self.failing = ""
        monkeypatch.setattr(installation, "run_step", self.run)

    def run(self, command: Sequence[str], *, cwd: Path | None = None) -> None:
        self.commands.append(list(command))
        if self.failing and self.failing in command:
            raise NotInstalled("no route to the index")
        if command[0] == "apt-get" and cwd is not None:
            (cwd / f"{command[-1]}.deb").touch()
        if command[0] == "dpkg" and "thing-light" in command[2]:
            program = Path(command[3]) / "usr/sbin/thing"
            program.parent.mkdir(parents=True)
            program.touch()


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


def a_gateway(source: Source) -> Gateway:
    return Gateway("thing", source, ("first",), lambda place, policy: Setup([]), "one")


def test_a_release_is_installed_once_and_pinned(tmp_path: Path, steps: Steps) -> None:
    """The second run finds what the first made."""
    gateway = a_gateway(PYTHON)
    first = install.install(gateway, tmp_path, lambda _: None)
    assert install.install(gateway, tmp_path, lambda _: None) == first
    assert len(steps.commands) == 2
    assert steps.commands[1][-1] == "thing[proxy]==1.2"


@pytest.mark.parametrize(("source", "failing"), [(PYTHON, "pip"), (NPM, "npm")])
def test_a_failed_installation_leaves_nothing(
    source: Source,
    failing: str,
    tmp_path: Path,
    steps: Steps,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half an installation would be taken for a whole one next time."""
    monkeypatch.setattr(shutil, "which", lambda name, path=None: f"/bin/{name}")
    steps.failing = failing
    with pytest.raises(NotInstalled, match="no route"):
        install.install(a_gateway(source), tmp_path, lambda _: None)
    assert not list((tmp_path / "peers").iterdir())


def test_npm_gets_the_release_and_what_is_pinned_below_it(
    tmp_path: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And runs no scripts of packages."""
    monkeypatch.setattr(shutil, "which", lambda name, path=None: f"/bin/{name}")
    home = install.install(a_gateway(NPM), tmp_path, lambda _: None)
    wanted = json.loads((home / "package.json").read_text())
    assert wanted["dependencies"] == {"@maker/thing": "3.4"}
    assert wanted["overrides"] == {"below": "5.6"}
    [command] = steps.commands
    assert "--ignore-scripts" in command


def test_without_node_that_is_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is in words that say what to do."""
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    with pytest.raises(NotInstalled, match=r"needs Node\.js"):
        install.install(a_gateway(NPM), tmp_path, lambda _: None)


def test_a_program_on_the_path_is_taken(
    tmp_path: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is fetched then."""
    monkeypatch.setattr(shutil, "which", lambda name, path=None: f"/sbin/{name}")
    home = install.install(a_gateway(DEBIAN), tmp_path, lambda _: None)
    assert (home / "usr/sbin/thing").readlink() == Path("/sbin/thing")
    assert not steps.commands


def test_a_package_is_unpacked_under_the_first_name_that_holds_the_program(
    tmp_path: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Distributions differ in which package has it."""
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None if name == "thing" else name)
    home = install.install(a_gateway(DEBIAN), tmp_path, lambda _: None)
    assert (home / "usr/sbin/thing").exists()
    fetched = [command[-1] for command in steps.commands if command[0] == "apt-get"]
    assert fetched == ["thing", "thing-light"]


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("Collecting x\nERROR: No matching distribution found for x==1\nhint: y", "ERROR: No m"),
        (
            "npm error code E404\nnpm error 404  'x@1' is not in this registry.\nnpm error\n"
            "npm error A complete log of this run can be found in: /somewhere",
            "npm error 404  'x@1'",
        ),
        (
            "npm error code ECONNREFUSED\nnpm error network This is about connectivity.\n"
            "npm error network In most cases you are behind a proxy or have bad settings.",
            "npm error network This",
        ),
        ("E: Unable to locate package thing", "E: Unable"),
        ("one\nlast", "last"),
        ("", ""),
    ],
)
def test_the_reason_is_the_line_that_says_most(output: str, reason: str) -> None:
    """Installers end with lines that help nobody."""
    assert installation.reason(output).startswith(reason)


def test_a_step_that_fails_says_why() -> None:
    """The last line of its output, or that it could not be run."""
    with pytest.raises(NotInstalled, match="no such file"):
        installation.run_step(["/bin/sh", "-c", "echo no such file >&2; exit 3"])
    with pytest.raises(NotInstalled, match="/nowhere/python"):
        installation.run_step(["/nowhere/python"])


def test_the_version_of_a_program_is_what_it_says(tmp_path: Path) -> None:
    """A distribution's version is not pinned, so it is asked for; one that does not run is told."""
    program = tmp_path / "usr/sbin/thing"
    program.parent.mkdir(parents=True)
    with pytest.raises(NotInstalled, match="thing"):
        install.found_version(a_gateway(DEBIAN), tmp_path)
    program.write_text("#!/bin/sh\necho thing version: thing/1.22.1 >&2\n")
    program.chmod(0o755)
    assert install.found_version(a_gateway(DEBIAN), tmp_path) == "1.22.1"
