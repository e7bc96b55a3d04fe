"""Which replicas each configured pool has: from its list, its file, its names, and by hand. Pure.

listed     `replicas` of the pool, and what its `replicas_file` holds now
resolved   of a replica with `resolve`, one for each address of its name
added      through the admin API, until they are removed or the process ends
removed    through the admin API: not a member, whoever lists it, until added again
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from balancer.wire.connect import Origin
from server.config import PoolConfig, ReplicaConfig

__all__ = ["Member", "Membership"]


class Member(NamedTuple):
    """One replica of a pool: where it is, and how it is configured."""

    origin: Origin
    config: ReplicaConfig

    @property
    def name(self) -> str:
        """What the replica is called, in metrics and everywhere."""
        return str(self.origin)


class Membership:
    """What the sources say, and what follows from it."""

    def __init__(self, pools: Sequence[PoolConfig] = ()) -> None:
        self.pools = tuple(pools)
        self._listed: dict[str, tuple[ReplicaConfig, ...]] = {}
        self._addresses: dict[str, tuple[str, ...]] = {}
        self._added: dict[str, dict[str, ReplicaConfig]] = {}
        self._removed: dict[str, set[str]] = {}

    def configure(self, pools: Sequence[PoolConfig]) -> None:
        """The configuration was read again. What was added or removed by hand stays so."""
        self.pools = tuple(pools)

    def coming(self, pools: Sequence[PoolConfig]) -> Membership:
        """One of these pools that knows what this one does, now and later: to find out what their
        sources say before they are served."""
        other = Membership(pools)
        other._listed, other._addresses = self._listed, self._addresses
        other._added, other._removed = self._added, self._removed
        return other

    @property
    def files(self) -> set[str]:
        """The files to be watched."""
        return {pool.replicas_file for pool in self.pools if pool.replicas_file is not None}

    @property
    def hosts(self) -> set[str]:
        """The names to be resolved."""
        return {
            Origin.parse(config.url).host
            for pool in self.pools
            for config in self._configs(pool)
            if config.resolve
        }

    def listed(self, file: str, replicas: Sequence[ReplicaConfig]) -> None:
        """What that file holds now."""
        self._listed[file] = tuple(replicas)

    def resolved(self, host: str, addresses: Sequence[str]) -> None:
        """The addresses that this name has now."""
        self._addresses[host] = tuple(addresses)

    def add(self, model: str, config: ReplicaConfig) -> bool:
        """Make it a member; false if it is one already. What another source says of it then holds.
        Raises KeyError if no pool is of that model."""
        pool = self._pool(model)
        was_removed = config.url in self._removed.get(model, ())
        self._removed.get(model, set()).discard(config.url)
        if self._lists(pool, config.url):
            return was_removed
        self._added.setdefault(model, {})[config.url] = config
        return True

    def remove(self, model: str, url: str) -> bool:
        """Have it no longer; false if it was none. Of a name with `resolve` the URL of the name
        removes all of them, that of an address one. Raises KeyError if no pool is of that model."""
        pool = self._pool(model)
        removed = self._removed.setdefault(model, set())
        if url in removed or not self._lists(pool, url):
            return False
        removed.add(url)
        self._added.get(model, {}).pop(url, None)
        return True

    def members(self, pool: PoolConfig) -> list[Member]:
        """Its replicas, each once, in the order of the sources."""
        removed = self._removed.get(pool.model, set())
        found: dict[str, Member] = {}
        for config in self._configs(pool):
            for origin in self._origins(config):
                if config.url not in removed and str(origin) not in removed:
                    found.setdefault(str(origin), Member(origin, config))
        return list(found.values())

    def _lists(self, pool: PoolConfig, url: str) -> bool:
        """Whether any source has it, by its own URL or as an address of a name that is a member."""
        removed = self._removed.get(pool.model, set())
        return any(
            config.url not in removed
            and (url == config.url or url in map(str, self._origins(config)))
            for config in self._configs(pool)
        )

    def _configs(self, pool: PoolConfig) -> Iterator[ReplicaConfig]:
        yield from pool.replicas
        if pool.replicas_file is not None:
            yield from self._listed.get(pool.replicas_file, ())
        yield from self._added.get(pool.model, {}).values()

    def _origins(self, config: ReplicaConfig) -> list[Origin]:
        origin = Origin.parse(config.url)
        if not config.resolve:
            return [origin]
        return [origin.at(address) for address in self._addresses.get(origin.host, ())]

    def _pool(self, model: str) -> PoolConfig:
        for pool in self.pools:
            if pool.model == model:
                return pool
        raise KeyError(model)
