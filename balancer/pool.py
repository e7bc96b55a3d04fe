"""The replicas that serve one model name, and the line in front of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from typing import NamedTuple, Protocol

import trio

from balancer.admission import INTERACTIVE, Line, Room, Standing, Tier, TierStatistics
from balancer.hedge import Hedge
from balancer.lease import Lease
from balancer.members import Members
from balancer.outliers import Outliers
from balancer.patience import Patience
from balancer.policies import BLOCK_TOKENS, UNKNOWN, Ask, Policy
from balancer.pool_settings import PoolSettings, Timeouts
from balancer.prefix import Insertion
from balancer.replica import Replica
from balancer.retry import Budget
from balancer.runs import Runs
from balancer.trust import Trust
from balancer.waiting import Waiter, Waiting

__all__ = ["Pool", "PoolSettings", "PoolStatistics", "Prefixes", "Timeouts"]


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
        self._runs = Runs()
        self._members = Members(self.outliers, settings.panic)
        self._line: Line[Waiter, Lease] = Line(model, self.tiers, self._find_room)
        self._waiting = Waiting(self._line, self._take_for, self._changes_at)
        self._reads_gauges = any(tier.max_kv_share is not None for tier in self.tiers)
        self._listens = self._retired = False
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
        if self.replicas:
            self._ramp(one for one in replicas if one not in self._members)
        self._take_members(replicas)
        self._waiting.stir()  # fewer members may be more room too
        self.on_room()

    def succeed(self, old: Pool) -> None:
        """It serves the model from now on that `old`, which is to retire, did: what that learned
        goes on to hold, if it is to be learned in the same way."""
        if old.replicas:
            self._ramp(one for one in self.replicas if one not in old._members)
        self.patience = old.patience
        self._runs = old._runs
        if old.prefixes is self.prefixes:
            self.trust = old.trust
        if old.settings.retry_budget == self.settings.retry_budget:
            self.budget = old.budget
        if old.settings.outliers == self.settings.outliers:
            self.outliers = old.outliers
            self._members.judge_by(old.outliers)
        gone = [one for one in old.replicas if one not in self._members]
        for replica in gone:
            self._forget_all(replica.name)

    def _ramp(self, replicas: Iterable[Replica]) -> None:
        """They are new here. One that another pool uses already is no beginner."""
        now = trio.current_time()
        for replica in replicas:
            shared = any(one is not self for one in replica.listeners)
            if not (shared and replica.requests):
                replica.ramp.restart(now)

    def _take_members(self, replicas: Sequence[Replica]) -> None:
        for replica in self._members.take(replicas):
            self._unlisten(replica)
            self._forget_all(replica.name)
        self._listens = False
        self._listen()

    def retire(self) -> None:
        """The pool was replaced: who waits is still served, then the replicas are let go. What it
        learns from now on is another's."""
        self._retired = True
        self._let_go()

    def _listen(self) -> None:
        if self._listens:
            return
        self._listens = True
        for replica in self.replicas:
            if self not in replica.listeners:
                replica.listeners.append(self)
                if replica.gauges is not None and replica.gauges.kv_tokens is not None:
                    self.on_capacity(replica.name, replica.gauges.kv_tokens)

    def _unlisten(self, replica: Replica) -> None:
        if self in replica.listeners:
            replica.listeners.remove(self)

    def _let_go(self) -> None:
        """A pool that has retired listens for as long as anybody waits in it."""
        if self._retired and self._listens and not self._line.waiting:
            self._listens = False
            for replica in self.replicas:
                self._unlisten(replica)

    def _forget_all(self, replica: str) -> None:
        self.on_restart(replica)
        self.trust.forget(replica)
        self.outliers.forget(replica)
        if self.prefixes is not None:
            self.prefixes.drop(replica)

    def fit_elsewhere(self, tried: Collection[Replica]) -> bool:
        """Whether a replica not in `tried` may get work."""
        now = trio.current_time()
        return any(one.up(now) for one in self._members.others(now, tried))

    def _changes_at(self, now: float) -> float:
        """When there may be room with nobody telling."""
        changes_at = self._members.changes_at(now)
        if self._reads_gauges:
            return min(changes_at, self._members.stale_at(now))
        return changes_at

    def _find_room(self) -> Room:
        return self._members.find_room(trio.current_time())

    # What replicas tell

    def on_room(self) -> None:
        """Give room to those who wait."""
        self._waiting.hand_out()
        self._let_go()

    def on_change(self) -> None:
        """Who may get work has changed."""
        self._members.unready()
        self._waiting.stir()

    def on_restart(self, replica: str) -> None:
        """Its cache is empty, its pace may be another."""
        self.policy.forget(replica)
        self._runs.forget(replica)
        self.trust.cleared(replica)
        self.outliers.forget(replica)  # it was another process that failed
        if self.prefixes is not None:
            self.prefixes.clear(replica)
        self.on_change()

    def on_models(self, replica: str, before: Set[str], after: Set[str]) -> None:
        """Ours came or went, so its cache is empty. Another one is not our concern, unless it took
        the place of all: an engine may list its model by a name of its own."""
        model = self.served_model or self.model
        if (model in before) != (model in after) or before.isdisjoint(after):
            self.on_restart(replica)

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
        if not self._waiting.hand_out():
            return None
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
        waiter = Waiter(standing or Standing(self.tiers[0].name, now), frozenset(tried), ask)
        # Before it is refused: the place of one of a lower tier, that has sent nothing, may do.
        victim = self._line.victim(waiter, now, lambda held: self._frees(held, waiter))
        self._line.enter(waiter, now, sure=victim is not None)
        self._listen()
        try:
            if victim is not None:
                victim.reclaim("put_back")
            return await self._waiting.wait(waiter)
        finally:
            self._let_go()

    def _take_for(self, waiter: Waiter, limits: Tier, now: float) -> Lease | None:
        return self._take(waiter.tried, waiter.ask, waiter.standing, limits, now)

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
        run = ask.run
        if run is None:
            return self._place(candidates, ask, standing, now) if candidates else None
        if self._members.keeping:
            home = self._draining_home(run, now)
            if home is not None and home not in tried and (fits is None or fits(home)):
                candidates = (home,)
        if not candidates:
            return None
        lease = self._place(candidates, ask, standing, now)
        self._runs.went(run, lease.replica.name, now)
        return lease

    def _draining_home(self, run: str, now: float) -> Replica | None:
        """The replica where the run was last, if that drains and can take one more call of it."""
        home = self._runs.home(run, now)
        return None if home is None else self._members.kept(now, home)

    def _place(
        self, candidates: Sequence[Replica], ask: Ask, standing: Standing, now: float
    ) -> Lease:
        """Match, choose, book and remember; nothing else runs in between."""
        policy, prefixes = self.policy, self.prefixes
        blocks = ask.blocks(BLOCK_TOKENS) if prefixes is not None else ()
        if prefixes is None or not blocks:
            replica, explanation = policy.pick(candidates, ask), policy.explanation
            tokens = max(1, ask.prompt_tokens) if self._weighs else 1
            charge = replica.open(tokens, (), now, streams=ask.streams)
            lease = Lease(self, replica, ask, standing, charge, now)
        else:
            matches = prefixes.match(blocks)
            ask.matches = self.trust.weigh(matches)
            replica, explanation = policy.pick(candidates, ask), policy.explanation
            alone = not replica.load.waiting
            # Even of a prompt that is held completely the engine reads the last token again.
            uncached = max(1, ask.prompt_tokens - ask.matches.get(replica.name, 0))
            charge = replica.open(uncached, blocks, now, streams=ask.streams)
            lease = Lease(self, replica, ask, standing, charge, now)
            name, matched = replica.name, matches.get(replica.name, 0)
            lease.matched_tokens = matched
            lease.prompt_tokens = ask.prompt_tokens
            lease.expected = self.trust.expect(name, matched, ask.prompt_tokens, settled=alone)
            if not self._retired:  # who came after it may have dropped that replica
                lease.insertion = prefixes.insert(name, blocks)
        lease.explanation = explanation
        policy.leased(replica, ask)
        if lease.trial:
            replica.trial_began()
        return lease

    # What leases tell

    def answered(self, lease: Lease, now: float) -> None:
        """Its first event is here."""
        self._line.answered(lease)
        if self._learns_of(lease.replica):
            self.outliers.answered(lease.replica.name, now)
        self.policy.answered(lease.replica, lease.ask)

    def failed(self, lease: Lease, now: float) -> None:
        """The replica failed it."""
        replica = lease.replica
        if not self._learns_of(replica):
            return
        if self.outliers.failed(replica.name, now, len(self.replicas)):
            replica.ramp.restart(now)
            self.on_change()

    def released(self, lease: Lease, now: float) -> None:
        """It is over."""
        self._line.released(lease)
        if lease.insertion is not None and self.prefixes is not None:
            self._learn_of_cache(lease, lease.insertion, self.prefixes)
        self.policy.released(lease.replica, lease.ask, lease.outcome)
        if self not in lease.replica.listeners:  # which tells no more: the tier's slot is free
            self.on_room()

    def _learns_of(self, replica: Replica) -> bool:
        """Whether what becomes of its requests says anything of a member."""
        return replica in self._members and not self._retired

    def _learn_of_cache(self, lease: Lease, insertion: Insertion, prefixes: Prefixes) -> None:
        replica, outcome = lease.replica.name, lease.outcome
        if not lease.read:
            prefixes.undo(replica, lease.ask.blocks(BLOCK_TOKENS), insertion)
        elif not self._learns_of(lease.replica):
            return
        elif self.trust.observe(lease.expected, outcome.prompt_tokens, outcome.cached_tokens):
            prefixes.clear(replica)

    # Taking places back

    def _frees(self, held: Lease, waiter: Waiter) -> bool:
        """Whether the end of `held` makes room for `waiter`."""
        replica, now = held.replica, trio.current_time()
        tier = self._line.tier(waiter.standing.tier)
        return (
            held.on_reclaim is not None
            and held.unsettled
            and replica not in waiter.tried
            and replica in self._members.ready(now)
            and replica.in_flight <= self._members.room(replica)
            and tier.fits(
                replica.in_flight - 1,
                replica.load.waiting_tokens - held.charge.uncached_tokens,
                replica.kv_share(now),
            )
        )

    def runs_of(self, replica: str) -> int:
        """How many runs had their last call there, lately: what its drain waits for."""
        return self._runs.of(replica, trio.current_time())

    def ejected(self) -> list[str]:
        """Members that are left out for failing more often than the others."""
        now = trio.current_time()
        return [one.name for one in self.replicas if self.outliers.ejected(one.name, now)]

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
