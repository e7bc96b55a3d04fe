"""`triolet replica`: a simulated replica as a server of its own."""

from __future__ import annotations

import signal
import socket

import trio

from balancer.wire.poller import Poller, open_poller
from bench.replica import Replica, ReplicaSettings, create_app
from server.edge.accept import bind
from server.edge.connection import EdgeLimits
from server.edge.http1 import Http1Server

__all__ = ["run_replica"]

# As vLLM's server, it takes whatever comes; what runs and waits is the engine's business.
_LIMITS = EdgeLimits(connections=1_000_000)


def run_replica(host: str, port: int, settings: ReplicaSettings) -> None:
    """Serve one replica until SIGINT or SIGTERM.

    Raises OSError if it cannot listen there, at the start or after a crash.
    """
    failed: OSError | None = None
    try:
        trio.run(_run, host, port, create_app(settings))
    except* OSError as group:
        failed = _first(group)
    if failed is not None:
        raise failed


async def _run(host: str, port: int, app: Replica) -> None:
    listener = bind(host, port)
    address = listener.getsockname()[:2]  # a crash right after the start closes the listener
    poller = open_poller()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(poller.run)
            await nursery.start(serve_through_crashes, app, poller, listener)
            print(_ready_line(app.settings, address), flush=True)
            async for _ in signals:
                nursery.cancel_scope.cancel("told to stop")
                break


async def serve_through_crashes(
    app: Replica,
    poller: Poller,
    listener: socket.socket,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` on `listener`, which it owns, until cancelled.

    When the engine crashes all connections are cut, and new ones are refused until it is up again.
    """
    host, port = listener.getsockname()[:2]
    while True:
        server = Http1Server(app, poller, _LIMITS)
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve, [listener])
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            down_s = await app.until_crash()
            server.stop_accepting()
            server.abort()
        await trio.sleep(down_s)
        listener = bind(host, port)


def _first(group: BaseExceptionGroup[OSError]) -> OSError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _ready_line(settings: ReplicaSettings, address: tuple[str, int]) -> str:
    kind = "demo replica" if settings.profile is None else f"replica ({settings.profile.name})"
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return (
        f"{kind} {settings.name} (a simulation) serves model {settings.model} on "
        f"http://{host}:{address[1]}"
    )
