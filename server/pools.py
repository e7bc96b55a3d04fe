"""Pools out of the configuration, out of what is found on this machine, or out of the demo."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from balancer.admission import BATCH, INTERACTIVE, TIERS, Tier
from balancer.breaker import BreakerSettings
from balancer.faults import Fault
from balancer.hedge import HedgeSettings
from balancer.outliers import OutlierSettings
from balancer.policies import BLOCK_TOKENS, DEFAULT_POLICY, POLICIES, Policy, PolicyName
from balancer.pool import Pool, PoolSettings, Prefixes, Timeouts
from balancer.prefix import ENGINE_TOKENS, PrefixIndex
from balancer.probes.discovery import Found
from balancer.ramp import RampSettings
from balancer.replica import Replica, ReplicaSettings
from balancer.retry import BudgetSettings
from balancer.wire.connect import Dialer, Origin, tls_context
from server.config import BreakerConfig, PoolConfig, ReplicaConfig
from server.membership import Member, Membership

__all__ = ["DEMO_MODEL", "PoolBuilder"]

log = logging.getLogger("triolet.pools")

DEMO_MODEL: Final = "demo"
_DISCOVERED_MAX: Final = 1_000
"""Pools made of what engines list: each takes about 0.2 ms to make."""


class _Mind(NamedTuple):
    """What a pool has learned, which outlives its configuration."""

    name: PolicyName
    policy: Policy
    prefixes: Prefixes | None


class PoolBuilder:
    """Builds pools. A replica whose URL stays keeps its connections, its counts and its speed; a
    model whose policy stays keeps what the policy and the prefix index know."""

    def __init__(self, dialer: Dialer, breaker: BreakerConfig = BreakerConfig()) -> None:  # noqa: B008
        self._dialer = dialer
        self._settings = _replica_settings(breaker)
        self._replicas: dict[str, Replica] = {}
        self._configs: dict[str, ReplicaConfig] = {}
        self._minds: dict[str, _Mind] = {}
        self._members: dict[str, frozenset[str]] = {}
        self._complained = False

    def configured(self, membership: Membership) -> list[Pool]:
        """The pools that the configuration lists."""
        members = {pool.model: membership.members(pool) for pool in membership.pools}
        replicas = self._take(member for listed in members.values() for member in listed)
        pools = [
            self._configured(pool, [replicas[member.name] for member in members[pool.model]])
            for pool in membership.pools
        ]
        self._forget_all_but(pools)
        return pools

    def config_of(self, replica: Replica) -> ReplicaConfig:
        """How it is configured; of one in several pools as the first of them says."""
        return self._configs.get(replica.name) or ReplicaConfig(url=replica.name)

    def members(self, membership: Membership) -> Mapping[str, list[Replica]]:
        """By model: the replicas of the same pools, as the sources list them now."""
        members = {pool.model: membership.members(pool) for pool in membership.pools}
        replicas = self._take(member for listed in members.values() for member in listed)
        for model, listed in members.items():
            self._members[model] = frozenset(member.name for member in listed)
        return {
            model: [replicas[member.name] for member in listed] for model, listed in members.items()
        }

    def discovered(
        self, engines: Sequence[Found], known: Mapping[str, Pool] | None = None
    ) -> list[Pool]:
        """A pool for each model that engines on this machine list, with all that list it.

        `known` pools of the same models stay, with their replicas as they are now.
        """
        found = [Member(Origin.parse(one.url), ReplicaConfig(url=one.url)) for one in engines]
        replicas = self._take(found)
        serving: dict[str, list[Replica]] = {}
        owners: dict[str, str] = {}
        for engine, member in zip(engines, found, strict=True):
            for model in engine.models:
                if len(serving) >= _DISCOVERED_MAX and model.id not in serving:
                    self._complain(engine.url)
                    break
                serving.setdefault(model.id, []).append(replicas[member.name])
                owners.setdefault(model.id, model.owned_by or engine.engine)
        pools = []
        for name, members in serving.items():
            pool = (known or {}).get(name)
            if pool is None:
                pool = self._plain(name, members, owners[name])
            elif pool.replicas != tuple(members):
                pool.update(members)
            pools.append(pool)
        self._forget_all_but(pools)
        return pools

    def _complain(self, url: str) -> None:
        if not self._complained:
            self._complained = True
            log.warning(
                "%s lists more models than are taken: the first %d found here are served; "
                "configure a [[pool]] for those that are wanted",
                url,
                _DISCOVERED_MAX,
            )

    def demo(self, urls: Sequence[str]) -> list[Pool]:
        """The pool of the embedded demo replicas."""
        replicas = self._take(Member(Origin.parse(url), ReplicaConfig(url=url)) for url in urls)
        return [self._plain(DEMO_MODEL, list(replicas.values()), "triolet-demo-simulation")]

    def _plain(self, model: str, replicas: Sequence[Replica], owned_by: str) -> Pool:
        mind = self._mind(model, DEFAULT_POLICY, replicas)
        return Pool(
            model,
            replicas,
            mind.policy,
            prefixes=mind.prefixes,
            tiers=TIERS,
            owned_by=owned_by,
        )

    def _configured(self, pool: PoolConfig, replicas: Sequence[Replica]) -> Pool:
        mind = self._mind(pool.model, pool.policy, replicas)
        return Pool(
            pool.model,
            replicas,
            mind.policy,
            prefixes=mind.prefixes,
            served_model=pool.served_model,
            tiers=_tiers(pool),
            timeouts=Timeouts(*msgspec.structs.astuple(pool.timeouts)),
            settings=_settings(pool),
        )

    def _mind(self, model: str, name: PolicyName, replicas: Iterable[Replica]) -> _Mind:
        members = frozenset(replica.name for replica in replicas)
        gone = self._members.get(model, frozenset()) - members
        self._members[model] = members
        mind = self._minds.get(model)
        if mind is None or mind.name != name:
            policy = POLICIES[name]()
            index = PrefixIndex(BLOCK_TOKENS, self._kv_tokens) if policy.reads_prompt else None
            mind = self._minds[model] = _Mind(name, policy, index)
        for replica in gone:
            mind.policy.forget(replica)
            if mind.prefixes is not None:
                mind.prefixes.drop(replica)
        return mind

    def _forget_all_but(self, pools: Iterable[Pool]) -> None:
        kept = {pool.model for pool in pools}
        for model in self._minds.keys() - kept:
            del self._minds[model]
        for model in self._members.keys() - kept:
            del self._members[model]

    def _kv_tokens(self, name: str) -> int:
        """What that replica's cache holds, as far as its engine has said."""
        replica = self._replicas.get(name)
        gauges = replica.gauges if replica is not None else None
        return (gauges.kv_tokens if gauges is not None else None) or ENGINE_TOKENS

    def _take(self, wanted: Iterable[Member]) -> dict[str, Replica]:
        """The replicas for these, known ones again; those not wanted any more are forgotten."""
        taken: dict[str, Replica] = {}
        self._configs = {}
        limits: dict[str, int | None] = {}
        for member in wanted:
            if member.name not in taken:
                replica = taken[member.name] = self._known(member.origin)
                replica.headers = _headers(member.config)
                self._configs[member.name] = member.config
            limits[member.name] = _smaller(member.config.max_in_flight, limits.get(member.name))
        for name, limit in limits.items():  # once: what is unlimited for a moment is handed out
            taken[name].max_in_flight = limit
        self._replicas = taken
        return taken

    def _known(self, origin: Origin) -> Replica:
        known = self._replicas.get(str(origin))
        if known is not None and known.origin == origin:
            return known
        if origin.scheme == "https":
            tls_context()  # read the authorities now, not while streams wait
        return Replica(origin, self._dialer, settings=self._settings)


