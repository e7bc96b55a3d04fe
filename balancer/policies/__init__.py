"""Policies: each picks one of the replicas that may take a request. One small file each.

A policy is synchronous, sees only replicas that are allowed, never waits and holds no lease.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from balancer.policies.ask import BLOCK_TOKENS, UNKNOWN, Ask
from balancer.policies.least_request import LeastRequest
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
from balancer.policies.random import Random
from balancer.policies.round_robin import RoundRobin

__all__ = [
    "BLOCK_TOKENS",
    "NO_BOOKS",
    "POLICIES",
    "UNKNOWN",
    "Ask",
    "Bookless",
    "Books",
    "Candidate",
    "Explanation",
    "LeastRequest",
    "Loaded",
    "Outcome",
    "Policy",
    "PolicyName",
    "Random",
    "RoundRobin",
]

PolicyName = Literal["least_request", "round_robin", "random"]


POLICIES: Final[dict[PolicyName, Callable[[], Policy]]] = {
    "least_request": LeastRequest,
    "round_robin": RoundRobin,
    "random": Random,
}
