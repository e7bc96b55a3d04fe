"""The routers that the relay's cost is compared with: those whose only work is to pass bytes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.installation import NotInstalled
from bench.peers import registry
from bench.peers.gateway import Gateway, Place
from bench.peers.install import install
from bench.relay.answers import MODEL

__all__ = ["PEERS", "NotInstalled", "install", "peer_command"]

PEERS: Final = {name: registry.PEERS[name] for name in ("vllm-router", "sglang-router")}
_POLICY: Final = "round_robin"


def peer_command(
    peer: Gateway, environment: Path, *, port: int, metrics_port: int, replicas: Sequence[str]
) -> list[str]:
    """The command line of a router in front of these replica URLs, all at the same policy."""
    place = Place(environment, environment, port, metrics_port, tuple(replicas), MODEL)
    return peer.setup(place, _POLICY).command
