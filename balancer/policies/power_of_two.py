"""The better of two taken at random."""

from __future__ import annotations

import random
from collections.abc import Sequence

from balancer.policies.ask import UNKNOWN, Ask
from balancer.policies.loaded import R
from balancer.policies.policy import Bookless

__all__ = ["PowerOfTwo"]


class PowerOfTwo(Bookless):
    """Of two different replicas taken at random the one with fewer requests in flight; of two with
    the same, either (Mitzenmacher, 2001). `seed` makes it repeatable.

    It looks at two of any number, and no two balancers that count apart from each other all choose
    the same one. Alone, `least_request` is never worse.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)

    def pick(self, candidates: Sequence[R], ask: Ask = UNKNOWN) -> R:
        if len(candidates) == 1:
            return candidates[0]
        one, other = self._random.sample(candidates, 2)  # in random order: so is a tie
        return one if one.in_flight <= other.in_flight else other
