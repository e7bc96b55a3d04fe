"""The fewest prompt tokens still to be read."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import ClassVar

from balancer.policies.ask import UNKNOWN, Ask
from balancer.policies.loaded import R
from balancer.policies.policy import Bookless
from balancer.policies.ties import least

__all__ = ["LeastTokens"]


class LeastTokens(Bookless):
    """Where the fewest uncached prompt tokens were sent and are not read yet: long prompts count
    for what they weigh. Where this prompt is held makes no difference.

    Often nothing is being read anywhere. Then, as at any tie, the fewest requests in flight, and
    among those by chance; `seed` makes it repeatable. It is the token load of llm-d's scheduler
    without its affinity, by own counts instead of gauges.
    """

    reads_prompt: ClassVar[bool] = True

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)

    def pick(self, candidates: Sequence[R], ask: Ask = UNKNOWN) -> R:
        keys = [(one.load.waiting_tokens, one.in_flight) for one in candidates]
        return least(candidates, keys, self._random)
