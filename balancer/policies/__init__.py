"""Policies: each picks one of the replicas that may take a request. One small file each.

A policy is synchronous, sees only replicas that are allowed, never waits and holds no lease.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, Protocol

from balancer.policies.least_request import LeastRequest
from balancer.policies.loaded import Loaded, R
from balancer.policies.random import Random
from balancer.policies.round_robin import RoundRobin

__all__ = ["POLICIES", "LeastRequest", "Loaded", "Policy", "PolicyName", "Random", "RoundRobin"]

PolicyName = Literal["least_request", "round_robin", "random"]


class Policy(Protocol):
    """Chooses where the next request goes."""

    def pick(self, candidates: Sequence[R]) -> R:
        """One of `candidates`, which are never empty and always in the pool's order."""


POLICIES: Final[dict[PolicyName, Callable[[], Policy]]] = {
    "least_request": LeastRequest,
    "round_robin": RoundRobin,
    "random": Random,
}
