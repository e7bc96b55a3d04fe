"""Dynamo's KV router: blocks to read and blocks to keep, added up."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.policies import Ask, Loaded
from balancer.policies.loaded import R
from balancer.policies.ties import least
from bench.simulate.reference.books import BLOCK_TOKENS, OwnBooks
from bench.simulate.reference.fleet import Fleet

__all__ = ["DynamoCost"]


class DynamoCost(OwnBooks):
    """The cost function of ai-dynamo/dynamo's `kv-router`, in blocks:

    `prefill_scale` x (prompt tokens sent and not read yet, and this prompt, without what the
    replica holds) + KV blocks in use once this request is there. The cheapest wins.

    Defaults as there: scale 1, overlap credit 1 without decay, temperature 0, which is the least
    with ties at random. What prompts in flight share counts once, as there; generated blocks are
    not counted, which is its default too. Prompt blocks leave the first sum at the first event.

    Simplified: 64-token blocks; no host, disk and shared tiers; the index learns from requests
    (its approximate mode) but forgets by LRU instead of 120 s after the last use.
    """

    def __init__(self, fleet: Fleet, *, prefill_scale: float = 1.0) -> None:
        super().__init__(fleet, keeps_kv=True)
        self._prefill_scale = prefill_scale

    def pick(self, candidates: Sequence[R], ask: Ask) -> R:
        self.survey(ask)
        costs = [self._cost(candidate, ask) for candidate in candidates]
        return least(candidates, costs, self.random)

    def _cost(self, candidate: Loaded, ask: Ask) -> float:
        load, matched = self.load(candidate), self.matches.get(candidate.name, 0)
        to_read = load.waiting_tokens + self.prompt_tokens(ask) - matched
        # What prompts in flight hold is always in the index too: no match, nothing shared.
        shared = load.leading_blocks(self.blocks) if matched else 0
        in_use = load.kv_blocks + len(self.blocks) - shared + 1
        return self._prefill_scale * to_read / BLOCK_TOKENS + in_use
