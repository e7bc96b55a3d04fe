"""Everything that asks replicas, engines and GPUs besides the traffic: made, started, pointed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

import trio

from balancer.catalog import Catalog
from balancer.probes.foreign import ForeignWatch
from balancer.probes.gauges import GaugeProbes
from balancer.probes.gpu import GpuPlace, GpuProbes
from balancer.probes.health import HealthProbes
from balancer.probes.per_replica import TaskPerReplica
from balancer.replica import Replica
from balancer.wire.connect import Dialer, Origin
from server.config import Config, ReplicaConfig
from server.config.model import KvEventsConfig

if TYPE_CHECKING:
    from balancer.probes.kv_events import KvEvents

__all__ = ["Probing"]

log = logging.getLogger("triolet.probes")

_SECOND_S: Final = 1.0
"""Stands for how often readings come that do not come at all."""


class Probing:
    """Health, gauges, GPUs, foreign load and cache events of the catalog's replicas."""

    def __init__(
        self,
        config: Config,
        dialer: Dialer,
        catalog: Catalog,
        config_of: Callable[[Replica], ReplicaConfig],
    ) -> None:
        """`config_of` says how a replica of the catalog is configured."""
        asked = config.probes
        self._catalog = catalog
        self._config_of = config_of
        self._health = HealthProbes(
            dialer, interval_s=config.health.interval_s, timeout_s=config.health.timeout_s
        )
        self._foreign = ForeignWatch(self._poll_s, asked.gpu_s or _SECOND_S)
        self._pages: dict[str, Origin] = {}
        self._gauges: GaugeProbes | None = None
        if asked.engine_s:
            self._gauges = GaugeProbes(
                dialer, poll_s=asked.engine_s, on_read=self._foreign.read, pages=self._pages
            )
        self._gpus: GpuProbes | None = None
        if asked.gpu_s:
            self._gpus = GpuProbes(dialer, place_of=self._place_of, interval_s=asked.gpu_s)
        self._events: KvEvents | None = None
        self._listening = TaskPerReplica(
            "hearing the cache events of", self._listen, self._kv_source
        )

    def _poll_s(self) -> float:
        return self._gauges.poll_s if self._gauges is not None else _SECOND_S

    async def start(self, nursery: trio.Nursery) -> None:
        """Start all of them, for the replicas that there are now."""
        replicas = self._take()
        await nursery.start(self._health.run, replicas)
        if self._gauges is not None:
            await nursery.start(self._gauges.run, replicas)
        if self._gpus is not None:
            await nursery.start(self._gpus.run, replicas)
        await nursery.start(self._listening.run, self._publishing(replicas))
        nursery.start_soon(self._foreign.run, lambda: self._catalog.replicas)
        if self._catalog.replicas != replicas:  # names and files were looked at meanwhile
            self.watch()

    def watch(self) -> None:
        """The catalog's replicas are others than before, or configured otherwise: ask those, so."""
        replicas = self._take()
        self._health.watch(replicas)
        if self._gauges is not None:
            self._gauges.watch(replicas)
        if self._gpus is not None:
            self._gpus.watch(replicas)
        self._listening.watch(self._publishing(replicas))

    def _take(self) -> Sequence[Replica]:
        replicas = self._catalog.replicas
        self._pages.clear()
        self._pages.update(self._pages_of(replicas))
        return replicas

    def _pages_of(self, replicas: Sequence[Replica]) -> Mapping[str, Origin]:
        urls = ((replica, self._config_of(replica).metrics) for replica in replicas)
        return {one.name: _beside(one, Origin.parse(url)) for one, url in urls if url is not None}

    def _place_of(self, replica: Replica) -> GpuPlace:
        config, exporter = self._config_of(replica), None
        if config.gpu_exporter is not None:
            exporter = str(_beside(replica, Origin.parse(config.gpu_exporter)))
        return GpuPlace(config.gpus, exporter)

    # Cache events

    def _publishing(self, replicas: Sequence[Replica]) -> list[Replica]:
        """Those that publish cache events, if they can be heard."""
        found = [one for one in replicas if self._config_of(one).kv_events is not None]
        if found and find_spec("zmq") is None:
            log.warning(
                "kv_events of %d replicas are not heard: install triolet[kvevents]", len(found)
            )
            return []
        return found

    async def _listen(self, replica: Replica) -> None:
        from balancer.probes.kv_events import KvEvents, KvSource

        config = self._kv_source(replica)
        if config is None:
            return
        if self._events is None:
            self._events = KvEvents(self._emptied, self._missed, self._found_capacity)
        source = KvSource(config.endpoint, config.replay, config.topic)
        await self._events.watch(replica.name, source)

    def _kv_source(self, replica: Replica) -> KvEventsConfig | None:
        config, named = self._config_of(replica).kv_events, replica.origin.named
        if config is None or not named:
            return config
        return KvEventsConfig(
            endpoint=_endpoint_at(replica.origin, config.endpoint),
            replay=None if config.replay is None else _endpoint_at(replica.origin, config.replay),
            topic=config.topic,
        )

    def _emptied(self, name: str) -> None:
        for pool in self._catalog.pools.values():
            pool.on_restart(name)

    def _missed(self, name: str) -> None:
        for pool in self._catalog.pools.values():
            pool.trust.doubt(name)

    def _found_capacity(self, name: str, tokens: int) -> None:
        for pool in self._catalog.pools.values():
            pool.on_capacity(name, tokens)


def _beside(replica: Replica, origin: Origin) -> Origin:
    """Of a name with many addresses: what is at that name too is at this replica's address."""
    own = replica.origin
    return origin.at(own.host) if own.named and origin.host == own.named else origin


def _endpoint_at(own: Origin, endpoint: str) -> str:
    scheme, _, authority = endpoint.partition("://")
    host, _, port = authority.rpartition(":")
    if host != own.named:
        return endpoint
    return f"{scheme}://[{own.host}]:{port}" if ":" in own.host else f"{scheme}://{own.host}:{port}"
