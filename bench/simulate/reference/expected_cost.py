"""Placement by expected cost in seconds: the wait, the work, and what it costs the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from balancer.policies import Ask, Loaded
from balancer.policies.loaded import R
from balancer.policies.ties import cheapest
from bench.simulate.reference.books import OwnBooks
from bench.simulate.reference.fleet import Fleet

__all__ = ["ExpectedCost"]


_MOST_KV_SHARE: Final = 0.98
_TIE_S: Final = 0.002
_TIE_SHARE: Final = 0.01


class ExpectedCost(OwnBooks):
    """For each replica, in seconds, and the least wins:

    - Q/mu, the wait: prompt tokens sent to it and not read yet, by the rate at which it reads;
    - u/mu, the work: tokens of this prompt that it does not hold;
    - du/mu x (`displacement` + `stall` x n), the waste, charged on the tokens `du` that are read
      again only because the request leaves the warmest candidate: they push something else out
      of the cache, and stall the n requests in flight there (LMetric's product, without its fault
      on cold prompts, which are new everywhere);
    - E[o] x delta x n, the decode: `answer_tokens` (or the request's own limit, if less), each
      slower by delta for each request in flight;
    - `barrier_s` x k/(1 - k), k being the share of the KV cache in use, 0.98 at most (SMG).

    Ties within 2 ms or 1 %, whichever is more, at random.

    3, 0.5, 0.15 s and 200 tokens were chosen by simulation (128 running, chunks of 2048 tokens)
    and confirmed on a hold-out with other rates. mu and delta are the fleet's true ones: this is
    the balancer's policy as it was first designed, for comparison with what it is now. Matches are
    trusted fully; what the replica says it had cached is not used.
    """

    def __init__(
        self,
        fleet: Fleet,
        *,
        displacement: float = 3.0,
        stall: float = 0.5,
        barrier_s: float = 0.15,
        answer_tokens: int = 200,
    ) -> None:
        super().__init__(fleet, keeps_kv=True)
        self._displacement, self._stall = displacement, stall
        self._barrier_s = barrier_s
        self._answer_tokens = answer_tokens

    def pick(self, candidates: Sequence[R], ask: Ask) -> R:
        costs_s = self.costs_s(candidates, ask)
        return cheapest(candidates, costs_s, self.random, within=_TIE_S, within_share=_TIE_SHARE)

    def costs_s(self, candidates: Sequence[Loaded], ask: Ask) -> list[float]:
        """What sending it to each of them would cost, in their order."""
        matches, prompt_tokens = self.survey(ask), self.prompt_tokens(ask)
        uncached = [max(1, prompt_tokens - matches.get(one.name, 0)) for one in candidates]
        fewest = min(uncached)
        answer_tokens = min(self._answer_tokens, ask.output_tokens or self._answer_tokens)
        return [
            self._cost_s(candidate, tokens, tokens - fewest, answer_tokens)
            for candidate, tokens in zip(candidates, uncached, strict=True)
        ]

    def _cost_s(self, candidate: Loaded, tokens: int, avoidable: int, answer_tokens: int) -> float:
        load, company = self.load(candidate), candidate.in_flight
        engine = self.fleet.of(candidate.name)
        waste = avoidable * (self._displacement + self._stall * company)
        k = min(_MOST_KV_SHARE, self.kv_share(candidate, load))
        return (
            (load.waiting_tokens + tokens + waste) / engine.prefill_tokens_per_s
            + answer_tokens * engine.decode_s_per_stream * company
            + self._barrier_s * k / (1 - k)
        )
