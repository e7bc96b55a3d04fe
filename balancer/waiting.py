"""Those who wait in a pool's line, asleep, and how room that appears gets to them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import trio

from balancer.admission import Line, Standing, Ticket, Tier
from balancer.lease import Lease
from balancer.policies import Ask
from balancer.replica import Replica

__all__ = ["Waiter", "Waiting"]

_AT_ONCE: Final = 16
"""Places handed out in one go: with a thousand replicas each takes 0.2 ms of the loop."""


class Waiter(Ticket):
    """A request that waits in line, and the lease it was given."""

    __slots__ = ("ask", "failure", "lease", "served", "tried")

    def __init__(self, standing: Standing, tried: frozenset[Replica], ask: Ask) -> None:
        super().__init__(standing, tried)
        self.tried = tried
        self.ask = ask
        self.lease: Lease | None = None
        self.failure: Exception | None = None
        """Why none could be chosen for it."""
        self.served = trio.Event()


class Waiting:
    """Wakes who is served, by whoever makes room, in the very step in which it appears.

    Room may also appear with nobody making it: a rest is over, or a replica's bad state makes that
    of others count less. Of those asleep one is the watcher: it looks again at `changes_at`, and
    when it is stirred. Were all to look, the end of one rest would cost a second with 10,000 of
    them. Who is no longer asleep hands the watch over.
    """

    def __init__(
        self,
        line: Line[Waiter, Lease],
        take: Callable[[Waiter, Tier, float], Lease | None],
        changes_at: Callable[[float], float],
    ) -> None:
        """`take` leases a replica within the limits of a tier, if one has room; `changes_at` says
        when, from a time on, room may appear by itself."""
        self._line = line
        self._take = take
        self._changes_at = changes_at
        self._naps: dict[trio.CancelScope, None] = {}  # the watcher's is the first
        self._look_at = math.inf

    def stir(self) -> None:
        """There may be room that nobody will tell of: look for it soon."""
        self._look_at = -math.inf
        self._watch()

    def hand_out(self) -> bool:
        """Give room to those who wait, in order; their places are charged before they run. Returns
        whether all is handed out: the rest follows soon, so that this one call does not last."""
        if not self._line.waiting:
            return True
        now = trio.current_time()
        done = self._line.hand_out(
            now, lambda waiter, limits: self._serve(waiter, limits, now), _AT_ONCE
        )
        if not done:
            self.stir()
        return done

    async def wait(self, waiter: Waiter) -> Lease:
        """For a place: it is in line already. Raises `PoolBusy` when it has waited too long."""
        try:
            while waiter.lease is None and trio.current_time() < waiter.until:
                if waiter.failure is not None:
                    raise waiter.failure
                await self._sleep(waiter)
        except BaseException:
            if waiter.lease is not None:  # cancelled first, served before it could leave
                waiter.lease.release()
            self._line.leave(waiter, trio.current_time())
            self.hand_out()
            raise
        if waiter.lease is None:
            raise self._line.late(waiter, trio.current_time())
        waiter.lease.on_reclaim = None
        return waiter.lease

    async def _sleep(self, waiter: Waiter) -> None:
        """Until it is served, its time has passed, or it has looked."""
        nap = trio.CancelScope(deadline=waiter.until)
        if not self._naps:  # nobody else waits, and it found no room in this very step
            self._look_at = self._changes_at(trio.current_time())
        self._naps[nap] = None
        self._watch()
        try:
            with nap:
                await waiter.served.wait()
            if next(iter(self._naps)) is nap:
                self._look()
        finally:
            del self._naps[nap]
            self._watch()

    def _look(self) -> None:
        now = trio.current_time()
        if now >= self._look_at:
            self._look_at = math.inf
            self.hand_out()
            self._look_at = min(self._look_at, self._changes_at(now))

    def _watch(self) -> None:
        """See to it that the watcher wakes in time."""
        for nap in self._naps:
            if nap.deadline > self._look_at:
                nap.deadline = self._look_at
            return

    def _serve(self, waiter: Waiter, limits: Tier, now: float) -> Lease | None:
        if waiter.failure is not None:  # it leaves as soon as it runs
            return None
        try:
            lease = self._take(waiter, limits, now)
        except Exception as exc:  # its own, not of the one whose end made room
            waiter.failure = exc
            waiter.served.set()
            return None
        if lease is not None:
            waiter.lease = lease
            lease.on_reclaim = lambda _: self._again(waiter)
            waiter.served.set()
        return lease

    def _again(self, waiter: Waiter) -> None:
        """Its lease was taken back before it could run."""
        waiter.lease = None
        waiter.served = trio.Event()
        self._line.enter(waiter, trio.current_time())
