"""Pools out of the configuration: what reaches them, and what outlives a reload."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from balancer.admission import BATCH, INTERACTIVE, Tier
from balancer.catalog import Catalog
from balancer.decisions import policy_name
from balancer.faults import Fault
from balancer.policies import BLOCK_TOKENS, DEFAULT_POLICY, POLICIES
from balancer.pool import Pool, Timeouts
from balancer.prefix import PrefixIndex
from balancer.probes.discovery import Found
from balancer.probes.models import ListedModel
from balancer.readings import Gauges
from balancer.wire.connect import Dialer
from server.config import (
    BreakerConfig,
    PoolConfig,
    ReplicaConfig,
    TierConfig,
    TimeoutConfig,
)
from server.config.model import HedgeConfig, OutlierConfig, RetryBudgetConfig
from server.membership import Membership
from server.pools import PoolBuilder


def pool(*urls: str, model: str = "m", **options: Any) -> PoolConfig:
    replicas = tuple(ReplicaConfig(url=url) for url in urls)
    return PoolConfig(model=model, replicas=replicas, **options)


def built(*configs: PoolConfig, builder: PoolBuilder | None = None) -> list[Pool]:
    return (builder or PoolBuilder(Dialer())).configured(Membership(configs))


def names(one: Pool) -> list[str]:
    return [replica.name for replica in one.replicas]


# --- settings


async def test_the_defaults_of_the_configuration_are_those_of_the_balancer() -> None:
    """Two places have them; a pool of the embedded demo is like one with nothing configured."""
    [configured] = built(pool("http://a"))
    plain = Pool("m", [], POLICIES["random"]())
    assert configured.settings == plain.settings
    assert configured.timeouts == plain.timeouts
    assert configured.tiers == (INTERACTIVE, BATCH)
    assert configured.hedge is None
    [demo] = PoolBuilder(Dialer()).demo(["http://a"])
    assert (demo.settings, demo.tiers) == (configured.settings, configured.tiers)
    assert (policy_name(demo.policy), policy_name(configured.policy)) == (DEFAULT_POLICY,) * 2


async def test_settings_reach_the_pool() -> None:
    """Every one of them, each in its place."""
    [found] = built(
        pool(
            "http://a",
            served_model="org/m",
            policy="least_request",
            retries=7,
            retry_budget=RetryBudgetConfig(share=0.5, per_s=3.0),
            fallback=("n", "o"),
            fallback_on=("overloaded",),
            hold_s=0.25,
            hedge=HedgeConfig(after_s=0.5, quantile=0.9, share=0.1),
            outliers=OutlierConfig(failure_share=0.3, times_others=4.0, volume=9, most=0.2),
            panic=0.5,
            timeouts=TimeoutConfig(connect_s=1, first_byte_s=2, idle_s=3, total_s=4),
        )
    )
    settings = found.settings
    assert found.served_model == "org/m"
    assert found.timeouts == Timeouts(connect_s=1, first_byte_s=2, idle_s=3, total_s=4)
    assert (settings.retries, settings.panic, settings.hold_s) == (7, 0.5, 0.25)
    assert (settings.retry_budget.share, settings.retry_budget.per_s) == (0.5, 3.0)
    assert settings.fallback == ("n", "o")
    assert settings.fallback_on == frozenset({Fault.OVERLOADED})
    assert settings.hedge is not None
    assert settings.hedge._asdict() == {"after_s": 0.5, "quantile": 0.9, "share": 0.1}
    outliers = settings.outliers._asdict()
    assert outliers == msgspec.structs.asdict(
        OutlierConfig(failure_share=0.3, times_others=4.0, volume=9, most=0.2)
    )
    assert found.hedge is not None


@pytest.mark.parametrize("policy", POLICIES)
async def test_every_policy_can_be_had_in_one_line(policy: Any) -> None:
    """A prefix index is there for those that read prompts, and costs the others nothing."""
    [found] = built(pool("http://a", policy=policy))
    assert policy_name(found.policy) == policy
    assert (found.prefixes is not None) == found.policy.reads_prompt


async def test_tiers() -> None:
    """In the order of their listing; a queue of the pool's own is that of the first default."""
    [found] = built(pool("http://a", queue=3, queue_s=4.0))
    assert found.tiers == (msgspec.structs.replace(INTERACTIVE, queue=3, queue_s=4.0), BATCH)
    every: dict[str, Any] = {
        "slots": 3,
        "reserve": 1,
        "queue": 2,
        "queue_s": 5.0,
        "handicap_s": 6.0,
        "deadline_ms": 700,
        "preempts": True,
        "yields_s": 8.0,
        "max_unread_tokens": 9,
        "max_kv_share": 0.5,
        "max_requests": 10,
    }
    [found] = built(pool("http://a", tiers=(TierConfig(name="z"), TierConfig(name="a", **every))))
    assert found.tiers == (Tier(name="z", rank=0), Tier(name="a", rank=1, **every))


