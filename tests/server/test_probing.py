"""Where each replica's metrics, GPUs and cache events are looked for, as it is configured now."""

from __future__ import annotations

from typing import Any

from balancer.catalog import Catalog
from balancer.probes.gpu import GpuPlace
from balancer.wire.connect import Dialer
from server.config import Config, PoolConfig, ReplicaConfig
from server.config.model import KvEventsConfig
from server.membership import Membership
from server.pools import PoolBuilder
from server.probing import Probing


def probing(*replicas: ReplicaConfig, addresses: tuple[str, ...] = ()) -> Probing:
    pool = PoolConfig(model="m", replicas=replicas)
    membership = Membership([pool])
    membership.resolved("many", addresses)
    builder = PoolBuilder(Dialer())
    catalog = Catalog(builder.configured(membership))
    made = Probing(Config(pool=(pool,)), Dialer(), catalog, builder.config_of)
    made._take()
    return made


def named(**beside: Any) -> ReplicaConfig:
    return ReplicaConfig(url="http://many:8000", resolve=True, **beside)


async def test_each_address_of_a_name_has_its_own() -> None:
    """Not one source for all: asked by the name, any of them would answer for each."""
    events = KvEventsConfig(endpoint="tcp://many:5557", replay="tcp://many:5558", topic="kv")
    made = probing(
        named(
            metrics="http://many:8002/metrics", gpu_exporter="http://many:9400", kv_events=events
        ),
        addresses=("10.0.0.1", "fd00::1"),
    )
    one, other = made._catalog.replicas
    pages = [str(made._pages[replica.name]) for replica in (one, other)]
    assert pages == ["http://10.0.0.1:8002/metrics", "http://[fd00::1]:8002/metrics"]
    assert made._pages[one.name].authority == "many:8002", "which is what its certificate is for"
    assert made._place_of(one) == GpuPlace((), "http://10.0.0.1:9400")
    assert made._place_of(other) == GpuPlace((), "http://[fd00::1]:9400")
    assert made._kv_source(one) == KvEventsConfig(
        endpoint="tcp://10.0.0.1:5557", replay="tcp://10.0.0.1:5558", topic="kv"
    )
    source = made._kv_source(other)
    assert source is not None
    assert source.endpoint == "tcp://[fd00::1]:5557"


async def test_one_replica_has_what_it_is_given() -> None:
    """Wherever that is."""
    events = KvEventsConfig(endpoint="tcp://elsewhere:5557")
    made = probing(
        ReplicaConfig(
            url="http://a:1",
            metrics="http://elsewhere:8002/metrics",
            gpu_exporter="http://a:9400",
            gpus=(1,),
            kv_events=events,
        ),
        ReplicaConfig(url="http://b:1"),
    )
    a, b = made._catalog.replicas
    assert str(made._pages[a.name]) == "http://elsewhere:8002/metrics"
    assert made._place_of(a) == GpuPlace((1,), "http://a:9400")
    assert made._kv_source(a) == events
    assert b.name not in made._pages
    assert (made._place_of(b), made._kv_source(b)) == (GpuPlace(), None)
