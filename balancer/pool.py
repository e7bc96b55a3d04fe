"""The replicas that serve one model name, and the line in front of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import trio

from balancer.errors import PoolBusy
from balancer.policies import BLOCK_TOKENS, UNKNOWN, Ask, Policy
from balancer.replica import UNBOUNDED, Lease, Replica

__all__ = ["Pool", "PoolStatistics", "Prefixes", "Timeouts"]


class Timeouts(NamedTuple):
    """Limits on time, in seconds; each bounds a different wait (see `docs/reference/config.md`)."""

    connect_s: float = 2.0
    first_byte_s: float = 120.0
    idle_s: float = 30.0
    total_s: float = 600.0


class Prefixes(Protocol):
    """Which replica holds which prefix (`balancer.prefix.PrefixIndex`)."""

    def match(self, blocks: Sequence[int]) -> Mapping[str, int]:
        """Tokens at the beginning of the prompt that each replica holds; only those with some."""

    def insert(self, replica: str, blocks: Sequence[int]) -> None:
        """`replica` holds these now."""

    def drop(self, replica: str) -> None:
        """`replica` holds nothing any more."""


class PoolStatistics(NamedTuple):
    """A snapshot of one pool."""

    model: str
    replicas: int
    up: int
    in_flight: int
    waiting: int


@dataclass(eq=False, slots=True)
class _Waiter:
    tried: Collection[Replica]
    ask: Ask
    lease: Lease | None = None
    served: trio.Event = field(default_factory=trio.Event)


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
        prefixes: Prefixes | None = None,
        served_model: str | None = None,
        retries: int = 2,
        queue: int = 1024,
        queue_s: float = 30.0,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - immutable
        owned_by: str = "triolet",
    ) -> None:
        self.model = model
        self.served_model = served_model
        self.policy = policy
        self.prefixes = prefixes
        self.retries = retries
        self.timeouts = timeouts
        self.owned_by = owned_by
        self._queue = queue
        self._queue_s = queue_s
        self._waiters: dict[_Waiter, None] = {}  # in the order of their coming
        self._retired = False
        self.replicas: tuple[Replica, ...] = ()
        self._ready: Sequence[Replica] = ()
        self._ready_until = -math.inf
        self._bounded = False
        self.update(replicas)

    def update(self, replicas: Sequence[Replica]) -> None:
        """These are its members from now on. What is in flight elsewhere goes on undisturbed."""
        gone = [replica for replica in self.replicas if replica not in replicas]
        self._unlisten(gone)
        self.replicas = tuple(replicas)
        for replica in gone:
            self.forget(replica.name)
        self._listen()
        self._unready()
        self._hand_out()

    def forget(self, replica: str) -> None:
        """That replica is gone or was started again: its cache is empty, its pace may differ."""
        self.policy.forget(replica)
        if self.prefixes is not None:
            self.prefixes.drop(replica)

    def retire(self) -> None:
        """The pool was replaced: who waits is still served, then the replicas are let go."""
        self._retired = True
        self._hand_out()

    def lease_nowait(self, tried: Collection[Replica] = (), ask: Ask = UNKNOWN) -> Lease | None:
        """The same without waiting; None if that would be needed. Overtakes nobody."""
        if self._waiters:
            self._hand_out()  # what is left after that, nobody who waits could have
        return self._lease_nowait(tried, ask)

    async def lease(self, tried: Collection[Replica] = (), ask: Ask = UNKNOWN) -> Lease:
        """A place on a replica, of those not in `tried` while others are up.

        `ask` is what the policy may know of the request. Waits if all are full. Raises `PoolBusy`
        when the queue is full or `queue_s` passed.
        """
        lease = self.lease_nowait(tried, ask)
        if lease is not None:
            return lease
        if len(self._waiters) >= self._queue:
            raise PoolBusy(
                f"all replicas of model {self.model!r} are full and {self._queue} requests wait",
                self._retry_after_s(),
            )
        return await self._wait(tried, ask)

    async def _wait(self, tried: Collection[Replica], ask: Ask) -> Lease:
        waiter = _Waiter(tried, ask)
        self._waiters[waiter] = None
        self._listen()
        give_up_at = trio.current_time() + self._queue_s
        try:
            while waiter.lease is None and trio.current_time() < give_up_at:
                # Nobody tells when a replica has rested enough: look again at that time.
                with trio.move_on_at(min(give_up_at, self._next_return())):
                    await waiter.served.wait()
                self._hand_out()
        except BaseException:
            if waiter.lease is not None:  # cancelled first, served before it could leave
                waiter.lease.release()
            raise
        finally:
            self._waiters.pop(waiter, None)
            self._hand_out()
        if waiter.lease is None:
            raise PoolBusy(
                f"no replica of model {self.model!r} had room within {self._queue_s:g} s",
                self._retry_after_s(),
            )
        return waiter.lease

    def _hand_out(self) -> None:
        """Give room to those who wait, in order. The place is charged before they run."""
        for waiter in tuple(self._waiters):
            waiter.lease = self._lease_nowait(waiter.tried, waiter.ask)
            if waiter.lease is not None:
                del self._waiters[waiter]
                waiter.served.set()
            elif not waiter.tried:
                break  # who would take any replica gets none: nor would those behind
        if self._retired and not self._waiters:
            self._unlisten(self.replicas)

    def _next_return(self) -> float:
        """When a replica may come back, or get more room, with nobody doing anything."""
        now = trio.current_time()
        return min((replica.changes_at(now) for replica in self.replicas), default=math.inf)

    def _listen(self) -> None:
        for replica in self.replicas:
            if self._hand_out not in replica.on_room:
                replica.on_room.append(self._hand_out)
                replica.on_change.append(self._unready)

    def _unlisten(self, replicas: Iterable[Replica]) -> None:
        for replica in replicas:
            if self._hand_out in replica.on_room:
                replica.on_room.remove(self._hand_out)
                replica.on_change.remove(self._unready)

    def _lease_nowait(self, tried: Collection[Replica], ask: Ask) -> Lease | None:
        candidates = self._ready_now()
        if tried:
            candidates = [one for one in candidates if one not in tried] or candidates
        if self._bounded:
            candidates = [one for one in candidates if one.load.requests < one.room]
        if not candidates:
            return None
        return self._place(candidates, ask)

    # Looking at every replica for every request costs a quarter of a millisecond at a thousand of
    # them. So the list is kept until a replica's state changes, or until time changes one.

    def _ready_now(self) -> Sequence[Replica]:
        """Those that may get work, room or not. If none may, all but the draining: trying beats
        refusing."""
        now = trio.current_time()
        if now >= self._ready_until or self._retired:  # who has retired is told no changes
            replicas = [one for one in self.replicas if not one.draining]
            self._ready = [one for one in replicas if one.available(now)] or replicas
            self._ready_until = min((one.changes_at(now) for one in replicas), default=math.inf)
            self._bounded = any(one.room != UNBOUNDED for one in self._ready)
        return self._ready

    def _unready(self) -> None:
        self._ready_until = -math.inf

    def _place(self, candidates: Sequence[Replica], ask: Ask) -> Lease:
        """Match, choose, book and remember; nothing else runs in between."""
        policy, prefixes = self.policy, self.prefixes
        if not policy.reads_prompt or prefixes is None:
            return policy.pick(candidates, ask).lease(policy, ask)
        blocks = ask.blocks(BLOCK_TOKENS)
        if blocks:
            ask.matches = prefixes.match(blocks)
        replica = policy.pick(candidates, ask)
        # Even of a prompt that is held completely the engine reads the last token again.
        uncached = max(1, ask.prompt_tokens - ask.matches.get(replica.name, 0))
        lease = replica.lease(policy, ask, uncached_tokens=uncached, blocks=blocks)
        if blocks:
            prefixes.insert(replica.name, blocks)
        return lease

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
