"""The replica with the fewest requests in flight."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.policies.ask import UNKNOWN, Ask
from balancer.policies.loaded import R
from balancer.policies.policy import Bookless

__all__ = ["LeastRequest"]


class LeastRequest(Bookless):
    """Fewest in flight; among equals the next in turn, so that an idle pool is used evenly. `seed`
    is where the turns begin."""

    def __init__(self, seed: int | None = None) -> None:
        self._turn = seed or 0

    def pick(self, candidates: Sequence[R], ask: Ask = UNKNOWN) -> R:
        count = len(candidates)
        first = self._turn % count
        self._turn += 1
        chosen = candidates[first]
        for step in range(1, count):
            candidate = candidates[(first + step) % count]
            if candidate.in_flight < chosen.in_flight:
                chosen = candidate
        return chosen
