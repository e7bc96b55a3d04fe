"""Every gateway that benchmarks compare, by name."""

from __future__ import annotations

from typing import Final

from bench.peers.gateway import Gateway
from bench.peers.litellm import LITELLM
from bench.peers.nginx import NGINX
from bench.peers.portkey import PORTKEY
from bench.peers.routers import SGLANG_ROUTER, VLLM_ROUTER

__all__ = ["PEERS"]

PEERS: Final[dict[str, Gateway]] = {
    gateway.name: gateway for gateway in (VLLM_ROUTER, SGLANG_ROUTER, LITELLM, PORTKEY, NGINX)
}
