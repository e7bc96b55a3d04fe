"""Pools out of the configuration, out of what is found on this machine, or out of the demo."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from balancer.policies import POLICIES
from balancer.pool import Pool, Timeouts
from balancer.probes.discovery import Found
from balancer.replica import Replica
from balancer.wire.connect import Dialer, tls_context
from server.config import PoolConfig, ReplicaConfig

__all__ = ["DEMO_MODEL", "PoolBuilder"]

DEMO_MODEL: Final = "demo"


class PoolBuilder:
    """Builds pools; a replica whose URL stays the same keeps its connections and its counts."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer
        self._replicas: dict[str, Replica] = {}

    def configured(self, pools: Iterable[PoolConfig]) -> list[Pool]:
        """The pools that the configuration lists."""
        pools = list(pools)
        replicas = self._take(replica for pool in pools for replica in pool.replicas)
        return [
            Pool(
                pool.model,
                [replicas[replica.url] for replica in pool.replicas],
                POLICIES[pool.policy](),
                served_model=pool.served_model,
                retries=pool.retries,
                queue=pool.queue,
                queue_s=pool.queue_s,
                timeouts=Timeouts(
                    pool.timeouts.connect_s,
                    pool.timeouts.first_byte_s,
                    pool.timeouts.idle_s,
                    pool.timeouts.total_s,
                ),
            )
            for pool in pools
        ]

    def discovered(self, engines: Sequence[Found]) -> list[Pool]:
        """A pool for each model that engines on this machine list, with all that list it."""
        replicas = self._take(ReplicaConfig(url=engine.url) for engine in engines)
        serving: dict[str, list[Replica]] = {}
        owners: dict[str, str] = {}
        for engine in engines:
            for model in engine.models:
                serving.setdefault(model.id, []).append(replicas[engine.url])
                owners.setdefault(model.id, model.owned_by or engine.engine)
        return [
            Pool(model, members, POLICIES["least_request"](), owned_by=owners[model])
            for model, members in serving.items()
        ]

    def demo(self, urls: Sequence[str]) -> list[Pool]:
        """The pool of the embedded demo replicas."""
        replicas = self._take(ReplicaConfig(url=url) for url in urls)
        policy = POLICIES["least_request"]()
        return [
            Pool(DEMO_MODEL, list(replicas.values()), policy, owned_by="triolet-demo-simulation")
        ]

    def _take(self, wanted: Iterable[ReplicaConfig]) -> dict[str, Replica]:
        """The replicas for these, known ones again; those not wanted any more are forgotten."""
        taken: dict[str, Replica] = {}
        for config in wanted:
            replica = taken.get(config.url) or self._known(config.url)
            replica.max_in_flight = _smaller(config, taken.get(config.url))
            replica.headers = _headers(config)
            taken[config.url] = replica
        self._replicas = taken
        return taken

    def _known(self, url: str) -> Replica:
        known = self._replicas.get(url)
        if known is not None:
            return known
        if url.startswith("https:"):
            tls_context()  # read the authorities now, not while streams wait
        return Replica(url, self._dialer)


def _smaller(config: ReplicaConfig, taken: Replica | None) -> int | None:
    """A replica in two pools has one limit: the stricter one."""
    if taken is None or taken.max_in_flight is None:
        return config.max_in_flight
    if config.max_in_flight is None:
        return taken.max_in_flight
    return min(taken.max_in_flight, config.max_in_flight)


def _headers(config: ReplicaConfig) -> dict[bytes, bytes]:
    headers = {name.lower().encode(): value.encode() for name, value in config.headers.items()}
    if config.api_key is not None:
        headers[b"authorization"] = b"Bearer " + config.api_key.encode()
    return headers
