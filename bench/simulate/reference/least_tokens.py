"""The fewest prompt tokens still to be read."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.policies import Ask
from balancer.policies.loaded import R
from bench.simulate.reference.books import OwnBooks
from bench.simulate.reference.choice import least

__all__ = ["LeastTokens"]


class LeastTokens(OwnBooks):
    """llm-d's token-load without its affinity: where the fewest uncached prompt tokens are sent
    and not read yet. The index only tells how many of a prompt's tokens were uncached; where this
    prompt is held makes no difference.

    Often nothing is being read anywhere. Then, as at any tie, the fewest requests in flight, and
    among those by chance.
    """

    def pick(self, candidates: Sequence[R], ask: Ask) -> R:
        keys = [(self.load(one).waiting_tokens, one.in_flight) for one in candidates]
        return least(candidates, keys, self.random)