def _replica_settings(config: BreakerConfig) -> ReplicaSettings:
    given = msgspec.structs.asdict(config)
    ramp = RampSettings(step_s=given.pop("slow_start_s"))
    return ReplicaSettings(BreakerSettings(**given), ramp)


def _tiers(pool: PoolConfig) -> tuple[Tier, ...]:
    if not pool.tiers:
        first = msgspec.structs.replace(INTERACTIVE, queue=pool.queue, queue_s=pool.queue_s)
        return (first, BATCH)
    return tuple(
        Tier(rank=rank, **msgspec.structs.asdict(tier)) for rank, tier in enumerate(pool.tiers)
    )


def _settings(pool: PoolConfig) -> PoolSettings:
    hedge = None if pool.hedge is None else HedgeSettings(*msgspec.structs.astuple(pool.hedge))
    budget = pool.retry_budget
    return PoolSettings(
        retries=pool.retries,
        retry_budget=BudgetSettings(share=budget.share, per_s=budget.per_s),
        outliers=OutlierSettings(*msgspec.structs.astuple(pool.outliers)),
        panic=pool.panic,
        hedge=hedge,
        fallback=pool.fallback,
        fallback_on=frozenset(Fault(kind) for kind in pool.fallback_on),
        hold_s=pool.hold_s,
    )


def _smaller(one: int | None, other: int | None) -> int | None:
    """A replica in two pools has one limit: the stricter one."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def _headers(config: ReplicaConfig) -> dict[bytes, bytes]:
    headers = {name.lower().encode(): value.encode() for name, value in config.headers.items()}
    if config.api_key is not None:
        headers[b"authorization"] = b"Bearer " + config.api_key.encode()
    return headers
