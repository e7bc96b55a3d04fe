"""Higress's prefix_cache: where the conversation went before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from balancer.policies import Ask, Bookless, Loaded
from balancer.policies.loaded import R
from balancer.policies.ties import least_in_flight
from bench.simulate.reference.fleet import Fleet
from bench.simulate.reference.recent import Recent

__all__ = ["HigressPrefix"]


_BLOCK_TOKENS: Final = 16
"""Small, so that the end of a prompt is known to a few tokens."""


class HigressPrefix(Bookless):
    """`prefix_cache` of Higress's ai-load-balancer, with which TTFT 240 -> 120 ms was published.

    There a hash is taken up to the end of each user message, chained, and Redis keeps the replica
    for each, first writer wins, for 1800 s after the last use. The longest one known decides, with
    no regard to load; if none is, or its replica is away, the fewest requests in flight (ties at
    random). A system prompt alone is no match: the first hash ends with the first user message.

    A policy here sees no messages. But a conversation's earlier user messages are the ends of its
    earlier prompts: kept is the last whole 16-token block of each prompt, and a prompt goes where
    the longest earlier prompt went with which it begins. The difference: turns that were never
    sent by themselves are not known, and prompts that part within their last block are alike.
    Hashes are chained in order (there by XOR, which loses the order).
    """

    def __init__(self, fleet: Fleet, *, keep_s: float = 1800.0) -> None:
        self._random = fleet.random()
        self._replica_of: Recent[int] = Recent(keep_s, fleet.clock)

    def pick(self, candidates: Sequence[R], ask: Ask) -> R:
        by_name = {candidate.name: candidate for candidate in candidates}
        known = self._replica_of
        for block in reversed(ask.blocks(_BLOCK_TOKENS)):
            name = known.get(block)
            if name is not None and name in by_name:
                known.use(block, name)
                return by_name[name]
        return least_in_flight(candidates, self._random)

    def leased(self, replica: Loaded, ask: Ask) -> None:
        """Keeps where its prompt went, for the turns to come."""
        blocks = ask.blocks(_BLOCK_TOKENS)
        if blocks:
            self._replica_of.use(blocks[-1], replica.name)
