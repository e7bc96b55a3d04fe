"""One model server, its state, and its load as seen from here."""

from __future__ import annotations

import errno
import math
import random
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Final, Literal, NamedTuple, Protocol

from balancer.breaker import Breaker, BreakerSettings, Pause
from balancer.errors import BalancerError, ConnectFailed, ReplicaRefused
from balancer.faults import Fault, fault_of, retry_after_s
from balancer.load import Charge, Load
from balancer.outliers import Fitness
from balancer.policies import BLOCK_TOKENS, Outcome
from balancer.presence import Presence
from balancer.ramp import Ramp, RampSettings
from balancer.readings import Gauges, GpuReading
from balancer.speed import Speed
from balancer.wire.connect import Dialer, Origin
from balancer.wire.http1 import ConnectionPool

__all__ = [
    "FRESH_S",
    "UNBOUNDED",
    "Listener",
    "Replica",
    "ReplicaSettings",
    "ReplicaState",
    "ReplicaStatistics",
]

UNBOUNDED: Final = sys.maxsize
"""The `room` of a replica without a limit."""

FRESH_S: Final = 6.0
"""Three readings of an engine's gauges."""

ReplicaState = Literal["up", "down", "resting", "trial", "paused", "draining", "faulty"]


class ReplicaSettings(NamedTuple):
    """How a replica is judged by the requests it had; the same for every pool that lists it."""

    breaker: BreakerSettings = BreakerSettings()
    ramp: RampSettings = RampSettings()


class ReplicaStatistics(NamedTuple):
    """A snapshot of one replica. Counts are since its start."""

    name: str
    state: ReplicaState
    up: bool
    in_flight: int
    unread: int
    """Those of them without a first event."""
    unread_tokens: int
    """Prompt tokens that those have it read."""
    idle_connections: int
    requests: int
    failures: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int


class Reclaimable(Protocol):
    """A lease."""

    def reclaim(self, reason: Literal["put_back", "replica_lost"]) -> bool: ...


class Listener(Protocol):
    """Is told what happens to a replica, synchronously."""

    def on_room(self) -> None:
        """A request is over, or the replica came up: somebody may be waiting for that."""

    def on_change(self) -> None:
        """`refresh` may find something else than before, and not just because time passed. Worse
        for one replica may be room on another: when none is well, all are used."""

    def on_restart(self, replica: str) -> None:
        """It was started again: what it had in its cache is gone."""

    def on_models(self, replica: str, before: Set[str], after: Set[str]) -> None:
        """It lists other models than it did."""

    def on_capacity(self, replica: str, tokens: int) -> None:
        """Its KV cache holds so many tokens, as it says now."""


