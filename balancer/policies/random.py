"""Any of them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from balancer.policies.loaded import R

__all__ = ["Random"]


class Random:
    """A uniform choice. `seed` makes it repeatable."""

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)

    def pick(self, candidates: Sequence[R]) -> R:
        return self._random.choice(candidates)
