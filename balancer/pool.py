"""The replicas that serve one model name, and the line in front of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

import trio

from balancer.admission import INTERACTIVE, Line, Room, Standing, Ticket, Tier, TierStatistics
from balancer.faults import Fault
from balancer.hedge import Hedge, HedgeSettings
from balancer.lease import Lease
from balancer.members import Members
from balancer.outliers import Outliers, OutlierSettings
from balancer.patience import Patience
from balancer.policies import BLOCK_TOKENS, UNKNOWN, Ask, Policy
from balancer.prefix import Insertion
from balancer.replica import Replica
from balancer.retry import FALLBACK_ON, Budget, BudgetSettings
from balancer.trust import Trust

__all__ = ["Pool", "PoolSettings", "PoolStatistics", "Prefixes", "Timeouts"]


class Timeouts(NamedTuple):
    """Limits on time, in seconds; each bounds a different wait (see `docs/reference/config.md`)."""

    connect_s: float = 2.0
    first_byte_s: float = 120.0
    idle_s: float = 30.0
    total_s: float = 600.0


class PoolSettings(NamedTuple):
    """How a pool treats failures."""

    retries: int = 2
    """Further attempts after one that failed before its first event."""
    retry_budget: BudgetSettings = BudgetSettings()
    outliers: OutlierSettings = OutlierSettings()
    panic: float = 0.25
    """If fewer than this share of its living replicas are fit, all that live are used."""
    hedge: HedgeSettings | None = None
    """When a first token is asked for twice; None: never."""
    fallback: tuple[str, ...] = ()
    """Models whose pools are asked, in this order, when this one gave up."""
    fallback_on: frozenset[Fault] = FALLBACK_ON
    hold_s: float = 1.0
    """How long the head of a stream is held back, after its first event, for one that carries
    something: until then the request can be tried elsewhere. 0: not at all."""


class Prefixes(Protocol):
    """Which replica holds which prefix (`balancer.prefix.PrefixIndex`)."""

    def match(self, blocks: Sequence[int]) -> Mapping[str, int]: ...

    def insert(self, replica: str, blocks: Sequence[int]) -> Insertion: ...

    def undo(self, replica: str, blocks: Sequence[int], insertion: Insertion) -> None: ...

    def resize(self, replica: str, tokens: int) -> None: ...

    def clear(self, replica: str) -> None: ...

    def drop(self, replica: str) -> None: ...


class PoolStatistics(NamedTuple):
    """A snapshot of one pool."""

    model: str
    replicas: int
    up: int
    in_flight: int
    waiting: int
    tiers: tuple[TierStatistics, ...] = ()
    panic: bool = False
    """Whether so few replicas are fit that all that live are used."""


class _Waiter(Ticket):
    """A request that waits in line, and the lease it was given."""

    __slots__ = ("ask", "lease", "served", "tried")

    def __init__(self, standing: Standing, tried: frozenset[Replica], ask: Ask) -> None:
        super().__init__(standing, tried)
        self.tried = tried
        self.ask = ask
        self.lease: Lease | None = None
        self.served = trio.Event()


class Pool:
    """The replicas of one model name.

    `served_model` is the name the replicas know, where it differs. Who finds no replica with room
    waits, in the order and within the bounds of the `tiers`. `prefixes` serves policies that read
    prompts. `chance` gives numbers from 0 to 1.
    """

    def __init__(
        self,
        model: str,
        replicas: Sequence[Replica],
        policy: Policy,
        *,
        prefixes: Prefixes | None = None,
        served_model: str | None = None,
        tiers: Sequence[Tier] = (INTERACTIVE,),
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - immutable
        settings: PoolSettings = PoolSettings(),  # noqa: B008 - immutable
        owned_by: str = "triolet",
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.model = model
        self.served_model = served_model
        self.policy = policy
        self.prefixes = prefixes if policy.reads_prompt else None
        self.tiers = tuple(sorted(tiers, key=lambda tier: tier.rank))
        self.timeouts = timeouts
        self.settings = settings
        self.owned_by = owned_by
        self.budget = Budget(settings.retry_budget)
        self.hedge = Hedge(settings.hedge) if settings.hedge is not None else None
        self.outliers = Outliers(settings.outliers, chance)
        self.patience = Patience()
        self.trust = Trust()
        self._members = Members(self.outliers, settings.panic)
        self._line: Line[_Waiter, Lease] = Line(model, self.tiers, self._find_room)
        self._unanswered: dict[Lease, None] = {}
        self._retired = False
        # Reading a prompt takes time: not for a policy without use for it, before a tier comes that
        # is bound by what engines have yet to read.
        self._weighs = policy.reads_prompt
        self._take_members(replicas)

    # Members

    @property
    def replicas(self) -> tuple[Replica, ...]:
        return self._members.replicas

    def update(self, replicas: Sequence[Replica]) -> None:
        """These are its members from now on; new ones start slowly. What is in flight elsewhere
        goes on undisturbed."""
        now = trio.current_time()
        for replica in replicas:
            if self.replicas and replica not in self.replicas:
                replica.ramp.restart(now)
        self._take_members(replicas)
        self.on_room()

    def _take_members(self, replicas: Sequence[Replica]) -> None:
        for replica in self._members.take(replicas):
            self._unlisten(replica)
            self._forget_all(replica.name)
        self._listen()

    def retire(self) -> None:
        """The pool was replaced: who waits is still served, then the replicas are let go."""
        self._retired = True
        self.on_room()

    def _listen(self) -> None:
        for replica in self.replicas:
            if self not in replica.listeners:
                replica.listeners.append(self)
                if replica.gauges is not None and replica.gauges.kv_tokens is not None:
                    self.on_capacity(replica.name, replica.gauges.kv_tokens)

    def _unlisten(self, replica: Replica) -> None:
        if self in replica.listeners:
            replica.listeners.remove(self)

    def _forget_all(self, replica: str) -> None:
        self.on_restart(replica)
        self.trust.forget(replica)
        self.outliers.forget(replica)
        if self.prefixes is not None:
            self.prefixes.drop(replica)

    def fit_elsewhere(self, tried: Collection[Replica]) -> bool:
        """Whether a replica not in `tried` may get work."""
        now = trio.current_time()
        return any(one not in tried and one.up(now) for one in self._members.ready(now))

    def _find_room(self) -> Room:
        return self._members.find_room(trio.current_time())

    # What replicas tell

    def on_room(self) -> None:
        """Give room to those who wait, in order. The place is charged before they run."""
        if self._line.waiting:
            now = trio.current_time()
            self._line.hand_out(now, lambda waiter, limits: self._serve(waiter, limits, now))
        if self._retired and not self._line.waiting:
            for replica in self.replicas:
                self._unlisten(replica)

    def on_change(self) -> None:
        """Who may get work has changed."""
        self._members.unready()

    def on_restart(self, replica: str) -> None:
        """Its cache is empty, its pace may be another."""
        self.policy.forget(replica)
        self.trust.cleared(replica)
        if self.prefixes is not None:
            self.prefixes.clear(replica)

    def on_lost(self, replica: Replica) -> None:
        """Nothing will come from there: what waits for it should be tried elsewhere."""
        for lease in [one for one in self._unanswered if one.replica is replica]:
            lease.reclaim("replica_lost")

    def on_capacity(self, replica: str, tokens: int) -> None:
        """Its cache is as large as it says."""
        if self.prefixes is not None:
            self.prefixes.resize(replica, tokens)

    # Leases

    def lease_nowait(
        self,
        tried: Collection[Replica] = (),
        ask: Ask = UNKNOWN,
        standing: Standing | None = None,
    ) -> Lease | None:
        """The same without waiting; None if that would be needed. Overtakes nobody."""
        line = self._line
        if line.waiting:
            self.on_room()  # what is left after that, nobody who waits could have
        now = trio.current_time()
        if standing is None:
            standing = Standing(self.tiers[0].name, now)
        if not line.may_take(standing.tier):
            return None
        tier = line.tier(standing.tier)
        if tier.max_unread_tokens is not None:
            self._weighs = True
        lease = self._take(tried, ask, standing, tier, now)
        if lease is not None:
            line.took(lease)
        return lease

    async def lease(
        self,
        tried: Collection[Replica] = (),
        ask: Ask = UNKNOWN,
        standing: Standing | None = None,
    ) -> Lease:
        """A place on a replica, of those not in `tried` while others may be used.

        `ask` is what the policy may know of the request, `standing` its place in line (by default
        that of the first tier, without a deadline). Waits if it must. Raises `PoolBusy` when the
        line is full, or the wait too long.
        """
        lease = self.lease_nowait(tried, ask, standing)
        if lease is not None:
            return lease
        now = trio.current_time()
        waiter = _Waiter(standing or Standing(self.tiers[0].name, now), frozenset(tried), ask)
        self._line.enter(waiter, now)
        return await self._wait(waiter)

    async def _wait(self, waiter: _Waiter) -> Lease:
        self._listen()
        try:
            self._preempt_for(waiter)
            while waiter.lease is None and trio.current_time() < waiter.until:
                # Nobody tells when a replica has rested enough: look again at that time.
                changes_at = self._members.changes_at(trio.current_time())
                with trio.move_on_at(min(waiter.until, changes_at)):
                    await waiter.served.wait()
                self.on_room()
        except BaseException:
            if waiter.lease is not None:  # cancelled first, served before it could leave
                waiter.lease.release()
            self._line.leave(waiter, trio.current_time())
            raise
        finally:
            self.on_room()
        if waiter.lease is None:
            raise self._line.late(waiter, trio.current_time())
        return waiter.lease

    def _serve(self, waiter: _Waiter, limits: Tier, now: float) -> Lease | None:
        lease = self._take(waiter.tried, waiter.ask, waiter.standing, limits, now)
        if lease is not None:
            waiter.lease = lease
            waiter.served.set()
        return lease

    def _take(
        self,
        tried: Collection[Replica],
        ask: Ask,
        standing: Standing,
        limits: Tier,
        now: float,
    ) -> Lease | None:
        if self._retired:  # who has retired is told of no change
            self._members.unready()
        fits = (lambda one: _fits(limits, one, now)) if limits.capped else None
        candidates = self._members.choose(now, tried, fits)
        return self._place(candidates, ask, standing, now) if candidates else None

    def _place(
        self, candidates: Sequence[Replica], ask: Ask, standing: Standing, now: float
    ) -> Lease:
        """Match, choose, book and remember; nothing else runs in between."""
        policy, prefixes = self.policy, self.prefixes
        blocks = ask.blocks(BLOCK_TOKENS) if prefixes is not None else ()
        if prefixes is None or not blocks:
            replica = policy.pick(candidates, ask)
            tokens = max(1, ask.prompt_tokens) if self._weighs else 1
            charge = replica.open(tokens, (), now, streams=ask.streams)
            lease = Lease(self, replica, ask, standing, charge, now)
        else:
            matches = prefixes.match(blocks)
            ask.matches = self.trust.weigh(matches)
            replica = policy.pick(candidates, ask)
            alone = not replica.load.waiting
            # Even of a prompt that is held completely the engine reads the last token again.
            uncached = max(1, ask.prompt_tokens - ask.matches.get(replica.name, 0))
            charge = replica.open(uncached, blocks, now, streams=ask.streams)
            lease = Lease(self, replica, ask, standing, charge, now)
            name, matched = replica.name, matches.get(replica.name, 0)
            lease.matched_tokens = matched
            lease.expected = self.trust.expect(name, matched, ask.prompt_tokens, settled=alone)
            lease.insertion = prefixes.insert(name, blocks)
        lease.explanation = policy.explanation
        policy.leased(replica, ask)
        self._unanswered[lease] = None
        if replica.on_trial:
            self._members.unready()
        return lease

    # What leases tell

    def answered(self, lease: Lease, now: float) -> None:
        """Its first event is here."""
        self._unanswered.pop(lease, None)
        self._line.answered(lease)
        self.outliers.answered(lease.replica.name, now)
        self.policy.answered(lease.replica, lease.ask)

    def failed(self, lease: Lease, now: float) -> None:
        """The replica failed it."""
        if self.outliers.failed(lease.replica.name, now, len(self.replicas)):
            lease.replica.ramp.restart(now)
            self._members.unready()

    def released(self, lease: Lease, now: float) -> None:
        """It is over."""
        self._unanswered.pop(lease, None)
        self._line.released(lease)
        if lease.insertion is not None and self.prefixes is not None:
            self._learn_of_cache(lease, lease.insertion, self.prefixes)
        self.policy.released(lease.replica, lease.ask, lease.outcome)

    def _learn_of_cache(self, lease: Lease, insertion: Insertion, prefixes: Prefixes) -> None:
        replica, outcome = lease.replica.name, lease.outcome
        if not lease.read:
            prefixes.undo(replica, lease.ask.blocks(BLOCK_TOKENS), insertion)
        elif self.trust.observe(lease.expected, outcome.prompt_tokens, outcome.cached_tokens):
            prefixes.clear(replica)

    # Taking places back

    def _preempt_for(self, waiter: _Waiter) -> None:
        """Put a request of a lower tier that has sent nothing back in line, if that helps."""
        if waiter.lease is not None:
            return
        now = trio.current_time()
        victim = self._line.victim(waiter, now, lambda held: self._frees(held, waiter))
        if victim is not None:
            victim.reclaim("put_back")

    def _frees(self, held: Lease, waiter: _Waiter) -> bool:
        """Whether the end of `held` makes room for `waiter`."""
        replica, now = held.replica, trio.current_time()
        tier = self._line.tier(waiter.standing.tier)
        return (
            held.on_reclaim is not None
            and replica not in waiter.tried
            and replica in self._members.ready(now)
            and replica.in_flight <= replica.room
            and tier.fits(
                replica.in_flight - 1,
                replica.load.waiting_tokens - held.charge.uncached_tokens,
                replica.kv_share(now),
            )
        )

    def statistics(self) -> PoolStatistics:
        now = trio.current_time()
        self._members.ready(now)
        return PoolStatistics(
            self.model,
            len(self.replicas),
            sum(replica.up(now) for replica in self.replicas),
            sum(replica.in_flight for replica in self.replicas),
            self._line.waiting,
            self._line.statistics(now),
            self._members.panic,
        )


def _fits(limits: Tier, replica: Replica, now: float) -> bool:
    load = replica.load
    return limits.fits(load.requests, load.waiting_tokens, replica.kv_share(now))
