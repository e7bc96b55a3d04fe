"""A Triolet in this process, in front of the replicas of a test."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import trio

from balancer.wire.poller import open_poller
from bench.replica import ReplicaSettings, create_app
from server.config import Config, LimitsConfig, PoolConfig, ReplicaConfig, TimeoutConfig
from server.edge.accept import bind
from server.edge.http1 import Http1Server
from server.main import Triolet
from tests.e2e.sdk.replica import ScriptedReplica

__all__ = ["Relay", "demo_replica", "relaying", "until"]

_TEST_S: Final = 20.0

# The SDKs run in this process too, some in threads: what their client logs is not Triolet's.
for name in ("httpx", "httpx2"):
    logging.getLogger(name).setLevel(logging.WARNING)


async def until(is_so: Callable[[], object], within_s: float = 2.0) -> None:
    """Wait for what can only be asked; TooSlowError if it is not so in time."""
    with trio.fail_after(within_s):
        while True:
            if is_so():
                return
            await trio.sleep(0.001)


class Relay:
    """A Triolet that serves; `base_url` is what an SDK is given."""

    def __init__(self, triolet: Triolet, url: str, log: io.BytesIO) -> None:
        self.triolet = triolet
        self.url = url
        self.base_url = f"{url}/v1"
        self._log = log

    def exchanges(self) -> list[dict[str, Any]]:
        """The log lines of exchanges so far."""
        lines = [json.loads(line) for line in self._log.getvalue().splitlines()]
        return [line for line in lines if line["event"] == "exchange"]

    async def until_idle(self) -> None:
        """Wait until no call is in flight and no lease is out; fails after 2 s."""
        await until(lambda: not self._busy())

    def _busy(self) -> bool:
        leased = any(replica.in_flight for replica in self.triolet.catalog.replicas)
        return leased or self.triolet.relay.in_flight > 0


@asynccontextmanager
async def relaying(
    *replicas: ScriptedReplica | str,
    model: str = "scripted",
    max_in_flight: int | None = None,
    limits: LimitsConfig | None = None,
    **pool: Any,
) -> AsyncIterator[Relay]:
    """One pool of `replicas` (scripted ones are started, others are given by URL)."""
    log = io.BytesIO()
    with trio.fail_after(_TEST_S):
        async with trio.open_nursery() as nursery:
            urls = [
                await nursery.start(replica.serve)
                if isinstance(replica, ScriptedReplica)
                else replica
                for replica in replicas
            ]
            members = tuple(ReplicaConfig(url=url, max_in_flight=max_in_flight) for url in urls)
            options = {"timeouts": TimeoutConfig(first_byte_s=10, idle_s=10, total_s=15), **pool}
            config = Config(
                listen=("http://127.0.0.1:0",),
                pool=(PoolConfig(model=model, replicas=members, **options),),
                limits=limits or LimitsConfig(),
                log_format="json",
            )
            triolet = Triolet(config, log_stream=log)
            [url] = await nursery.start(partial(triolet.run, out=io.StringIO()))
            yield Relay(triolet, url, log)
            nursery.cancel_scope.cancel("the test is over")


@asynccontextmanager
async def demo_replica(**settings: Any) -> AsyncIterator[str]:
    """The demo replica, as fast as it can; its URL."""
    poller = open_poller()
    options = {"ttft_s": 0.0, "tokens_per_s": float("inf"), **settings}
    listener = bind("127.0.0.1", 0)
    app = create_app(ReplicaSettings(**options))
    async with trio.open_nursery() as nursery:
        await nursery.start(poller.run)
        await nursery.start(Http1Server(app, poller).serve, [listener])
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        nursery.cancel_scope.cancel("the test is over")
