"""LMetric: two numbers multiplied, nothing to tune."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.policies import Ask
from balancer.policies.loaded import R
from balancer.policies.ties import least
from bench.simulate.reference.books import OwnBooks

__all__ = ["LMetric"]


class LMetric(OwnBooks):
    """The score of arXiv 2603.15202: new prefill tokens x batch size. The lowest wins.

    New prefill tokens are those the replica would have to read if it got this request: what was
    sent and not read yet, and of this prompt what it does not hold. Batch size is the requests in
    flight and this one. (The scorers of llm-d and sglang of the same name leave out what waits.)

    No constants. Ties at random. Simplified: both numbers by own counters, not by the engine's.
    """

    def pick(self, candidates: Sequence[R], ask: Ask) -> R:
        matches, prompt_tokens = self.survey(ask), self.prompt_tokens(ask)
        scores = []
        for candidate in candidates:
            # At least one token is read even of a prompt held completely: never a score of 0,
            # at which the batch size would no longer count.
            own = max(1, prompt_tokens - matches.get(candidate.name, 0))
            new_tokens = self.load(candidate).waiting_tokens + own
            scores.append(new_tokens * (candidate.in_flight + 1))
        return least(candidates, scores, self.random)
