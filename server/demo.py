"""`triolet replica`: the demo replica as a server of its own."""

from __future__ import annotations

import signal
from typing import Any

import trio

from balancer.wire.poller import open_poller
from bench.replica import ReplicaSettings, create_app
from server.edge.accept import bind
from server.edge.http1 import Http1Server

__all__ = ["run_replica"]


def run_replica(host: str, port: int, **settings: Any) -> None:
    """Serve one demo replica until SIGINT or SIGTERM.

    Raises OSError if it cannot listen there, ValueError for a setting out of range.
    """
    trio.run(_serve, host, port, ReplicaSettings(**settings))


async def _serve(host: str, port: int, settings: ReplicaSettings) -> None:
    listener = bind(host, port)
    poller = open_poller()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(poller.run)
            await nursery.start(Http1Server(create_app(settings), poller).serve, [listener])
            address = listener.getsockname()
            print(
                f"demo replica {settings.name} (a simulation) serves model {settings.model} on "
                f"http://{address[0]}:{address[1]}",
                flush=True,
            )
            async for _ in signals:
                nursery.cancel_scope.cancel("told to stop")
                break
