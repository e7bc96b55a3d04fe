"""`scripts/bench clients`: what is asked for in vain is told before anything starts."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from bench.clients.command import clients


def test_results_are_not_kept_beside_old_ones(tmp_path: Path) -> None:
    """An old result file would be taken for that of a client that wrote none."""
    (tmp_path / "locust-1").mkdir()
    done = CliRunner().invoke(clients, ["--keep", str(tmp_path)])
    assert done.exit_code == 2
    assert "is not empty" in done.output
