"""llm-d's present default: stay with the warm replicas until they are saturated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from balancer.policies import Ask
from balancer.policies.loaded import R
from balancer.policies.ties import least
from bench.simulate.reference.books import BLOCK_TOKENS, OwnBooks
from bench.simulate.reference.fleet import Fleet

__all__ = ["LlmdSticky"]


_FULL_LOAD_TOKENS: Final = 4_194_304
"""`queueThresholdTokens` of the token-load scorer: 128 requests of 32k. All above is alike."""


class LlmdSticky(OwnBooks):
    """The `prefix-cache-affinity-filter` and the `token-load-scorer` of llm-d-router.

    Warm is who holds at least `warm` of the prompt's blocks. If there are any, only they are
    left, unless the best of them would answer more than `patience_s` later than the best of the
    others. A replica's TTFT is estimated as the uncached tokens sent to it and not read yet, by
    the rate at which it reads; the request itself is not in it. Of those left, the one with the
    fewest such tokens, this time with the request's own. Ties at random, as there.

    0.80 and 18 s are its defaults; the rate is the fleet's, as its calibration recipe measures it
    (the default there, 15,928 tokens/s, is Qwen3-32B on two H100). Tokens are taken off at the
    first event, as there. For the decode-bound it has another scorer (requests in flight), which
    an operator must choose: not here.
    """

    def __init__(self, fleet: Fleet, *, warm: float = 0.80, patience_s: float = 18.0) -> None:
        super().__init__(fleet)
        self._warm = warm
        self._patience_tokens = patience_s * fleet.engine.prefill_tokens_per_s

    def pick(self, candidates: Sequence[R], ask: Ask) -> R:
        matches = self.survey(ask)
        left = self._not_filtered(candidates)
        prompt_tokens = self.prompt_tokens(ask)
        tokens = [
            min(
                _FULL_LOAD_TOKENS,
                self.load(one).waiting_tokens + prompt_tokens - matches.get(one.name, 0),
            )
            for one in left
        ]
        return least(left, tokens, self.random)

    def _not_filtered(self, candidates: Sequence[R]) -> Sequence[R]:
        enough = self._warm * len(self.blocks) * BLOCK_TOKENS
        matches = self.matches
        warm = [one for one in candidates if 0 < enough <= matches.get(one.name, 0)]
        if not warm or len(warm) == len(candidates):
            return candidates
        cold = [one for one in candidates if matches.get(one.name, 0) < enough]
        if self._least_waiting(warm) - self._least_waiting(cold) > self._patience_tokens:
            return candidates
        return warm

    def _least_waiting(self, replicas: Sequence[R]) -> int:
        return min(self.load(replica).waiting_tokens for replica in replicas)
