"""The routers that the relay is compared with are started alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.relay.peers import PEERS, peer_command


@pytest.mark.parametrize("name", PEERS)
def test_routers_are_started_alike(name: str) -> None:
    """Same policy, quiet logs, loopback, the given replicas."""
    command = peer_command(
        PEERS[name], Path("/env"), port=7, metrics_port=8, replicas=["http://127.0.0.1:9"]
    )
    text = " ".join(command)
    assert "--host 127.0.0.1 --port 7" in text
    assert "--policy round_robin" in text
    assert "--log-level warn" in text
    assert text.endswith("--worker-urls http://127.0.0.1:9")
