"""llm-d's weighted blend of prefix, queue and KV cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from balancer.policies import Ask, Loaded
from balancer.policies.loaded import R
from balancer.policies.ties import least
from bench.simulate.reference.books import BLOCK_TOKENS, OwnBooks
from bench.simulate.reference.fleet import Fleet

__all__ = ["LlmdBlend"]


class LlmdBlend(OwnBooks):
    """The default of llm-d-router and of the Gateway API inference extension before
    sticky-until-saturated: three scores in 0..1, weighted 3 : 2 : 2; the highest sum wins.

    Prefix: matched blocks of all its blocks. Queue: (most - own) / (most - least) requests
    waiting; 1 for all if all have the same. KV cache: what is free of it. Ties at random, as there.

    Simplified: queue and KV cache by own counters instead of gauges read every 50 ms: waiting is
    who has no first event yet, in use is what prompts in flight take. Without `no-hit-lru`.
    """

    def __init__(
        self, fleet: Fleet, *, prefix: float = 3.0, queue: float = 2.0, kv_cache: float = 2.0
    ) -> None:
        super().__init__(fleet, keeps_kv=True)
        self._prefix, self._queue, self._kv_cache = prefix, queue, kv_cache

    def pick(self, candidates: Sequence[R], ask: Ask) -> R:
        matches = self.survey(ask)
        waiting = [self.load(candidate).waiting for candidate in candidates]
        most, spread = max(waiting), max(waiting) - min(waiting)
        penalties = [
            -self._prefix * self._matched_share(matches, candidate)
            - self._queue * ((most - own) / spread if spread else 1.0)
            + self._kv_cache * min(1.0, self.kv_share(candidate, self.load(candidate)))
            for candidate, own in zip(candidates, waiting, strict=True)
        ]
        return least(candidates, penalties, self.random)

    def _matched_share(self, matches: Mapping[str, int], candidate: Loaded) -> float:
        matched = matches.get(candidate.name, 0)
        return matched / (len(self.blocks) * BLOCK_TOKENS) if matched else 0.0
