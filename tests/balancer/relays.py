"""What the tests of dispatch share: pools over scripted replicas, and proof that all is settled."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio
import trio.testing

from balancer.admission import Standing, Tier
from balancer.dispatch import Dispatch, Request
from balancer.policies import Ask, Bookless, Loaded, Outcome
from balancer.policies.loaded import R
from balancer.pool import Pool, PoolSettings, Timeouts
from balancer.replica import Replica, ReplicaSettings
from balancer.wire.memory import MemoryDialer, memory_network
from tests.balancer.scripted import (
    DONE,
    USAGE,
    NotingClient,
    ScriptedReplica,
    Step,
    event,
    stream,
)

GOOD = stream(event("a"), event("b"), USAGE, DONE)
GOOD_BODY = event("a") + event("b") + USAGE + DONE
JSON = b'{"choices":[{"text":"hi"}],"usage":{"prompt_tokens":2,"completion_tokens":3}}'
TIMEOUTS = Timeouts(connect_s=1, first_byte_s=5, idle_s=4, total_s=60)
TIERS = (
    Tier(name="interactive", rank=0, queue_s=20, preempts=True),
    Tier(name="batch", rank=1, queue_s=20, yields_s=9, handicap_s=30),
)

Script = Sequence[Step] | ScriptedReplica | None
"""What a replica does; None is one that refuses connections."""


class First(Bookless):
    """A policy that makes the order of tries plain: always the first one offered.

    Its books are a list of what it was told, and by whom it was used.
    """

    def __init__(self) -> None:
        self.told: list[tuple[str, str, int | None]] = []

    def pick(self, candidates: Sequence[R], ask: Ask) -> R:
        return candidates[0]

    def leased(self, replica: Loaded, ask: Ask) -> None:
        self.told.append(("leased", replica.name, None))

    def answered(self, replica: Loaded, ask: Ask) -> None:
        self.told.append(("answered", replica.name, None))

    def released(self, replica: Loaded, ask: Ask, outcome: Outcome) -> None:
        self.told.append(("released", replica.name, outcome.cached_tokens))

    def count(self, what: str) -> int:
        return sum(kind == what for kind, _, _ in self.told)


async def make_request(pool: Pool) -> Request:
    """The same for every pool."""
    body = b'{"a":1}'
    return Request("POST", b"/v1/chat/completions", [(b"x-own", b"client")], body)


@dataclass
class Relay:
    """A chain of pools over scripted replicas: that of the first one, and those it falls back to.

    `replicas`, `scripted` and `policy` are the first pool's.
    """

    network: MemoryDialer
    pools: Sequence[Pool]
    scripts: Sequence[Sequence[ScriptedReplica]]
    policies: Sequence[First]

    @property
    def pool(self) -> Pool:
        return self.pools[0]

    @property
    def policy(self) -> First:
        return self.policies[0]

    @property
    def scripted(self) -> Sequence[ScriptedReplica]:
        return self.scripts[0]

    @property
    def replicas(self) -> Sequence[Replica]:
        return self.pool.replicas

    @property
    def all_replicas(self) -> list[Replica]:
        return [replica for pool in self.pools for replica in pool.replicas]

    def dispatch(
        self, client: NotingClient | None = None, standing: Standing | None = None
    ) -> Dispatch:
        client = client or NotingClient()
        now = trio.current_time()
        return Dispatch(self.pools, make_request, client, standing=standing, now=now)

    async def ask(
        self, client: NotingClient | None = None, standing: Standing | None = None
    ) -> Dispatch:
        dispatch = self.dispatch(client, standing)
        await dispatch.run()
        return dispatch

    def served(self, place: int = 0) -> list[int]:
        """How many requests came to each replica of that pool."""
        return [len(scripted.requests) for scripted in self.scripts[place]]

    def assert_settled(self) -> None:
        """Every lease is released, in the books too, every trial given back; nobody waits; every
        connection is kept or closed."""
        for policy in self.policies:
            assert policy.count("leased") == policy.count("released")
            assert policy.count("answered") <= policy.count("leased")
        for pool in self.pools:
            statistics = pool.statistics()
            assert (statistics.waiting, statistics.in_flight) == (0, 0)
            assert all(tier.in_flight == tier.waiting == 0 for tier in statistics.tiers)
        for replica in self.all_replicas:
            load = replica.load
            assert (load.requests, load.waiting, load.waiting_tokens) == (0, 0, 0)
            breaker = replica.breaker
            assert breaker.standing != "half_open" or breaker.admits(trio.current_time())
        assert self.network.open == sum(one.connections.idle for one in self.all_replicas)


@asynccontextmanager
async def relay(
    *scripts: Script,
    fallback: Sequence[Sequence[Script]] = (),
    timeouts: Timeouts = TIMEOUTS,
    settings: PoolSettings = PoolSettings(),  # noqa: B008 - immutable
    judged: ReplicaSettings = ReplicaSettings(),  # noqa: B008 - immutable
    max_in_flight: int | None = None,
    capacity_bytes: int = 65_536,
    url: str = "http://r{}",
    chance: Callable[[], float] = lambda: 0.5,
) -> AsyncIterator[Relay]:
    """Replicas r0, r1 … of model m, tried in that order; those of `fallback` are m1-r0 … of m1.

    At the end everything must be settled: see `Relay.assert_settled`.
    """
    async with memory_network(capacity_bytes=capacity_bytes) as network:
        pools, scripted, policies = [], [], []
        for place, listed in enumerate([scripts, *fallback]):
            place_url = url if place == 0 else f"http://m{place}-r{{}}"
            scripted.append([_scripted(script) for script in listed])
            replicas = []
            for number, script in enumerate(listed):
                name = place_url.format(number)
                if script is not None:
                    network.serve(name, scripted[place][number])
                replicas.append(
                    Replica(
                        name, network, max_in_flight=max_in_flight, settings=judged, chance=chance
                    )
                )
            policies.append(First())
            model = f"m{place}" if place else "m"
            pools.append(
                Pool(
                    model,
                    replicas,
                    policies[place],
                    tiers=TIERS,
                    timeouts=timeouts,
                    settings=settings,
                    chance=chance,
                )
            )
        made = Relay(network, pools, scripted, policies)
        yield made
        await trio.testing.wait_all_tasks_blocked()
        made.assert_settled()


def _scripted(script: Script) -> ScriptedReplica:
    return script if isinstance(script, ScriptedReplica) else ScriptedReplica(script or [])
