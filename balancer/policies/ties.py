"""The least of several, ties broken by chance; and the bound of consistent hashing.

The first in the list must never win a tie: four projects had that fault (smg #1714, dynamo #9516,
vllm #47420, litellm #39322), and each time one replica got what all should have shared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import TypeVar

from balancer.policies.loaded import R

__all__ = ["among", "bounded_load", "cheapest", "least", "least_in_flight"]

K = TypeVar("K", int, float, tuple[int, int], tuple[float, int])


def among(costs: Sequence[float], within: float, within_share: float, random: Random) -> int:
    """The place of one of those that cost at most `within` more than the cheapest, or
    `within_share` of it more, whichever is more. Costs are 0 or more."""
    lowest = min(costs)
    limit = lowest + max(within, within_share * lowest)
    tied = [place for place, cost in enumerate(costs) if cost <= limit]
    return tied[0] if len(tied) == 1 else random.choice(tied)


def cheapest(
    candidates: Sequence[R],
    costs: Sequence[float],
    random: Random,
    *,
    within: float,
    within_share: float,
) -> R:
    """The same as a candidate; `costs` are in the order of `candidates`."""
    return candidates[among(costs, within, within_share, random)]


def least(candidates: Sequence[R], keys: Sequence[K], random: Random) -> R:
    """One of those whose key is exactly the least; `keys` are in the order of `candidates`."""
    lowest = min(keys)
    tied = [candidate for candidate, key in zip(candidates, keys, strict=True) if key == lowest]
    return tied[0] if len(tied) == 1 else random.choice(tied)


def least_in_flight(candidates: Sequence[R], random: Random) -> R:
    """One of those with the fewest requests in flight."""
    return least(candidates, [candidate.in_flight for candidate in candidates], random)


def bounded_load(candidates: Sequence[R], bound: float) -> int:
    """A candidate with fewer requests in flight may get one more: with it, it has at most `bound`
    times the mean, rounded up. One at least is below, for `bound` 1 or more."""
    total = 1 + sum([candidate.in_flight for candidate in candidates])
    return math.ceil(bound * total / len(candidates))
