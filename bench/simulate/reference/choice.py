"""The least of several, ties broken by chance.

The first in the list must never win a tie: four projects had that fault (smg #1714, dynamo #9516,
vllm #47420, litellm #39322), and each time one replica got what all should have shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypeVar

from balancer.policies.loaded import R

__all__ = ["cheapest", "least_in_flight", "least"]


K = TypeVar("K", int, float, tuple[int, int])


def least(candidates: Sequence[R], keys: Sequence[K], random: Random) -> R:
    """One of those whose key is exactly the least; `keys` are in the order of `candidates`."""
    lowest = min(keys)
    tied = [candidate for candidate, key in zip(candidates, keys, strict=True) if key == lowest]
    return tied[0] if len(tied) == 1 else random.choice(tied)


def least_in_flight(candidates: Sequence[R], random: Random) -> R:
    """One of those with the fewest requests in flight."""
    return least(candidates, [candidate.in_flight for candidate in candidates], random)


def cheapest(
    candidates: Sequence[R],
    costs: Sequence[float],
    random: Random,
    *,
    within: float,
    within_share: float,
) -> R:
    """One of those that cost at most `within` more than the cheapest, or `within_share` of it
    more, whichever is more. Costs are 0 or more."""
    lowest = min(costs)
    limit = lowest + max(within, within_share * lowest)
    tied = [candidate for candidate, cost in zip(candidates, costs, strict=True) if cost <= limit]
    return tied[0] if len(tied) == 1 else random.choice(tied)
