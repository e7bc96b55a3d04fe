"""Probes beside the load: does a health or admin path still answer while models are busy?

They come at a steady rate whatever happens to those before them, on connections of their own, so
that neither the load's connections nor a slow probe can delay them.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Final
from urllib.parse import urlsplit

import trio

from balancer.errors import AnswerInvalid, AnswerLost, ConnectFailed
from balancer.wire.connect import Dialer, Origin
from balancer.wire.http1 import Connection, ConnectionPool, request_head
from bench.load.plan import Plan
from bench.load.record import Probe
from bench.load.timer import Timer

__all__ = ["Prober"]

_TIMEOUT_S: Final = 10.0
_LAST_S: Final = 1.0
_MAX_IN_FLIGHT: Final = 256


class Prober:
    """Sends one plan's probes. `now` gives the seconds since the run's start."""

    def __init__(self, plan: Plan, dialer: Dialer, now: Callable[[], float]) -> None:
        self._now = now
        self._rate = plan.probe_rate or 1.0
        origin, self.path, target = _place(plan)
        self._connect_s = min(plan.connect_timeout_s, _TIMEOUT_S)
        self._connections = ConnectionPool(origin, dialer, keep=_MAX_IN_FLIGHT)
        lines = [b"host: " + origin.authority.encode(), b"accept: */*"]
        lines += (f"{name}: {value}".encode() for name, value in plan.headers)
        self._request = request_head("GET", target, lines)
        self._in_flight = 0
        self.skipped = 0
        """Probes not sent because 256 were in flight: the path answered none of them in time."""

    async def run(self, probes: list[Probe], timer: Timer, sending: trio.CancelScope) -> None:
        """Probe and add to `probes` until `sending` is cancelled; then a second is given to those
        in flight."""
        async with trio.open_nursery() as nursery:
            with sending:
                await self._send(probes, timer, nursery)
            nursery.cancel_scope.deadline = trio.current_time() + _LAST_S

    async def _send(self, probes: list[Probe], timer: Timer, nursery: trio.Nursery) -> None:
        begin, origin = trio.current_time(), trio.current_time() - self._now()
        for number in count():
            due = begin + number / self._rate
            await timer.until(due)
            if self._in_flight >= _MAX_IN_FLIGHT:
                self.skipped += 1
                continue
            probe = Probe(path=self.path, scheduled_s=due - origin, sent_s=self._now())
            probes.append(probe)
            nursery.start_soon(self._probe, probe)

    def close(self) -> None:
        """Close the kept connections."""
        self._connections.close()

    async def _probe(self, probe: Probe) -> None:
        self._in_flight += 1
        try:
            with trio.move_on_after(_TIMEOUT_S) as scope:
                await self._ask(probe)
            if scope.cancelled_caught:
                probe.error = "timeout"
        finally:
            self._in_flight -= 1
            if probe.error is None and probe.ended_s is None:
                probe.error = "unfinished"

    async def _ask(self, probe: Probe) -> None:
        try:
            connection = await self._connections.take(self._connect_s)
        except ConnectFailed:
            probe.error = "connect"
            return
        try:
            probe.status = await self._get(connection)
            probe.ended_s = self._now()
            if probe.status >= 400:
                probe.error = f"http_{probe.status}"
        except AnswerLost:
            probe.error = "reset"
        except AnswerInvalid:
            probe.error = "invalid"
        finally:
            self._connections.give_back(connection)

    async def _get(self, connection: Connection) -> int:
        await connection.send(self._request)
        head = await connection.head()
        while await connection.read():
            pass
        return head.status


def _place(plan: Plan) -> tuple[Origin, str, bytes]:
    """Where the probes go: origin, the path as reported, the request's target."""
    if plan.probe_path.startswith(("http://", "https://")):
        parts = urlsplit(plan.probe_path)
        origin = Origin.parse(f"{parts.scheme}://{parts.netloc}")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return origin, plan.probe_path, target.encode()
    origin = Origin.parse(plan.urls[0])
    path = plan.probe_path if plan.probe_path.startswith("/") else f"/{plan.probe_path}"
    return origin, path, (origin.base + path).encode()
