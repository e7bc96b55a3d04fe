"""One model server, its state, and its load as seen from here."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

import trio

from balancer.load import Charge, Load
from balancer.policies import NO_BOOKS, UNKNOWN, Ask, Books, Outcome
from balancer.readings import Gauges, GpuReading
from balancer.speed import Speed
from balancer.wire.connect import Dialer, Origin
from balancer.wire.http1 import ConnectionPool

__all__ = ["UNBOUNDED", "Lease", "Replica", "ReplicaState", "ReplicaStatistics"]

# After a failed connection a replica rests; twice as long each time, as nobody answers there.
_REST_S = 0.25
_REST_MAX_S = 5.0

UNBOUNDED: Final = sys.maxsize
"""The `room` of a replica without a limit."""

ReplicaState = Literal["up", "down", "resting", "draining", "faulty"]


class ReplicaStatistics(NamedTuple):
    """A snapshot of one replica."""

    name: str
    up: bool
    in_flight: int
    idle_connections: int
    requests: int
    failures: int


class Replica:
    """One model server behind a URL; shared by every pool that lists that URL.

    `headers` (names in lower case) go with each request to it, instead of the client's of the
    same name: its own key, say.
    """

    def __init__(
        self,
        url: str | Origin,
        dialer: Dialer,
        *,
        max_in_flight: int | None = None,
        headers: Mapping[bytes, bytes] | None = None,
    ) -> None:
        self.origin = Origin.parse(url) if isinstance(url, str) else url
        self.name = str(self.origin)
        self.headers: Mapping[bytes, bytes] = headers or {}
        self.connections = ConnectionPool(self.origin, dialer)
        self.load = Load()
        self.speed = Speed()
        self.gauges: Gauges | None = None
        self.requests = 0
        self.failures = 0
        self.on_room: list[Callable[[], None]] = []
        """Called whenever a lease ends or the replica comes up: somebody may be waiting."""
        self.on_change: list[Callable[[], None]] = []
        """Called whenever `available` or `room` may have changed other than by time passing."""
        self.rest_until = 0.0
        """When it is worth trying again after a failed connection (`trio.current_time`)."""
        self.draining = False
        """Whether it takes no new work; see `drain`."""
        self._max_in_flight = max_in_flight
        self._gpu: GpuReading | None = None
        self._probed_up: bool | None = None
        self._refusals = 0

    def up(self, now: float) -> bool:
        """Whether it is worth trying: not found down by a probe, not resting after a failure."""
        return self._probed_up is not False and now >= self.rest_until

    def available(self, now: float) -> bool:
        """Whether it may get new work, if it has room: up, not draining, its GPUs sound."""
        faulty = self._gpu is not None and self._gpu.fault is not None
        return self.up(now) and not self.draining and not faulty

    def changes_at(self, now: float) -> float:
        """The next time at which `available` or `room` may change with nobody doing anything."""
        return self.rest_until if self.rest_until > now else math.inf

    def state(self, now: float) -> ReplicaState:
        """In one word, for people."""
        if self.draining:
            return "draining"
        if self._probed_up is False:
            return "down"
        if now < self.rest_until:
            return "resting"
        return "up" if self.available(now) else "faulty"

    @property
    def max_in_flight(self) -> int | None:
        """Requests that it may work on at once, as configured; None is no limit."""
        return self._max_in_flight

    @max_in_flight.setter
    def max_in_flight(self, most: int | None) -> None:
        grew = most is None or (self._max_in_flight is not None and most > self._max_in_flight)
        self._max_in_flight = most
        self._changed()
        if grew:
            self._tell_room()

    @property
    def room(self) -> int:
        """The most requests it may have in flight now; `UNBOUNDED` if nothing limits it."""
        return UNBOUNDED if self._max_in_flight is None else self._max_in_flight

    @property
    def has_room(self) -> bool:
        return self.load.requests < self.room

    @property
    def gpu(self) -> GpuReading | None:
        """What its GPUs last said; None if nobody knows them."""
        return self._gpu

    @gpu.setter
    def gpu(self, reading: GpuReading | None) -> None:
        was_faulty = self._gpu is not None and self._gpu.fault is not None
        self._gpu = reading
        if was_faulty != (reading is not None and reading.fault is not None):
            self._changed()
            self._tell_room()

    @property
    def probed_up(self) -> bool | None:
        """What the last health probe found; None before the first."""
        return self._probed_up

    def probed(self, up: bool) -> None:
        """Record what a health probe found."""
        came_up = up and not self._probed_up
        if up is not self._probed_up:
            self._probed_up = up
            self._changed()
        if up:
            self.reached()
        if came_up:
            self._tell_room()

    def reached(self) -> None:
        """A connection was made or an answer came."""
        if self._refusals:
            self._refusals = 0
            self.rest_until = 0.0
            self._changed()

    def unreachable(self, now: float) -> None:
        """A connection could not be made: let it rest, longer each time, 5 s at most."""
        self.rest_until = now + min(_REST_MAX_S, _REST_S * 2.0**self._refusals)
        self._refusals = min(self._refusals + 1, 10)
        self._changed()

    def drain(self, draining: bool = True) -> None:
        """Give it no new work from now on (or again); what is in flight goes on."""
        self.draining = draining
        self._changed()
        if not draining:
            self._tell_room()

    @property
    def in_flight(self) -> int:
        """Requests leased and not yet settled."""
        return self.load.requests

    def lease(
        self,
        books: Books = NO_BOOKS,
        ask: Ask = UNKNOWN,
        *,
        uncached_tokens: int = 1,
        blocks: Sequence[int] = (),
    ) -> Lease:
        """Take one place on this replica, now. The caller has checked `has_room`.

        `books` are told what becomes of the request. Of its prompt, which has `blocks`, the replica
        is expected to read `uncached_tokens`.
        """
        now = trio.current_time()
        self.requests += 1
        charge = self.load.open(uncached_tokens, blocks, now)
        self.speed.reading(True, now)
        books.leased(self, ask)
        return Lease(self, books, ask, charge)

    def _answered(self, charge: Charge) -> None:
        now = trio.current_time()
        self.load.read(charge)
        self.speed.read(charge.uncached_tokens, now)
        self.speed.reading(self.load.waiting > 0, now)

    def _released(self, charge: Charge) -> None:
        now = trio.current_time()
        self.load.close(charge, now)
        self.speed.reading(self.load.waiting > 0, now)

    def _changed(self) -> None:
        for tell in tuple(self.on_change):
            tell()

    def _tell_room(self) -> None:
        for tell in tuple(self.on_room):
            tell()
        # Of the pools that share this replica each comes first in turn, so that none starves.
        if len(self.on_room) > 1:
            self.on_room.append(self.on_room.pop(0))

    def close(self) -> None:
        """Close what is kept; leases still out finish undisturbed."""
        self.connections.close()

    def statistics(self, now: float) -> ReplicaStatistics:
        return ReplicaStatistics(
            self.name,
            self.up(now),
            self.in_flight,
            self.connections.idle,
            self.requests,
            self.failures,
        )


class Lease:
    """The right to use one replica until released: `with lease:`, or `release` (idempotent)."""

    __slots__ = ("_ask", "_books", "_charge", "_released", "outcome", "replica")

    def __init__(self, replica: Replica, books: Books, ask: Ask, charge: Charge) -> None:
        self.replica = replica
        self.outcome = Outcome()
        """What became of it; to be set before the release, if there is something to tell."""
        self._charge = charge
        self._books = books
        self._ask = ask
        self._released = False

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def answered(self) -> None:
        """The first event is here. Called at most once, before the release."""
        self.replica._answered(self._charge)
        self._books.answered(self.replica, self._ask)

    def release(self) -> None:
        if not self._released:
            self._released = True
            # Before the room is handed out: whoever takes it is placed by books that are true.
            self.replica._released(self._charge)
            self._books.released(self.replica, self._ask, self.outcome)
            self.replica._tell_room()
