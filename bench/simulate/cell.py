"""One cell of the policy table: a workload on a fleet under a policy, or one of the limits."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import trio

from balancer.policies import POLICIES, Policy, PolicyName
from bench.engine import Profile, find_profile
from bench.engine.profile import read_profile
from bench.report.statistics import summarize
from bench.simulate.conditions import Conditions
from bench.simulate.figures import Row, row_of
from bench.simulate.limits import best_hit_rate, found_at_best, least_ttft_s
from bench.simulate.play import longest_served, play, replica_name
from bench.simulate.reference import REFERENCE
from bench.simulate.reference import Engine as KnownEngine
from bench.simulate.reference import Fleet as KnownFleet
from bench.simulate.weights import STATIC_WEIGHTS, StaticWeights, parse_weights, weight_names
from bench.workload.mixing import only_tier, stretched
from bench.workload.model import Workload
from bench.workload.named import WORKLOADS, WorkloadOptions

__all__ = [
    "CLAIRVOYANT",
    "INFINITE_CACHE",
    "LIMITS",
    "POLICY_NAMES",
    "Cell",
    "competes",
    "made_policy",
    "parse_fleet",
    "simulate",
    "simulate_workload",
    "weightings",
]

INFINITE_CACHE: Final = "limit: infinite cache"
CLAIRVOYANT: Final = "limit: clairvoyant"
LIMITS: Final = (INFINITE_CACHE, CLAIRVOYANT)

_TYPICAL_CONTEXT: Final = 2_000
"""Tokens at which a policy is told what one stream more costs the others."""


def _own(name: PolicyName) -> Callable[[KnownFleet], Policy]:
    return lambda fleet: POLICIES[name](seed=fleet.seed)  # of the fleet's truth it is told nothing


_POLICIES: Final[Mapping[str, Callable[[KnownFleet], Policy]]] = {
    **{name: _own(name) for name in POLICIES},
    **REFERENCE,
}
POLICY_NAMES: Final = tuple(_POLICIES)
"""The balancer's own policies first, then the reference policies."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be simulated."""

    workload: str
    policy: str
    """One of `POLICY_NAMES` or `LIMITS`."""
    fleet: tuple[str, ...]
    """For each replica the name of its profile, or the path of the JSON file it is in."""
    options: WorkloadOptions
    max_in_flight: int | None = None
    """The pool's bound for each replica."""
    conditions: Conditions = Conditions()
    title: str = ""
    """What the row calls the workload; empty: its name."""
    tier: str | None = None
    """Play the sessions of this tier alone."""
    lengths: float = 1.0
    """How many times as long all prompts and answers are."""

    @property
    def shown_as(self) -> str:
        """The row's workload."""
        return self.title or self.workload


def parse_fleet(text: str) -> tuple[str, ...]:
    """`h100-llama-8b:4,mine.json:2` as one name for each replica.

    Raises ValueError (ProfileError for a profile that does not exist).
    """
    names: list[str] = []
    for part in text.split(","):
        name, colon, count = part.strip().partition(":")
        if not name or (colon and not (count.isdecimal() and int(count) > 0)):
            raise ValueError(f"{part!r} in fleet {text!r}: expected profile:count, count 1 or more")
        _profile(name)
        names += [name] * int(count or 1)
    return tuple(names)


def _profile(name: str) -> Profile:
    return read_profile(Path(name)) if name.endswith(".json") else find_profile(name)


def weightings(fleet: Sequence[str]) -> list[str]:
    """The policy names of static weightings to be tried on `fleet`; see `StaticWeights`."""
    rates = {name: _profile(name).prefill_tokens_per_s for name in dict.fromkeys(fleet)}
    return weight_names(fleet, sorted(rates, key=lambda name: -rates[name]))


def competes(policy: str) -> bool:
    """Whether it is a policy, and not something to measure policies against."""
    return policy not in LIMITS and not policy.startswith(STATIC_WEIGHTS)


def simulate(cell: Cell) -> Row:
    """Run one cell."""
    workload = WORKLOADS[cell.workload](cell.options)
    if cell.tier is not None:
        workload = only_tier(workload, cell.tier)
    if cell.lengths != 1:
        workload = stretched(workload, cell.lengths)
    kinds = {name: _profile(name) for name in cell.fleet}
    row = simulate_workload(
        workload,
        [kinds[name] for name in cell.fleet],
        cell.policy,
        conditions=cell.conditions,
        seed=cell.options.seed,
        max_in_flight=cell.max_in_flight,
    )
    return msgspec.structs.replace(row, workload=cell.shown_as)


def simulate_workload(
    workload: Workload,
    fleet: Sequence[Profile],
    policy: str,
    *,
    conditions: Conditions = Conditions(),  # noqa: B008 - immutable
    seed: int = 0,
    max_in_flight: int | None = None,
) -> Row:
    """The row of `policy` (or of a limit) for `workload` on these engines; `seed` is the policy's
    and the conditions'.

    Raises KeyError for a policy that is neither of `POLICY_NAMES` nor of `LIMITS`, nor weighted.
    """
    began_s = time.process_time()
    if policy in LIMITS:
        row = _limit(workload, fleet, policy, seed)
    else:
        if policy not in _POLICIES and not policy.startswith(STATIC_WEIGHTS):
            raise KeyError(policy)
        played = play(
            workload,
            fleet,
            lambda: made_policy(policy, fleet, seed),
            conditions=conditions,
            seed=seed,
            max_in_flight=max_in_flight,
        )
        row = row_of(workload.name, policy, played, seed=seed)
    return msgspec.structs.replace(row, cpu_s=time.process_time() - began_s)


def made_policy(policy: str, fleet: Sequence[Profile], seed: int) -> Policy:
    """The policy of that name, for a run on `fleet`. Raises KeyError if there is none."""
    if policy.startswith(STATIC_WEIGHTS):
        return StaticWeights(parse_weights(policy))
    return _POLICIES[policy](_known(fleet, seed))


def _limit(workload: Workload, fleet: Sequence[Profile], limit: str, seed: int) -> Row:
    # What is found in the blocks of any replica is found in blocks of their common divisor.
    block_tokens = math.gcd(*{profile.block_tokens for profile in fleet})
    found = found_at_best(workload, block_tokens, longest_served(fleet))
    row = Row(workload=workload.name, policy=limit, seed=seed, requests=len(found))
    if limit == INFINITE_CACHE:
        return msgspec.structs.replace(row, hit_rate=best_hit_rate(found))
    return msgspec.structs.replace(row, ttft_s=summarize(least_ttft_s(found, fleet)))


def _known(fleet: Sequence[Profile], seed: int) -> KnownFleet:
    engines = [_known_engine(profile) for profile in fleet]
    return KnownFleet(
        replicas=len(fleet),
        engine=engines[0],
        engines={replica_name(number): engine for number, engine in enumerate(engines)},
        clock=trio.current_time,
        seed=seed,
    )


def _known_engine(profile: Profile) -> KnownEngine:
    return KnownEngine(
        kv_tokens=profile.kv_tokens,
        prefill_tokens_per_s=profile.prefill_tokens_per_s,
        max_running=profile.max_num_seqs,
        decode_s_per_stream=profile.sequence_s + profile.context_s * _TYPICAL_CONTEXT,
    )
