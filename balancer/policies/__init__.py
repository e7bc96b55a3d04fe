"""Policies: each picks one of the replicas that may take a request. One small file each.

A policy is synchronous, sees only replicas that are allowed, never waits and holds no lease.
"""

from __future__ import annotations

from typing import Final, Literal, Protocol

from balancer.policies.ask import BLOCK_TOKENS, UNKNOWN, Ask
from balancer.policies.expected_cost import ExpectedCost
from balancer.policies.gpu_load import GpuLoad
from balancer.policies.least_request import LeastRequest
from balancer.policies.least_tokens import LeastTokens
from balancer.policies.loaded import Loaded
from balancer.policies.policy import (
    NO_BOOKS,
    Bookless,
    Books,
    Candidate,
    Explanation,
    Outcome,
    Policy,
)
from balancer.policies.power_of_two import PowerOfTwo
from balancer.policies.prefix_hash import PrefixHash
from balancer.policies.random import Random
from balancer.policies.round_robin import RoundRobin
from balancer.policies.session import Session

__all__ = [
    "BLOCK_TOKENS",
    "DEFAULT_POLICY",
    "NO_BOOKS",
    "POLICIES",
    "UNKNOWN",
    "Ask",
    "Bookless",
    "Books",
    "Candidate",
    "ExpectedCost",
    "Explanation",
    "GpuLoad",
    "LeastRequest",
    "LeastTokens",
    "Loaded",
    "MakePolicy",
    "Outcome",
    "Policy",
    "PolicyName",
    "PowerOfTwo",
    "PrefixHash",
    "Random",
    "RoundRobin",
    "Session",
]

PolicyName = Literal[
    "expected_cost",
    "least_request",
    "least_tokens",
    "prefix_hash",
    "gpu_load",
    "session",
    "power_of_two",
    "round_robin",
    "random",
]


class MakePolicy(Protocol):
    """A policy for one pool; with the same `seed` it decides the same."""

    def __call__(self, seed: int | None = None) -> Policy: ...


POLICIES: Final[dict[PolicyName, MakePolicy]] = {
    "expected_cost": ExpectedCost,
    "least_request": LeastRequest,
    "least_tokens": LeastTokens,
    "prefix_hash": PrefixHash,
    "gpu_load": GpuLoad,
    "session": Session,
    "power_of_two": PowerOfTwo,
    "round_robin": RoundRobin,
    "random": Random,
}

DEFAULT_POLICY: Final[PolicyName] = "expected_cost"
