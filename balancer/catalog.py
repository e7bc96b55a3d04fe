"""Which pools there are now: model names to pools, URLs to replicas. Replaced while serving."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from balancer.pool import Pool
from balancer.replica import Replica

__all__ = ["Catalog"]


class Catalog:
    """The live set of pools. `replace` swaps it; what is in flight goes on with what it has."""

    def __init__(self, pools: Iterable[Pool] = ()) -> None:
        self._pools: dict[str, Pool] = {pool.model: pool for pool in pools}

    @property
    def pools(self) -> Mapping[str, Pool]:
        return self._pools

    @property
    def replicas(self) -> list[Replica]:
        """Every replica once, in the order of the pools."""
        return list(dict.fromkeys(r for pool in self._pools.values() for r in pool.replicas))

    def find(self, model: str) -> Pool | None:
        return self._pools.get(model)

    def replace(self, pools: Iterable[Pool]) -> None:
        """Serve these from now on; replicas that no pool lists any more are let go."""
        old_pools, old_replicas = self._pools, self.replicas
        self._pools = {pool.model: pool for pool in pools}
        for model, pool in old_pools.items():
            new = self._pools.get(model)
            if new is not pool:
                if new is not None:
                    new.succeed(pool)
                pool.retire()
        self._close_all_but_mine(old_replicas)

    def update(self, members: Mapping[str, Sequence[Replica]]) -> None:
        """These are the replicas of those pools (by model) from now on."""
        old_replicas = self.replicas
        for model, replicas in members.items():
            pool = self._pools.get(model)
            if pool is not None and pool.replicas != tuple(replicas):
                pool.update(replicas)
        self._close_all_but_mine(old_replicas)

    def _close_all_but_mine(self, replicas: Iterable[Replica]) -> None:
        kept = set(self.replicas)
        for replica in replicas:
            if replica not in kept:
                replica.close()
