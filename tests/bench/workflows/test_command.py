"""`bench engine`: what is refused, where graphon comes from, what stands in for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.installation import NotInstalled
from bench.workflows import graphon
from bench.workflows.cases import CASES
from bench.workflows.command import _plan, _recorded, engine
from bench.workflows.session import Results


def test_a_case_that_is_not_there_is_refused() -> None:
    """With those that are."""
    result = CliRunner().invoke(engine, ["--cases", "chain-11"])
    assert result.exit_code == 2
    assert "no case 'chain-11'; there are start-end" in result.output


def test_quick_is_less_of_everything() -> None:
    """It keeps to the cases that were asked for."""
    quick, whole = _plan(tuple(CASES), 5, 1.0, True), _plan(tuple(CASES), 5, 1.0, False)
    assert (quick.repeat, whole.repeat) == (2, 5)
    assert quick.seconds < whole.seconds
    assert set(quick.cases) < set(whole.cases)
    assert _plan(("chain-50",), 5, 1.0, True).cases == ("chain-50",)


def test_recorded_figures_stand_in_for_graphon() -> None:
    """For every case that was measured so, above zero, with a word on where they are from."""
    notes: list[str] = []
    results = Results()
    found = _recorded(results, _plan(tuple(CASES), 1, 1.0, False), notes)
    assert set(found) == set(graphon.RECORDED) <= set(CASES)
    assert not [name for name in found if CASES[name].model_s is not None]
    assert all(value > 0 for value in found.values())
    assert graphon.RECORDED_WITH
    assert results.notes == notes


def test_a_python_that_is_too_old_is_refused(tmp_path: Path) -> None:
    """Before anything is installed."""
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    with pytest.raises(NotInstalled, match=r"no Python 3\.12"):
        graphon.interpreter(old, tmp_path, lambda text: None)


def test_a_python_that_has_graphon_is_used_as_it_is(tmp_path: Path) -> None:
    """Nothing is installed then."""
    ready = tmp_path / "python"
    ready.write_text("#!/bin/sh\nexit 0\n")
    ready.chmod(0o755)
    assert graphon.interpreter(ready, tmp_path, lambda text: None) == ready


def test_without_any_python_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the option that helps."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "version_info", (3, 11, 0))
    with pytest.raises(NotInstalled, match="--graphon-python"):
        graphon.interpreter(None, tmp_path, lambda text: None)
