"""What pools, tiers and replicas are like at a scrape; what nobody knows has no sample."""

from __future__ import annotations

from typing import get_args

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from balancer.admission import Standing, Tier
from balancer.catalog import Catalog
from balancer.errors import AnswerLost, PoolBusy
from balancer.policies import LeastRequest
from balancer.pool import Pool
from balancer.readings import Gauges, GpuReading
from balancer.replica import Replica, ReplicaState
from balancer.wire.connect import Dialer
from server.observe.pool_metrics import pool_families
from tests.balancer.scripted import in_virtual_time

TIERS = (Tier(name="gold", rank=0, queue=1, queue_s=1.0), Tier(name="tin", rank=1, queue=0))


def catalog_(limit: int | None = None) -> Catalog:
    replicas = [Replica(f"http://{name}", Dialer(), max_in_flight=limit) for name in "ab"]
    return Catalog(
        [
            Pool("small", replicas, LeastRequest(), tiers=TIERS),
            Pool("large", replicas[:1], LeastRequest(), tiers=TIERS),
        ]
    )


def samples(catalog: Catalog) -> dict[tuple[str, ...], float]:
    """By the name without `triolet_` and the values of the labels."""
    return {
        (sample.name.removeprefix("triolet_"), *sample.labels.values()): sample.value
        for family in pool_families(catalog, trio.current_time())
        for sample in family.samples
    }


async def test_loads_are_of_now() -> None:
    """Read from the books at each scrape, not counted up and down beside them."""
    catalog = catalog_()
    replica = catalog.pools["large"].replicas[0]
    loads: list[tuple[str, ...]] = [
        ("replica_in_flight", replica.name),
        ("pool_in_flight", "large"),
    ]
    loads += [("tier_in_flight", "large", "tin"), ("replica_unread_tokens", replica.name)]
    assert [samples(catalog)[key] for key in loads] == [0, 0, 0, 0]
    standing = Standing("tin", trio.current_time())
    with await catalog.pools["large"].lease((), standing=standing) as lease:
        assert [samples(catalog)[key] for key in loads] == [1, 1, 1, 1]
        assert samples(catalog)["tier_in_flight", "large", "gold"] == 0
        lease.answered()
        assert [samples(catalog)[key] for key in loads] == [1, 1, 1, 0]
    assert [samples(catalog)[key] for key in loads] == [0, 0, 0, 0]


async def test_one_state_at_a_time() -> None:
    """Each state has its series, 1 for the one that holds."""
    catalog = catalog_()
    [replica, other] = catalog.replicas

    def state(name: str) -> list[str]:
        found = samples(catalog)
        states = {
            key[2]: value for key, value in found.items() if key[:2] == ("replica_state", name)
        }
        assert set(states) == set(get_args(ReplicaState))
        return [state for state, value in states.items() if value]

    assert state(replica.name) == ["up"]
    replica.probed(False, trio.current_time())
    assert (state(replica.name), state(other.name)) == (["down"], ["up"])
    assert samples(catalog)["replica_up", replica.name] == 0
    assert samples(catalog)["pool_replicas_up", "small"] == 1
    replica.probed(True, trio.current_time())
    replica.drain()
    assert state(replica.name) == ["draining"]
    replica.drain(False)
    replica.gpu = GpuReading(at=trio.current_time(), fault="lost")
    assert state(replica.name) == ["faulty"]


async def test_what_nobody_knows_has_no_sample() -> None:
    """It is not 0: an alert on a free cache would be wrong."""
    catalog = catalog_()
    replica, other = catalog.replicas
    now = trio.current_time()
    replica.gauges = Gauges(at=now, kv_share=0.25)
    replica.gpu = GpuReading(at=now, utilisation=0.5)
    replica.foreign_share = 0.125
    found = samples(catalog)
    assert found["replica_kv_share", replica.name] == 0.25
    assert found["replica_gpu_utilisation", replica.name] == 0.5
    assert found["replica_foreign_share", replica.name] == 0.125
    assert found["replica_prefill_tokens_per_second", replica.name] > 0
    assert ("replica_kv_share", other.name) not in found
    assert ("replica_gpu_utilisation", other.name) not in found
    other.gpu = GpuReading(at=now)
    assert ("replica_gpu_utilisation", other.name) not in samples(catalog)


async def test_tiers_in_line(autojump_clock: trio.testing.MockClock) -> None:
    """Who waits, and who was refused for what."""
    pool = Pool("m", [Replica("http://a", Dialer(), max_in_flight=1)], LeastRequest(), tiers=TIERS)
    catalog = Catalog([pool])
    refused: list[str] = []

    async def ask(tier: str) -> None:
        try:
            await pool.lease((), standing=Standing(tier, trio.current_time()))
        except PoolBusy:
            refused.append(tier)

    with await pool.lease():
        async with trio.open_nursery() as nursery:
            for tier in ("gold", "gold", "tin", "tin"):
                nursery.start_soon(ask, tier)
                await trio.testing.wait_all_tasks_blocked()
            found = samples(catalog)
            assert (found["tier_waiting", "m", "gold"], found["pool_waiting", "m"]) == (1, 1)
            assert found["tier_refused_total", "m", "gold", "full"] == 1
            assert found["tier_refused_total", "m", "tin", "full"] == 2
    found = samples(catalog)
    assert found["tier_refused_total", "m", "gold", "late"] == 1
    assert found["tier_refused_total", "m", "gold", "hopeless"] == 0
    assert found["tier_waiting", "m", "gold"] == 0
    assert sorted(refused) == ["gold", "gold", "tin", "tin"]


async def test_panic() -> None:
    """A pool says so when it uses replicas that it would rather not."""
    catalog = catalog_()
    assert samples(catalog)["pool_panic", "small"] == 0
    for _ in range(10):
        with await catalog.pools["small"].lease() as lease:
            lease.failed(AnswerLost(lease.replica.name, "reset"))
    assert samples(catalog)["pool_panic", "small"] == 1


@given(st.lists(st.sampled_from(["up", "down", "drain", "back", "lease"]), max_size=12))
def test_series_do_not_depend_on_states(events: list[str]) -> None:
    """Whatever happens, the same series are there: labels are bounded by what is configured."""

    async def play() -> None:
        catalog = catalog_()
        before = set(samples(catalog))
        replica = catalog.replicas[0]
        for event in events:
            if event in ("up", "down"):
                replica.probed(event == "up", trio.current_time())
            elif event == "lease":
                with await catalog.pools["small"].lease():
                    pass
            else:
                replica.drain(event == "drain")
            assert set(samples(catalog)) == before

    in_virtual_time(play)


def test_nothing_configured() -> None:
    """Every family is there, without samples."""

    async def look() -> int:
        families = [*pool_families(Catalog(), trio.current_time())]
        assert [sample for family in families for sample in family.samples] == []
        return len(families)

    assert trio.run(look) == pytest.approx(16)
