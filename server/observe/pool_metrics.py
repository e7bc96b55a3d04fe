"""What pools, their tiers and their replicas are like now: read from them at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, get_args

from prometheus_client.metrics_core import Metric

from balancer.catalog import Catalog
from balancer.pool import PoolStatistics
from balancer.replica import Replica, ReplicaState, ReplicaStatistics
from server.observe.families import counter, gauge

__all__ = ["pool_families"]

_STATES: Final[tuple[str, ...]] = get_args(ReplicaState)


def pool_families(catalog: Catalog, now: float) -> Iterator[Metric]:
    """Of every replica and pool that there is now."""
    yield from _replicas(catalog.replicas, now)
    pools = [pool.statistics() for pool in catalog.pools.values()]
    yield from _pools(pools)
    yield from _tiers(pools)


def _replicas(replicas: Sequence[Replica], now: float) -> Iterator[Metric]:
    statistics = [replica.statistics(now) for replica in replicas]
    yield gauge(
        "triolet_replica_state",
        "1 for the state that the replica is in, 0 for the others.",
        ("replica", "state"),
        (((one.name, state), one.state == state) for one in statistics for state in _STATES),
    )
    for name, text, count in _COUNTED:
        values = (((one.name,), count(one)) for one in statistics)
        yield gauge(f"triolet_replica_{name}", text, ("replica",), values)
    for name, text, share in _MEASURED:
        known = ((replica.name, share(replica, now)) for replica in replicas)
        yield gauge(f"triolet_replica_{name}", text, ("replica",), _known(known))


def _known(values: Iterable[tuple[str, float | None]]) -> Iterator[tuple[tuple[str, ...], float]]:
    """What nobody knows has no sample: it is not 0."""
    for name, value in values:
        if value is not None:
            yield (name,), value


_COUNTED: Final[tuple[tuple[str, str, Callable[[ReplicaStatistics], float]], ...]] = (
    ("up", "Whether the replica is up (1) or not (0).", lambda one: one.up),
    ("in_flight", "Requests at the replica now.", lambda one: one.in_flight),
    (
        "unread_tokens",
        "Prompt tokens that requests without a first event have the replica read, as estimated.",
        lambda one: one.unread_tokens,
    ),
    (
        "idle_connections",
        "Connections to the replica that are kept for later.",
        lambda one: one.idle_connections,
    ),
)

_MEASURED: Final[tuple[tuple[str, str, Callable[[Replica, float], float | None]], ...]] = (
    (
        "kv_share",
        "Share of the replica's KV cache that is in use.",
        lambda replica, now: replica.kv_share(now),
    ),
    (
        "gpu_utilisation",
        "Share of time in which the replica's busiest GPU ran a kernel.",
        lambda replica, now: None if replica.gpu is None else replica.gpu.utilisation,
    ),
    (
        "foreign_share",
        "Share of the time of the replica's GPUs that is not ours.",
        lambda replica, now: replica.foreign_share,
    ),
    (
        "prefill_tokens_per_second",
        "How fast the replica reads prompts, as learned from its answers.",
        lambda replica, now: replica.speed.prefill_tokens_per_s(now),
    ),
)


def _pools(pools: Sequence[PoolStatistics]) -> Iterator[Metric]:
    models = [(pool.model,) for pool in pools]
    for name, text, values in (
        ("in_flight", "Requests at the pool's replicas now.", [p.in_flight for p in pools]),
        ("waiting", "Requests waiting for a replica now.", [p.waiting for p in pools]),
        ("replicas_up", "Replicas of the pool that are up.", [p.up for p in pools]),
        (
            "panic",
            "Whether so few replicas are fit that all that live are used.",
            [p.panic for p in pools],
        ),
    ):
        yield gauge(f"triolet_pool_{name}", text, ("model",), zip(models, values, strict=True))


def _tiers(pools: Sequence[PoolStatistics]) -> Iterator[Metric]:
    tiers = [(pool.model, tier) for pool in pools for tier in pool.tiers]
    labels = ("model", "tier")
    yield gauge(
        "triolet_tier_in_flight",
        "Requests of the tier at the pool's replicas now.",
        labels,
        (((model, tier.tier), tier.in_flight) for model, tier in tiers),
    )
    yield gauge(
        "triolet_tier_waiting",
        "Requests of the tier waiting for a replica now.",
        labels,
        (((model, tier.tier), tier.waiting) for model, tier in tiers),
    )
    yield counter(
        "triolet_tier_refused",
        "Requests of the tier that got no replica in time, by reason.",
        (*labels, "reason"),
        {
            (model, tier.tier, reason): count
            for model, tier in tiers
            for reason, count in (
                ("full", tier.full),
                ("hopeless", tier.hopeless),
                ("late", tier.late),
            )
        },
    )
