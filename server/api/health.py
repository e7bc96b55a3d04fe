"""Whether Triolet lives, whether it can serve, and its metrics. They await no replica."""

from __future__ import annotations

from collections.abc import Callable

import trio

from balancer.catalog import Catalog
from server.api.respond import respond, respond_json
from server.edge.exchange import Receive, Scope, Send
from server.observe.metrics import CONTENT_TYPE, Metrics
from server.observe.record import Record

__all__ = ["HealthApi"]


class HealthApi:
    """`/healthz`, `/readyz` and `/metrics`."""

    def __init__(self, catalog: Catalog, metrics: Metrics, *, draining: Callable[[], bool]) -> None:
        self._catalog = catalog
        self._metrics = metrics
        self._draining = draining

    async def healthz(self, record: Record, scope: Scope, receive: Receive, send: Send) -> None:
        """200 as long as the process serves."""
        await respond_json(send, record, 200, {"status": "ok"})

    async def readyz(self, record: Record, scope: Scope, receive: Receive, send: Send) -> None:
        """200 if every pool has a replica that is up and the server is not shutting down."""
        now = trio.current_time()
        pools = {
            model: {
                "replicas": len(pool.replicas),
                "up": sum(r.probed_up is True and r.up(now) for r in pool.replicas),
            }
            for model, pool in self._catalog.pools.items()
        }
        draining = self._draining()
        ready = bool(pools) and all(pool["up"] for pool in pools.values()) and not draining
        answer = {"ready": ready, "draining": draining, "pools": pools}
        await respond_json(send, record, 200 if ready else 503, answer)

    async def metrics(self, record: Record, scope: Scope, receive: Receive, send: Send) -> None:
        """The Prometheus exposition text."""
        body = await self._metrics.render()
        await respond(send, record, 200, [(b"content-type", CONTENT_TYPE.encode())], body)
