"""One after the other."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.policies.loaded import R

__all__ = ["RoundRobin"]


class RoundRobin:
    """Each candidate in turn, whatever its load."""

    def __init__(self) -> None:
        self._turn = 0

    def pick(self, candidates: Sequence[R]) -> R:
        chosen = candidates[self._turn % len(candidates)]
        self._turn += 1
        return chosen
