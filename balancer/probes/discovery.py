"""Engines on this machine: asks the usual ports of loopback what they serve."""

from __future__ import annotations

from typing import Final, NamedTuple

import trio

from balancer.probes.models import ListedModel, read_models
from balancer.wire.connect import Dialer, Origin
from balancer.wire.fetch import FetchFailed, fetch

__all__ = ["USUAL_PORTS", "Found", "discover"]

USUAL_PORTS: Final[dict[str, int]] = {
    "vLLM": 8000,
    "SGLang": 30000,
    "llama.cpp": 8080,
    "Ollama": 11434,
    "LM Studio": 1234,
    "TGI": 3000,
}


class Found(NamedTuple):
    """An engine that answered with a model list."""

    engine: str
    url: str
    models: tuple[ListedModel, ...]


async def discover(
    dialer: Dialer, *, limit_s: float = 0.5, ports: dict[str, int] | None = None
) -> list[Found]:
    """The engines found on 127.0.0.1, in the order of `ports`; takes at most `limit_s`.

    Whoever answers on such a port with anything but a model list is left alone.
    """
    asked = USUAL_PORTS if ports is None else ports
    found: dict[str, Found] = {}

    async def ask(engine: str, port: int) -> None:
        origin = Origin("http", "127.0.0.1", port)
        try:
            status, body = await fetch(dialer, origin, "/v1/models", limit_s=limit_s)
        except FetchFailed:
            return
        models = read_models(body) if status == 200 else None
        if models:
            found[engine] = Found(engine, str(origin), models)

    async with trio.open_nursery() as nursery:
        for engine, port in asked.items():
            nursery.start_soon(ask, engine, port)
    return [found[engine] for engine in asked if engine in found]