class Replica:
    """One model server behind a URL; shared by every pool that lists that URL.

    `headers` (names in lower case) go with each request to it, instead of the client's of the
    same name: its own key, say. `chance` gives numbers from 0 to 1, for the jitter of its rests.
    """

    def __init__(
        self,
        url: str | Origin,
        dialer: Dialer,
        *,
        max_in_flight: int | None = None,
        headers: Mapping[bytes, bytes] | None = None,
        settings: ReplicaSettings = ReplicaSettings(),  # noqa: B008 - immutable
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.origin = Origin.parse(url) if isinstance(url, str) else url
        self.name = str(self.origin)
        self.headers: Mapping[bytes, bytes] = headers or {}
        self.connections = ConnectionPool(self.origin, dialer)
        self.load = Load()
        self.speed = Speed()
        self.breaker = Breaker(settings.breaker, chance)
        self.pause = Pause(chance)
        self.ramp = Ramp(settings.ramp)
        self.foreign_share = 0.0
        """Share of its GPUs' time that is not ours, 0 to 0.8; set by `balancer.foreign`."""
        self.foreign_requests = 0.0
        """Requests in its engine that did not come from here; set by `balancer.foreign`."""
        self.models: frozenset[str] = frozenset()
        """What it last listed as its models; empty if it never did."""
        self.context_tokens: Mapping[str, int] = {}
        """Tokens of a prompt and its answer, by model, as far as it says."""
        self.requests = 0
        self.failures = 0
        self.prompt_tokens = self.cached_tokens = self.output_tokens = 0
        """As it reported them, of all requests."""
        self.room = UNBOUNDED
        """The most requests it may have in flight; as of the last `refresh`."""
        self.full_room = UNBOUNDED
        """The same if slow start does not count."""
        self.draining = False
        """Whether it takes no new work; see `drain`."""
        self.keeps_runs = False
        """Whether, while it drains, it still takes the next call of a run that it has."""

        self.listeners: list[Listener] = []
        """The pools that list it, mostly."""
        self.unanswered: dict[Reclaimable, None] = {}
        """Leases of which nothing was heard yet, of any pool."""

        self._max_in_flight = max_in_flight
        self._gauges: Gauges | None = None
        self._gpu: GpuReading | None = None
        self._probed_up: bool | None = None
        self._presence = Presence()

    # State

    def up(self, now: float) -> bool:
        """Whether it is worth trying: not found down by a probe, not resting after failures."""
        return self._probed_up is not False and self.breaker.state(now) != "open"

    def refresh(self, now: float) -> Fitness:
        """How well it may be used now, and in `room` and `full_room` how far."""
        limit, cap = self._max_in_flight, self.ramp.cap
        full = UNBOUNDED if limit is None else limit
        if now < self.pause.until:
            full = 0
        self.full_room = full
        self.room = full if cap is None or full < cap else cap
        admits = self.breaker.admits(now)  # what is open becomes half open by being looked at
        if self._probed_up is False or self._faulty or self.breaker.unreachable:
            return Fitness.DEAD
        return Fitness.FIT if admits else Fitness.DOUBTFUL

    @property
    def _faulty(self) -> bool:
        return self._gpu is not None and self._gpu.fault is not None

    def changes_at(self, now: float) -> float:
        """The next time at which `refresh` may find something else with nobody doing anything."""
        at = math.inf
        if now < self.breaker.rest_until:
            at = self.breaker.rest_until
        if now < self.pause.until < at:
            at = self.pause.until
        return at

    def state(self, now: float) -> ReplicaState:
        """In one word, for people."""
        if self.draining:
            return "draining"
        if self._probed_up is False:
            return "down"
        if self._faulty:
            return "faulty"
        judged = self.breaker.state(now)
        if judged != "closed":
            return "resting" if judged == "open" else "trial"
        return "paused" if now < self.pause.until else "up"

    @property
    def on_trial(self) -> bool:
        """Whether it is tried out after failures."""
        return self.breaker.standing == "half_open"

    @property
    def max_in_flight(self) -> int | None:
        """Requests that it may work on at once, as configured; None is no limit."""
        return self._max_in_flight

    @max_in_flight.setter
    def max_in_flight(self, most: int | None) -> None:
        if most != self._max_in_flight:
            self._max_in_flight = most
            self._changed(room=True)

    def drain(self, draining: bool = True, *, runs: bool = True) -> None:
        """Give it no new work from now on (or again); what is in flight goes on. With `runs`, the
        next calls of runs that it has still go to it: their cache is there."""
        self.draining = draining
        self.keeps_runs = draining and runs
        self._changed(room=not draining)

    # What is heard of it

    @property
    def gauges(self) -> Gauges | None:
        """What its engine last said of itself; None if it never did."""
        return self._gauges

    @gauges.setter
    def gauges(self, gauges: Gauges | None) -> None:
        known = self._gauges.kv_tokens if self._gauges is not None else None
        self._gauges = gauges
        if gauges is not None and gauges.kv_tokens is not None and gauges.kv_tokens != known:
            for listener in tuple(self.listeners):
                listener.on_capacity(self.name, gauges.kv_tokens)
        self.tell_room()  # its cache may be less full: a tier bound by that may go on

    @property
    def stale_at(self) -> float:
        """Until when what its engine said last is believed."""
        return -math.inf if self._gauges is None else self._gauges.at + FRESH_S

    def kv_share(self, now: float) -> float | None:
        """How much of its KV cache is in use, 0 to 1 and more: as it said lately, or what our own
        requests take of it, whichever is more. None if nobody knows how large it is."""
        gauges = self._gauges
        if gauges is None:
            return None
        own = self.load.kv_blocks * BLOCK_TOKENS / gauges.kv_tokens if gauges.kv_tokens else None
        said = gauges.kv_share if now < self.stale_at else None
        return max((share for share in (own, said) if share is not None), default=None)

    @property
    def gpu(self) -> GpuReading | None:
        """What its GPUs last said; None if nobody knows them."""
        return self._gpu

    @gpu.setter
    def gpu(self, reading: GpuReading | None) -> None:
        was_faulty = self._faulty
        self._gpu = reading
        if was_faulty != self._faulty:
            self._changed(room=was_faulty)
            if self._faulty:
                self._lost()

    @property
    def probed_up(self) -> bool | None:
        """What the last health probe found; None before the first."""
        return self._probed_up

    def probed(self, up: bool, now: float, *, refused: bool = False, silent: bool = False) -> None:
        """Record what a health probe found. `refused`: nobody listens there. `silent`: no answer,
        which a replica that works may owe to its load; it is down when that is so three times in a
        row with no request answered meanwhile, or was never heard of."""
        was_up = self._probed_up
        if up:
            self._probed_up = True
            reached = self.breaker.reached(now)
            came_back = reached or was_up is False
            if came_back:
                self.ramp.restart(now)
            self.heard(now)
            if not was_up or came_back:
                self._changed(room=True)
            return
        lost = self._presence.missed(now, refused=refused)
        if was_up and silent and not self._presence.gone:
            return
        self._probed_up = False
        if was_up is not False:
            self._changed()
        if lost:
            self._lost()

    def heard(self, now: float) -> None:
        """It answered something."""
        if self._presence.heard(now):
            self.restarted()

    def restarted(self) -> None:
        """It was started again: nothing that its cache held is there any more."""
        for listener in tuple(self.listeners):
            listener.on_restart(self.name)

    def lists(self, models: Iterable[str] | Mapping[str, int | None]) -> None:
        """Record the models that it says it serves; perhaps with how many tokens each reads."""
        found = frozenset(models)
        if isinstance(models, Mapping):
            self.context_tokens = {name: most for name, most in models.items() if most}
        before, self.models = self.models, found
        if before and before != found:
            for listener in tuple(self.listeners):
                listener.on_models(self.name, before, found)

    # Requests; told by their leases

    @property
    def in_flight(self) -> int:
        """Requests leased and not yet settled."""
        return self.load.requests

    @property
    def has_room(self) -> bool:
        return self.load.requests < self.room

    def open(
        self, uncached_tokens: int, blocks: Sequence[int], now: float, *, streams: bool = True
    ) -> Charge:
        """A request goes there, of whose prompt it is expected to read so much. `streams`: its
        first event will tell when."""
        self.requests += 1
        if streams:
            self.speed.sent(now)
        return self.load.open(uncached_tokens, blocks, now, waits=streams)

    def answered(self, charge: Charge, era: int, now: float) -> None:
        """Its first event is here."""
        if charge.waiting:
            self.load.read(charge, now)
            self.speed.read(charge.uncached_tokens, self.load.waiting > 0, now)
        self._works(era, now)

    def failed(self, failure: BalancerError, era: int, now: float) -> bool:
        """It failed before its first event. Returns whether that is the replica's fault."""
        fault = fault_of(failure)
        if fault is Fault.UNAVAILABLE:
            self._fails(failure, era, now)
        elif fault is Fault.OVERLOADED:
            self.breaker.abandoned(era)
            self.pause.refused(now, _asked_to_wait_s(failure))
            self._changed()
        elif fault in (Fault.CALLER, Fault.CONTEXT):
            self._works(era, now)
        else:
            self.abandoned(era)
        return fault is Fault.UNAVAILABLE

    def cut(self, era: int, now: float) -> None:
        """It broke off after its first event."""
        self.failures += 1
        if self.breaker.cut(era, now):
            self._changed()

    def abandoned(self, era: int) -> None:
        """It was over before anything was heard of it, by nobody's fault."""
        self.breaker.abandoned(era)
        if self.breaker.standing != "closed":
            self._changed()  # a trial is over, so there may be another

    def closed(self, charge: Charge, outcome: Outcome, now: float) -> None:
        """It is over."""
        unread = charge.waiting
        if outcome.itl_s is not None:
            self.speed.wrote(self.load.company(charge, now), outcome.itl_s, now)
        self.load.close(charge, now)
        if unread:
            self.speed.gave_up(self.load.waiting > 0, now)
        self.prompt_tokens += outcome.prompt_tokens or 0
        self.cached_tokens += outcome.cached_tokens or 0
        self.output_tokens += outcome.output_tokens or 0

    def _works(self, era: int, now: float) -> None:
        self.heard(now)
        self.pause.answered()
        changed = self.ramp.answered(now)
        if self.breaker.standing != "closed":
            if self.breaker.answered(era, now):
                self.ramp.restart(now)
            changed = True  # a trial is over, so there may be another
        else:
            self.breaker.answered(era, now)
        if changed:
            self._changed()

    def _fails(self, failure: BalancerError, era: int, now: float) -> None:
        self.failures += 1
        connecting = isinstance(failure, ConnectFailed)
        if connecting:
            self._presence.unreached(now, refused=_was_refused(failure))
        if self.breaker.failed(era, now, connecting=connecting):
            self._changed()

    # Telling

    def trial_began(self) -> None:
        """It has one more request that tries it out, so it may not take another."""
        self._changed()

    def _lost(self) -> None:
        """Nothing will come of what it was sent: that should be tried elsewhere."""
        for lease in tuple(self.unanswered):
            lease.reclaim("replica_lost")

    def _changed(self, *, room: bool = False) -> None:
        for listener in tuple(self.listeners):
            listener.on_change()
        if room:
            self.tell_room()

    def tell_room(self) -> None:
        """There may be room for somebody."""
        listeners = self.listeners
        if len(listeners) == 1:
            listeners[0].on_room()
            return
        for listener in tuple(listeners):
            before = self.load.requests
            listener.on_room()
            # Of the pools that share this replica the one that had of it comes last from then on,
            # so that none starves.
            if self.load.requests > before and listener in listeners:
                listeners.remove(listener)
                listeners.append(listener)

    def close(self) -> None:
        """Close what is kept; leases still out finish undisturbed."""
        self.connections.close()

    def statistics(self, now: float) -> ReplicaStatistics:
        return ReplicaStatistics(
            name=self.name,
            state=self.state(now),
            up=self.up(now),
            in_flight=self.load.requests,
            unread=self.load.waiting,
            unread_tokens=self.load.waiting_tokens,
            idle_connections=self.connections.idle,
            requests=self.requests,
            failures=self.failures,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            output_tokens=self.output_tokens,
        )


def _was_refused(failure: BalancerError) -> bool:
    cause = failure.__cause__
    return isinstance(cause, OSError) and cause.errno == errno.ECONNREFUSED


def _asked_to_wait_s(failure: BalancerError) -> float | None:
    if isinstance(failure, ReplicaRefused):
        return retry_after_s(failure.headers, wall_time_s=time.time())
    return None
