"""Routers are installed once, or not at all; and both are started alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.relay import peers
from bench.relay.peers import PEERS, PeerMissing


def test_a_router_is_installed_once_and_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run finds what the first made."""
    commands: list[list[str]] = []

    def run(command: list[str]) -> None:
        commands.append(command)
        if "venv" in command:
            Path(command[-1]).mkdir()

    monkeypatch.setattr(peers, "_run", run)
    peer = PEERS["vllm-router"]
    first = peers.install(peer, tmp_path, lambda _: None)
    assert peers.install(peer, tmp_path, lambda _: None) == first
    assert len(commands) == 2
    assert commands[1][-1] == f"vllm-router=={peer.version}"


def test_a_failed_installation_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half an environment would be taken for a whole one next time."""

    def run(command: list[str]) -> None:
        if "venv" not in command:
            raise PeerMissing("no route to the index")
        (Path(command[-1]) / "bin").mkdir(parents=True)

    monkeypatch.setattr(peers, "_run", run)
    with pytest.raises(PeerMissing, match="no route"):
        peers.install(PEERS["sglang-router"], tmp_path, lambda _: None)
    assert not list((tmp_path / "peers").iterdir())


def test_a_step_that_fails_says_why() -> None:
    """The last line of its output, or that it could not be run."""
    with pytest.raises(PeerMissing, match="no such file"):
        peers._run(["/bin/sh", "-c", "echo no such file >&2; exit 3"])
    with pytest.raises(PeerMissing, match="/nowhere/python"):
        peers._run(["/nowhere/python"])


@pytest.mark.parametrize("name", PEERS)
def test_routers_are_started_alike(name: str) -> None:
    """Same policy, quiet logs, loopback, the given replicas."""
    command = peers.peer_command(
        PEERS[name], Path("/env"), port=7, metrics_port=8, replicas=["http://127.0.0.1:9"]
    )
    text = " ".join(command)
    assert "--host 127.0.0.1 --port 7" in text
    assert "--policy round_robin" in text
    assert "--log-level warn" in text
    assert text.endswith("--worker-urls http://127.0.0.1:9")
