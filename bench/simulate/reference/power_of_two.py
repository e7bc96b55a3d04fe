"""The better of two taken at random."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.policies import Ask, Bookless
from balancer.policies.loaded import R
from bench.simulate.reference.fleet import Fleet

__all__ = ["PowerOfTwo"]


class PowerOfTwo(Bookless):
    """Of two different replicas taken at random the one with fewer requests in flight; of two with
    the same, either (Mitzenmacher, 2001).

    `power_of_two` of SMG and of the vLLM router. SMG compares KV usage instead where both report
    it, and only then; that is left out, for a policy here has own counters alone.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._random = fleet.random()

    def pick(self, candidates: Sequence[R], ask: Ask) -> R:
        if len(candidates) == 1:
            return candidates[0]
        one, other = self._random.sample(candidates, 2)  # in random order: so is a tie
        return one if one.in_flight <= other.in_flight else other
