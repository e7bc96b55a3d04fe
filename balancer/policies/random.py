"""Any of them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from balancer.policies.ask import UNKNOWN, Ask
from balancer.policies.loaded import R
from balancer.policies.policy import Bookless

__all__ = ["Random"]


class Random(Bookless):
    """A uniform choice. `seed` makes it repeatable."""

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)

    def pick(self, candidates: Sequence[R], ask: Ask = UNKNOWN) -> R:
        return self._random.choice(candidates)
