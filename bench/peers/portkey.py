"""Portkey's open gateway from npm: what it does is told by its clients, in a header."""

from __future__ import annotations

import json
from typing import Final

from bench.peers.gateway import Gateway, NpmPackage, Place, Setup

__all__ = ["PORTKEY"]


def _setup(place: Place, policy: str) -> Setup:
    script = place.home / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    config = {
        "strategy": {"mode": policy},
        "targets": [
            {"provider": "openai", "api_key": "none", "custom_host": f"{replica}/v1"}
            for replica in place.replicas
        ],
    }
    return Setup(
        # Headless: without the page that shows every request as it passes.
        ["node", str(script), f"--port={place.port}", "--headless"],
        environment={"NODE_ENV": "production"},
        headers=(("x-portkey-config", json.dumps(config, separators=(",", ":"))),),
    )


PORTKEY: Final = Gateway(
    name="portkey",
    # With @hono/node-server from 1.14 on, streams are answered with 500 ("TypeError: immutable",
    # issue 1389 of Portkey-AI/gateway); the release asks for any 1.x.
    source=NpmPackage("@portkey-ai/gateway", "1.15.2", (("@hono/node-server", "1.13.8"),)),
    policies=("loadbalance",),
    setup=_setup,
    workers="one process, one thread for JavaScript",
)
