"""`scripts/bench peers`: what is asked for in vain is told, in words or in the table."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import installation
from bench.installation import NotInstalled
from bench.peers.command import peers


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """The command takes SIGTERM."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_what_cannot_be_installed_is_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are measured; here there are none."""

    def fail(*args: object, **kwargs: object) -> None:
        raise NotInstalled("ERROR: no route to the index")

    monkeypatch.setattr(installation, "run_step", fail)
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: None)
    markdown, json = tmp_path / "docs" / "peers.md", tmp_path / "peers.json"
    options = ["--targets", "sglang-router,litellm:least-busy", "--cache-dir", str(tmp_path)]
    done = CliRunner().invoke(peers, [*options, "--markdown", str(markdown), "--json", str(json)])
    assert done.exit_code == 0, done.output
    for text in (done.output, markdown.read_text()):
        for name in ("sglang-router", "litellm"):
            [line] = [one for one in text.splitlines() if one.lstrip("| ").startswith(f"{name} ")]
            assert "not installed: ERROR: no route to the index" in line
    assert "no route" in json.read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--targets", "haproxy"], "no target 'haproxy'"),
        (["--targets", "nginx:best"], "no policy 'best'"),
        (["--gateway-cores", "9999"], "core 9999 is not there"),
        (["--workload", "poems"], "documents"),
    ],
)
def test_what_there_is_not_is_refused(options: list[str], message: str) -> None:
    """Before anything is installed or started."""
    done = CliRunner().invoke(peers, options)
    assert done.exit_code == 2
    assert message in done.output