async def test_the_breaker_of_every_replica() -> None:
    """One setting for all pools, as a replica may be in several."""
    config = BreakerConfig(failures_in_a_row=2, slow_start_s=0.0)
    [found] = built(pool("http://a"), builder=PoolBuilder(Dialer(), config))
    [replica] = found.replicas
    replica.ramp.restart(0.0)
    assert replica.ramp.cap is None, "no slow start"
    assert replica.breaker.standing == "closed"


# --- a replica in two pools


async def test_the_stricter_limit_of_two() -> None:
    """Whichever pool comes first; and a refresh lifts it not even for a moment."""
    one = PoolConfig(model="m", replicas=(ReplicaConfig(url="http://a", max_in_flight=2),))
    other, third = pool("http://a", model="n"), pool("http://a", model="o")
    for configs in ((one, other, third), (other, one, third), (other, third, one)):
        builder, membership = PoolBuilder(Dialer()), Membership(configs)
        pools = builder.configured(membership)
        replica = pools[0].replicas[0]
        assert {found.replicas for found in pools} == {(replica,)}
        assert replica.max_in_flight == 2
        with await pools[0].lease(), await pools[1].lease():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pools[2].lease)
                await trio.testing.wait_all_tasks_blocked()
                builder.members(membership)
                assert replica.in_flight == 2
                nursery.cancel_scope.cancel()


# --- reload


async def test_what_stays_keeps_what_it_knows() -> None:
    """Replica, policy and prefix index are the same after a reload; another policy starts anew."""
    builder = PoolBuilder(Dialer())
    [before] = built(pool("http://a", "http://b"), builder=builder)
    [after] = built(pool("http://b", "http://c", retries=1), builder=builder)
    assert after is not before
    assert after.settings.retries == 1
    assert after.policy is before.policy
    assert after.prefixes is before.prefixes
    assert after.replicas[0] is before.replicas[1]
    [other] = built(pool("http://b", policy="prefix_hash"), builder=builder)
    assert policy_name(other.policy) == "prefix_hash"
    [back] = built(pool("http://b"), builder=builder)
    assert back.policy is not before.policy


async def test_a_model_that_went_starts_anew() -> None:
    """It may be another one by now."""
    builder = PoolBuilder(Dialer())
    [before] = built(pool("http://a"), builder=builder)
    built(pool("http://a", model="n"), builder=builder)
    [after] = built(pool("http://a"), builder=builder)
    assert after.policy is not before.policy


def holders(found: Pool) -> set[str]:
    assert isinstance(found.prefixes, PrefixIndex)
    return set(found.prefixes.match([1, 2, 3]))


async def test_a_replica_that_went_is_forgotten() -> None:
    """The index names it no longer, however it came and went: by a reload, or while serving."""
    builder, membership = PoolBuilder(Dialer()), Membership([pool("http://a", "http://b")])
    catalog = Catalog(builder.configured(membership))
    index = catalog.pools["m"].prefixes
    assert index is not None
    for name in ("http://a", "http://b"):
        index.insert(name, [1, 2, 3])
    assert holders(catalog.pools["m"]) == {"http://a", "http://b"}
    membership.configure([pool("http://b")])
    catalog.replace(builder.configured(membership))
    assert holders(catalog.pools["m"]) == {"http://b"}
    membership.add("m", ReplicaConfig(url="http://c"))
    catalog.update(builder.members(membership))
    index.insert("http://c", [1, 2, 3])
    membership.remove("m", "http://b")
    catalog.update(builder.members(membership))
    assert holders(catalog.pools["m"]) == {"http://c"}
    membership.remove("m", "http://c")  # added while serving, gone at a reload
    catalog.replace(builder.configured(membership))
    assert holders(catalog.pools["m"]) == set()


