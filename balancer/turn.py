"""A request's turn at one pool: its tries there, one after the other, or two at once."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from balancer.admission import Standing
from balancer.attempt import Attempt
from balancer.errors import AttemptFailed, BalancerError, Overdue, ReplicaRefused
from balancer.faults import Fault
from balancer.lease import Lease
from balancer.policies import Ask
from balancer.pool import Pool
from balancer.race import Race
from balancer.replica import Replica
from balancer.request import Limits, Request
from balancer.retry import backoff_s, falls_back, is_move, may_retry
from balancer.trace import Trace

__all__ = ["Turn"]

_PAUSE_MOST_S: Final = 2.0
"""The longest that a try waits for a replica which asked for patience; the same as for one that
failed (`backoff_s`). Who is told to wait longer passes that on to its client."""


class Turn:
    """One request at one pool. `another` tells whether its chain has a pool after this one."""

    __slots__ = (
        "_another",
        "_ask",
        "_attempt",
        "_failed",
        "_limits",
        "_pause_s",
        "_request",
        "_requests",
        "_sent",
        "_trace",
        "_tried",
        "pool",
        "standing",
    )

    def __init__(
        self,
        pool: Pool,
        requests: Callable[[Pool], Awaitable[Request]],
        ask: Ask,
        standing: Standing,
        trace: Trace,
        *,
        total_s: float,
        total_at: float,
        another: bool,
    ) -> None:
        times = pool.timeouts
        self.pool = pool
        self.standing = standing
        self._limits = Limits(
            times.connect_s,
            times.first_byte_s,
            times.idle_s,
            pool.settings.hold_s,
            total_s,
            total_at,
        )
        self._requests = requests
        self._ask = ask
        self._trace = trace
        self._another = another
        self._request: Request | None = None
        self._attempt: Attempt | None = None
        self._tried: list[Replica] = []
        self._failed = 0
        self._sent: list[Replica] = []
        self._pause_s = 0.0

    def begin(self) -> None:
        """Count it in the pool's budgets."""
        now = trio.current_time()
        self.pool.budget.requested(now)
        if self.pool.hedge is not None:
            self.pool.hedge.requested(now)
        self._trace.model = self.pool.model

    @property
    def is_pointless(self) -> bool:
        """Whether there is another pool to go to, and nobody here to serve it."""
        on = self.pool.settings.fallback_on
        falls = self._another and (Fault.UNAVAILABLE in on or Fault.OVERLOADED in on)
        return falls and not self.pool.fit_elsewhere(())

    def why_cancelled(self) -> BalancerError:
        """What the scope of the present try was cancelled for, if by none of its callers."""
        if self._attempt is None:
            return Overdue("total", self._limits.total_s)
        return self._attempt.why_cancelled()

    # Trying

    async def answer(self, scope: trio.CancelScope) -> Attempt:
        """One try, inside `scope`: an attempt with something for the client, to be used with
        `with`.

        Raises `AttemptFailed`, `PoolBusy`; `Overdue` and `PutBack` of two at once.
        """
        self._attempt = None
        self._sent = []
        if self._pause_s:
            pause_s, self._pause_s = self._pause_s, 0.0
            await trio.sleep(pause_s)
        # A client that left while its request was read must not cost a replica anything.
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._request is None:
            self._request = await self._requests(self.pool)
        lease = self.pool.lease_nowait(self._tried, self._ask, self.standing)
        if lease is None:
            lease = await self._wait_for_lease(scope)
        self._trace.attempts += 1
        self._trace.replica = lease.replica.name
        attempt = self._attempt = self._begin(lease, self._request, self._limits, scope)
        hedge = self.pool.hedge
        if hedge is not None and self._request.stream:
            after_s = hedge.after_s(attempt.expected_s)
            if after_s is not None:
                return await self._race(attempt, after_s, scope)
        try:
            await attempt.start()
        except BaseException as exc:
            attempt.give_up(exc)
            raise
        return attempt

    async def _wait_for_lease(self, scope: trio.CancelScope) -> Lease:
        asked_at = trio.current_time()
        scope.deadline = self._limits.total_at
        try:
            return await self.pool.lease(self._tried, self._ask, self.standing)
        finally:
            self._trace.queued_s += trio.current_time() - asked_at

    def _begin(
        self, lease: Lease, request: Request, limits: Limits, scope: trio.CancelScope
    ) -> Attempt:
        self._sent.append(lease.replica)
        self._trace.leases.append(lease)
        trial_s = self._trial_s(lease) if lease.trial and request.stream else None
        return Attempt(self.pool, lease, request, limits, scope, trial_s=trial_s)

    def _trial_s(self, lease: Lease) -> float | None:
        """The limit on a trial, for a request that has somewhere else to go."""
        if not self._another and not self.pool.fit_elsewhere([*self._tried, lease.replica]):
            return None
        return self.pool.patience.trial_s(self._limits.first_byte_s)

    # Two at once

    async def _race(self, first: Attempt, after_s: float, scope: trio.CancelScope) -> Attempt:
        trace, total_at = self._trace, self._limits.total_at
        self._attempt = None
        scope.deadline = total_at
        first.scope = trio.CancelScope(deadline=total_at)
        # What carries nothing is held until somebody has won: it must not decide the race.
        first.limits = self._limits._replace(hold_s=math.inf)
        race = Race(first, after_s, lambda: self._second(first))
        winner = self._attempt = await race.run()
        winner.scope = scope
        for loser in race.entrants:
            if loser is not winner:
                self._learn_from(loser)
        trace.hedge_won = winner is not first
        trace.replica = winner.replica.name
        trace.leases.remove(winner.lease)
        trace.leases.append(winner.lease)
        return winner

    def _second(self, first: Attempt) -> Attempt | None:
        pool, tried = self.pool, [*self._tried, *self._sent]
        if pool.hedge is None or not pool.fit_elsewhere(tried):
            return None
        if not pool.hedge.take(trio.current_time()):
            return None
        lease = pool.lease_nowait(tried, self._ask, self.standing)
        if lease is None:
            return None
        self._trace.hedged = True
        scope = trio.CancelScope(deadline=self._limits.total_at)
        return self._begin(lease, first.request, first.limits, scope)

    def _learn_from(self, loser: Attempt) -> None:
        if self.pool.hedge is not None and loser.sent_at is not None:
            self.pool.hedge.waited(trio.current_time() - loser.sent_at, loser.expected_s)

    # Again

    def goes_on(self, failure: BalancerError) -> bool:
        """Whether there is to be another try here; if so, `answer` is it."""
        if not isinstance(failure, AttemptFailed) or not may_retry(failure):
            return False
        self._failed += 1
        if self._failed > self.pool.settings.retries:
            return False
        self._tried += self._sent
        elsewhere = self._is_elsewhere()
        if not elsewhere and not self._may_return(failure):
            return False
        if not (elsewhere and is_move(failure)) and not self.pool.budget.take(trio.current_time()):
            return False
        self._pause_s = backoff_s(self._failed, same_replica=not elsewhere)
        return True

    def _is_elsewhere(self) -> bool:
        """Whether another replica may take it: at once, if there is another pool that might."""
        if not self.pool.fit_elsewhere(self._tried):
            return False
        if not self._another:
            return True
        return any(one.has_room for one in self.pool.replicas if one not in self._tried)

    def _may_return(self, failure: AttemptFailed) -> bool:
        """Whether one that has failed is to be tried again, as there is no other."""
        if self._another and falls_back(failure, self.pool.settings.fallback_on):
            return False
        if not isinstance(failure, ReplicaRefused):
            return True
        return any(
            one.pause.until <= trio.current_time() + _PAUSE_MOST_S for one in self.pool.replicas
        )
