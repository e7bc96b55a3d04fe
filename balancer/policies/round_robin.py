"""One after the other."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.policies.ask import UNKNOWN, Ask
from balancer.policies.loaded import R
from balancer.policies.policy import Bookless

__all__ = ["RoundRobin"]


class RoundRobin(Bookless):
    """Each candidate in turn, whatever its load. `seed` is where the turns begin."""

    def __init__(self, seed: int | None = None) -> None:
        self._turn = seed or 0

    def pick(self, candidates: Sequence[R], ask: Ask = UNKNOWN) -> R:
        chosen = candidates[self._turn % len(candidates)]
        self._turn += 1
        return chosen