async def test_members_change_in_place() -> None:
    """The pool stays, with who waits in it; a replica that comes back is a new one."""
    builder, membership = PoolBuilder(Dialer()), Membership([pool("http://a", "http://b")])
    catalog = Catalog(builder.configured(membership))
    before, [_, b] = catalog.pools["m"], catalog.replicas
    membership.remove("m", "http://a")
    membership.add("m", ReplicaConfig(url="http://c", api_key="k", headers={"x-a": "1"}))
    catalog.update(builder.members(membership))
    assert catalog.pools["m"] is before
    assert names(before) == ["http://b", "http://c"]
    assert before.replicas[0] is b
    assert before.replicas[1].headers == {b"x-a": b"1", b"authorization": b"Bearer k"}


async def test_the_index_is_as_large_as_the_engines_cache() -> None:
    """As far as the engine has said; the blocks that do not fit are the oldest."""
    [found] = built(pool("http://a"))
    [replica] = found.replicas
    assert isinstance(found.prefixes, PrefixIndex)
    replica.gauges = Gauges(at=0.0, kv_tokens=4 * BLOCK_TOKENS)
    for first in range(0, 100, 2):
        found.prefixes.insert(replica.name, [first, first + 1])
    assert len(found.prefixes) <= 4


async def test_discovered_pools_grow_in_place() -> None:
    """A second engine with the model joins its pool; what the pool knows stays."""
    builder = PoolBuilder(Dialer())
    listed = (ListedModel("m", "vllm"),)
    first = Found("vllm", "http://a", listed)
    [before] = builder.discovered([first])
    assert (before.owned_by, names(before)) == ("vllm", ["http://a"])
    second = Found("ollama", "http://b", (*listed, ListedModel("n")))
    after, other = builder.discovered([first, second], {"m": before})
    assert after is before
    assert names(before) == ["http://a", "http://b"]
    assert (names(other), other.owned_by) == (["http://b"], "ollama")
    assert other.replicas[0] is before.replicas[1]


async def test_the_first_pool_says_what_a_replica_is_sent() -> None:
    """A URL that another pool lists, too, maybe by the admin API, gets no other key by that."""
    builder = PoolBuilder(Dialer())
    first = PoolConfig(model="m", replicas=(ReplicaConfig(url="http://a", api_key="own"),))
    other = PoolConfig(
        model="n", replicas=(ReplicaConfig(url="http://a", headers={"x-team": "b"}),)
    )
    one, two = built(first, other, builder=builder)
    assert one.replicas == two.replicas
    assert one.replicas[0].headers == {b"authorization": b"Bearer own"}
    assert builder.config_of(one.replicas[0]).api_key == "own"
    [one] = built(other, builder=builder)
    assert one.replicas[0].headers == {b"x-team": b"b"}


async def test_models_that_are_listed_no_more_are_forgotten() -> None:
    """An engine may list other models every minute."""
    builder = PoolBuilder(Dialer())
    for number in range(20):
        listed = (ListedModel(f"m{number}"), ListedModel("stays"))
        pools = builder.discovered([Found("vllm", "http://a", listed)])
        assert [pool.model for pool in pools] == [f"m{number}", "stays"]
    assert builder._minds.keys() == builder._members.keys() == {"m19", "stays"}


async def test_more_models_than_anybody_serves(caplog: pytest.LogCaptureFixture) -> None:
    """The first thousand of all engines; said once."""
    builder = PoolBuilder(Dialer())
    many = tuple(ListedModel(f"m{number}") for number in range(1_500))
    found = [Found("vllm", "http://a", many), Found("ollama", "http://b", many[:1] + many[1_200:])]
    builder.discovered(found)
    pools = builder.discovered(found)
    assert [pool.model for pool in pools] == [f"m{number}" for number in range(1_000)]
    assert names(pools[0]) == ["http://a", "http://b"]
    assert caplog.text.count("lists more models than are taken") == 1
