"""One cell of the policy table: a workload on a fleet under a policy, or one of the limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
import trio

from balancer.policies import POLICIES, Policy, Random, RoundRobin
from bench.engine import Profile, find_profile
from bench.report.statistics import summarize
from bench.simulate.figures import Row, row_of
from bench.simulate.limits import least_ttft_s, one_replica
from bench.simulate.play import play, replica_name
from bench.simulate.reference import REFERENCE
from bench.simulate.reference import Engine as KnownEngine
from bench.simulate.reference import Fleet as KnownFleet
from bench.workload.model import Workload
from bench.workload.named import WORKLOADS, WorkloadOptions

__all__ = [
    "CLAIRVOYANT",
    "INFINITE_CACHE",
    "LIMITS",
    "POLICY_NAMES",
    "Cell",
    "parse_fleet",
    "simulate",
    "simulate_workload",
]

INFINITE_CACHE: Final = "limit: one replica, infinite cache"
CLAIRVOYANT: Final = "limit: clairvoyant, no queue"
LIMITS: Final = (INFINITE_CACHE, CLAIRVOYANT)

_TYPICAL_CONTEXT: Final = 2_000
"""Tokens at which a policy is told what one stream more costs the others."""


def _random(fleet: KnownFleet) -> Policy:
    return Random(fleet.seed)


def _plain(name: str) -> Callable[[KnownFleet], Policy]:
    made = POLICIES[name]  # type: ignore[index]
    return lambda fleet: made()


_POLICIES: Final[Mapping[str, Callable[[KnownFleet], Policy]]] = {
    **{name: _plain(name) for name in POLICIES},
    "random": _random,
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
    """A profile's name for each replica; what the workload says if empty."""
    options: WorkloadOptions
    max_in_flight: int | None = None
    """The pool's bound for each replica."""


def parse_fleet(text: str) -> tuple[str, ...]:
    """`h100-llama-8b:4,a100-llama-8b:2` as one name for each replica.

    Raises ValueError (ProfileError for a profile that does not exist).
    """
    names: list[str] = []
    for part in text.split(","):
        name, _, count = part.strip().partition(":")
        find_profile(name)
        if not (count or "1").isdecimal() or int(count or 1) < 1:
            raise ValueError(f"{part!r} in fleet {text!r}: expected profile:count, count 1 or more")
        names += [name] * int(count or 1)
    return tuple(names)


def simulate(cell: Cell) -> Row:
    """Run one cell."""
    workload = WORKLOADS[cell.workload](cell.options)
    fleet = [find_profile(name) for name in cell.fleet]
    return simulate_workload(
        workload, fleet, cell.policy, seed=cell.options.seed, max_in_flight=cell.max_in_flight
    )


def simulate_workload(
    workload: Workload,
    fleet: Sequence[Profile],
    policy: str,
    *,
    seed: int = 0,
    max_in_flight: int | None = None,
) -> Row:
    """The row of `policy` (or of a limit) for `workload` on these engines."""
    began_s = time.process_time()
    if policy == CLAIRVOYANT:
        return _clairvoyant(workload, fleet, began_s)
    if policy == INFINITE_CACHE:
        single = [one_replica(_fastest(fleet), len(fleet))]
        played = play(workload, single, RoundRobin)
    else:
        made = _POLICIES[policy]
        played = play(
            workload, fleet, lambda: made(_known(fleet, seed)), max_in_flight=max_in_flight
        )
    return row_of(workload.name, policy, played, time.process_time() - began_s)


def _fastest(fleet: Sequence[Profile]) -> Profile:
    return max(fleet, key=lambda profile: profile.prefill_tokens_per_s)


def _clairvoyant(workload: Workload, fleet: Sequence[Profile], began_s: float) -> Row:
    bounds_s = least_ttft_s(workload, _fastest(fleet))
    return Row(
        workload=workload.name,
        policy=CLAIRVOYANT,
        requests=len(bounds_s),
        refused=0,
        duration_s=0.0,
        ttft_s=summarize(bounds_s),
        itl_s=None,
        gap_p99_s=None,
        latency_s=None,
        output_tokens_per_s=None,
        hit_rate=None,
        skew=None,
        preemptions=0,
        runs_s=None,
        tiers=[],
        cpu_s=time.process_time() - began_s,
    )


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
