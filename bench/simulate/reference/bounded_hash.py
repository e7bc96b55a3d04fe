"""Consistent hashing with bounded loads, of the beginning of the prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence

from balancer.policies import Ask, Bookless
from balancer.policies.loaded import R
from balancer.policies.ring import Ring, walk
from balancer.policies.ties import least_in_flight
from bench.simulate.reference.fleet import Fleet
from bench.simulate.reference.ring import prompt_key

__all__ = ["BoundedHash"]


class BoundedHash(Bookless):
    """The algorithm of Mirrokni, Thorup and Zadimoghaddam (2016), which KubeAI and others use:
    from the prompt's place on the ring on, the first replica that with this request has no more
    than `bound` times the mean load, rounded up.

    256 tokens, 150 points per replica and 1.25 are those of SMG's `prefix_hash`, which tries one
    replica and then takes the least loaded; here the next on the ring gets it, so that a prefix
    overflows to the same few. A prompt shorter than 16 tokens goes to the fewest in flight, ties
    at random.
    """

    def __init__(
        self, fleet: Fleet, *, first_tokens: int = 256, points: int = 150, bound: float = 1.25
    ) -> None:
        self._first_tokens = first_tokens
        self._bound = bound
        self._ring = Ring(points)
        self._random = fleet.random()

    def pick(self, candidates: Sequence[R], ask: Ask) -> R:
        key = prompt_key(ask, self._first_tokens)
        if key is None:
            return least_in_flight(candidates, self._random)
        total = 1 + sum(candidate.in_flight for candidate in candidates)
        allowed = math.ceil(self._bound * total / len(candidates))
        places = walk(self._ring, key, candidates)
        # The mean is below the bound, so somebody is too.
        return candidates[next(place for place in places if candidates[place].in_flight < allowed)]
