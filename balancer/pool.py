"""The replicas that serve one model name, and the line in front of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import trio

from balancer.errors import PoolBusy
from balancer.policies import BLOCK_TOKENS, UNKNOWN, Ask, Policy
from balancer.replica import Lease, Replica

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
        self.replicas = tuple(replicas)
        self.policy = policy
        self.prefixes = prefixes
        self.retries = retries
        self.timeouts = timeouts
        self.owned_by = owned_by
        self._queue = queue
        self._queue_s = queue_s
        self._waiters: dict[_Waiter, None] = {}  # in the order of their coming
        self._retired = False
        self._listen()

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
            self._let_go()

    def _next_return(self) -> float:
        """When the next replica that rests now is worth trying again; inf if none rests."""
        now = trio.current_time()
        resting = (replica.rest_until for replica in self.replicas if replica.rest_until > now)
        return min(resting, default=math.inf)

    def _listen(self) -> None:
        for replica in self.replicas:
            if self._hand_out not in replica.on_room:
                replica.on_room.append(self._hand_out)

    def _let_go(self) -> None:
        for replica in self.replicas:
            if self._hand_out in replica.on_room:
                replica.on_room.remove(self._hand_out)

    def _lease_nowait(self, tried: Collection[Replica], ask: Ask) -> Lease | None:
        candidates = [replica for replica in self._eligible(tried) if replica.has_room]
        if not candidates:
            return None
        return self._place(candidates, ask)

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

    def _eligible(self, tried: Collection[Replica]) -> Sequence[Replica]:
        """Those up (all if none is: trying beats refusing) and not tried (or tried if none is)."""
        now = trio.current_time()
        up = [replica for replica in self.replicas if replica.up(now)] or self.replicas
        if tried:
            return [replica for replica in up if replica not in tried] or up
        return up

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
