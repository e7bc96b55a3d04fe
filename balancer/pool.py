"""The replicas that serve one model name, and the line in front of them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import trio

from balancer.errors import PoolBusy
from balancer.policies import Policy
from balancer.replica import Lease, Replica

__all__ = ["Pool", "PoolStatistics", "Timeouts"]


class Timeouts(NamedTuple):
    """Limits on time, in seconds; each bounds a different wait (see `docs/reference/config.md`)."""

    connect_s: float = 2.0
    first_byte_s: float = 120.0
    idle_s: float = 30.0
    total_s: float = 600.0


class PoolStatistics(NamedTuple):
    """A snapshot of one pool."""

    model: str
    replicas: int
    up: int
    in_flight: int
    waiting: int


@dataclass(eq=False, slots=True)
class _Waiter:
    task: trio.lowlevel.Task
    tried: Collection[Replica]
    lease: Lease | None = None


class Pool:
    """The replicas of one model name.

    `served_model` is the name the replicas know, where it differs. At most `queue` requests wait
    for a replica below its `max_in_flight`, first come first served, each at most `queue_s`.
    """

    def __init__(
        self,
        model: str,
        replicas: Sequence[Replica],
        policy: Policy,
        *,
        served_model: str | None = None,
        retries: int = 2,
        queue: int = 1024,
        queue_s: float = 30.0,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - immutable
        owned_by: str = "triolet",
    ) -> None:
        self.model = model
        self.served_model = served_model
        self.replicas = tuple(replicas)
        self.policy = policy
        self.retries = retries
        self.timeouts = timeouts
        self.owned_by = owned_by
        self._queue = queue
        self._queue_s = queue_s
        self._waiters: deque[_Waiter] = deque()
        self._retired = False
        for replica in self.replicas:
            replica.on_room.append(self._hand_out)

    def retire(self) -> None:
        """The pool was replaced: who waits is still served, then the replicas are let go."""
        self._retired = True
        self._hand_out()

    def lease_nowait(self, tried: Collection[Replica] = ()) -> Lease | None:
        """The same without waiting; None if that would be needed, or if others wait already."""
        return None if self._waiters else self._lease_nowait(tried)

    async def lease(self, tried: Collection[Replica] = ()) -> Lease:
        """A place on a replica, of those not in `tried` while others are up.

        Waits if all are full. Raises `PoolBusy` when the queue is full or `queue_s` passed.
        """
        lease = self.lease_nowait(tried)
        if lease is not None:
            return lease
        if len(self._waiters) >= self._queue:
            raise PoolBusy(
                f"all replicas of model {self.model!r} are full and {self._queue} requests wait",
                self._retry_after_s(),
            )
        return await self._wait(tried)

    async def _wait(self, tried: Collection[Replica]) -> Lease:
        waiter = _Waiter(trio.lowlevel.current_task(), tried)
        self._waiters.append(waiter)

        def abort(_: object) -> trio.lowlevel.Abort:
            self._waiters.remove(waiter)
            return trio.lowlevel.Abort.SUCCEEDED

        with trio.move_on_after(self._queue_s):
            await trio.lowlevel.wait_task_rescheduled(abort)
        if waiter.lease is None:
            raise PoolBusy(
                f"no replica of model {self.model!r} had room within {self._queue_s:g} s",
                self._retry_after_s(),
            )
        return waiter.lease

    def _hand_out(self) -> None:
        """Give room to those who wait, in order. The place is charged before they run."""
        while self._waiters:
            waiter = self._waiters[0]
            waiter.lease = self._lease_nowait(waiter.tried)
            if waiter.lease is None:
                return
            self._waiters.popleft()
            trio.lowlevel.reschedule(waiter.task)
        if self._retired:
            self._let_go()

    def _let_go(self) -> None:
        for replica in self.replicas:
            if self._hand_out in replica.on_room:
                replica.on_room.remove(self._hand_out)

    def _lease_nowait(self, tried: Collection[Replica]) -> Lease | None:
        candidates = [replica for replica in self._eligible(tried) if replica.has_room]
        return self.policy.pick(candidates).lease() if candidates else None

    def _eligible(self, tried: Collection[Replica]) -> Sequence[Replica]:
        """Those up and not tried; if none, those up; if none, all: trying beats refusing."""
        now = trio.current_time()
        up = [replica for replica in self.replicas if replica.up(now)]
        if tried:
            return [replica for replica in up if replica not in tried] or up or self.replicas
        return up or self.replicas

    def _retry_after_s(self) -> int:
        return max(1, math.ceil(min(self._queue_s, 5.0)))

    def statistics(self) -> PoolStatistics:
        now = trio.current_time()
        return PoolStatistics(
            self.model,
            len(self.replicas),
            sum(replica.up(now) for replica in self.replicas),
            sum(replica.in_flight for replica in self.replicas),
            len(self._waiters),
        )
