"""SMG's least_load: time until the queue is read, and a barrier before a full KV cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from balancer.policies import Ask, Loaded
from balancer.policies.loaded import R
from balancer.policies.ties import least
from bench.simulate.reference.books import OwnBooks
from bench.simulate.reference.fleet import Fleet

__all__ = ["SmgLeastLoad"]


_MOST_KV_SHARE: Final = 0.999
_UNKNOWN_TOKENS: Final = 1024


class SmgLeastLoad(OwnBooks):
    """`least_load` of smg-project/smg: uncached tokens sent and not read yet, by the rate at which
    the replica reads, + `barrier_s` x k / (1 - k), k being the used share of its KV cache. In
    seconds; the least wins, ties at random. Where the prompt is held makes no difference.

    0.15 s, k up to 0.999 and 1024 tokens for a request without a count are as there.

    Simplified: there both numbers are polled (10 s) and what was sent since is added; here they
    are own counters throughout, k of prompts alone. The rate is the fleet's, not learned from the
    polls (2000 tokens/s until then).
    """

    def __init__(self, fleet: Fleet, *, barrier_s: float = 0.15) -> None:
        super().__init__(fleet, keeps_kv=True, unknown_tokens=_UNKNOWN_TOKENS)
        self._barrier_s = barrier_s

    def pick(self, candidates: Sequence[R], ask: Ask) -> R:
        return least(candidates, [self._score_s(one) for one in candidates], self.random)

    def _score_s(self, candidate: Loaded) -> float:
        load = self.load(candidate)
        k = min(_MOST_KV_SHARE, self.kv_share(candidate, load))
        rate = self.fleet.of(candidate.name).prefill_tokens_per_s
        return load.waiting_tokens / rate + self._barrier_s * k / (1 - k)
