"""Installations, with the steps that would need a network taken down instead of taken."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench import installation
from bench.clients.install import Tool, install
from bench.clients.perf_analyzer import add_engine, engine_environment
from bench.installation import NotInstalled, run_step

TOOL = Tool("aiperf", "1.0", more=("torch==2",))


class Steps:
    """Takes the place of `run_step`; `fails` are the numbers of those that fail."""

    def __init__(self, *fails: int) -> None:
        self.taken: list[list[str]] = []
        self._fails = fails

    def __call__(self, command: Sequence[str], *, cwd: Path | None = None) -> None:
        self.taken.append(list(command))
        if "venv" in command:
            Path(command[-1]).mkdir(exist_ok=True)
        if len(self.taken) in self._fails:
            raise NotInstalled("ERROR: no such version")


def installed(tool: Tool, cache: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install with these steps."""
    monkeypatch.setattr(installation, "run_step", steps)
    return install(tool, cache, lambda text: None)


def test_pinned_version_goes_into_its_own_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One environment a version, with exactly what is pinned."""
    steps = Steps()
    home = installed(TOOL, tmp_path, steps, monkeypatch)
    assert home == tmp_path / "clients" / "aiperf-1.0"
    assert steps.taken[1][-2:] == ["aiperf==1.0", "torch==2"]
    assert TOOL.program(home) == home / "bin" / "aiperf"


def test_second_use_installs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there is used as it is."""
    installed(TOOL, tmp_path, Steps(), monkeypatch)
    again = Steps()
    installed(TOOL, tmp_path, again, monkeypatch)
    assert again.taken == []


def test_failure_leaves_nothing_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next use begins anew."""
    with pytest.raises(NotInstalled, match="no such version"):
        installed(TOOL, tmp_path, Steps(2), monkeypatch)
    assert not (tmp_path / "clients" / "aiperf-1.0").exists()
    assert installed(TOOL, tmp_path, Steps(), monkeypatch).exists()


def test_failing_finish_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool without its engine is not installed."""

    def finish(home: Path) -> None:
        raise NotInstalled("no engine")

    monkeypatch.setattr(installation, "run_step", Steps())
    with pytest.raises(NotInstalled, match="no engine"):
        install(TOOL, tmp_path, lambda text: None, finish)
    assert not (tmp_path / "clients" / "aiperf-1.0").exists()


def test_what_an_index_may_lack_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The small build first; the usual one only where that cannot be had."""
    tool = TOOL._replace(more=("part==1+small",), instead=("part==1",))
    steps = Steps(2)
    installed(tool, tmp_path, steps, monkeypatch)
    assert steps.taken[1][-1] == "part==1+small"
    assert steps.taken[2] == [*steps.taken[1][:-1], "part==1"]


def test_step_tells_the_last_error() -> None:
    """Of all that an installer prints, the error is reported."""
    script = "import sys; print('ERROR: no wheel\\nnotice: upgrade', file=sys.stderr); sys.exit(1)"
    with pytest.raises(NotInstalled, match=r"^ERROR: no wheel$"):
        run_step([sys.executable, "-c", script])
    with pytest.raises(NotInstalled, match="no-such-program"):
        run_step(["no-such-program"])


def test_engine_is_refused_where_it_cannot_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GenAI-Perf without its engine is reported as missing, before anything is fetched."""
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(NotInstalled, match="x86-64"):
        add_engine(tmp_path)


def test_engine_is_found_before_all_else(tmp_path: Path) -> None:
    """Its program first on the path, its libraries where the loader looks."""
    runtime = tmp_path / "lib" / "python3.11" / "site-packages" / "nvidia" / "cuda_runtime" / "lib"
    runtime.mkdir(parents=True)
    given = engine_environment(tmp_path)
    assert given["PATH"].startswith(f"{tmp_path / 'bin'}{os.pathsep}")
    libraries = given["LD_LIBRARY_PATH"].split(os.pathsep)
    assert libraries == [str(tmp_path / "lib" / "engine"), str(runtime)]
