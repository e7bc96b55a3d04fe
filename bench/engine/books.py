"""What an engine has done since it started."""

from __future__ import annotations

import math

__all__ = ["Books", "Gaps"]


class Gaps:
    """Times between tokens, pooled over all sequences, in buckets 2 % wide."""

    _PER_E = 50.0

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}

    def add(self, gap_s: float, tokens: int) -> None:
        """`tokens` tokens came `gap_s` (above 0) after the one before them."""
        bucket = round(math.log(gap_s) * self._PER_E)
        self.counts[bucket] = self.counts.get(bucket, 0) + tokens

    def merge(self, other: Gaps) -> None:
        """Add what another engine saw."""
        for bucket, tokens in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + tokens

    def quantile(self, share: float) -> float | None:
        """The gap that `share` (0 to 1) of the tokens do not exceed, to 1 %; None without any."""
        total = sum(self.counts.values())
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= share * total:
                return math.exp(bucket / self._PER_E)
        return None


class Books:
    """Counters; all of them only grow."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        """Prompt tokens of sequences that were scheduled."""
        self.cached_tokens = 0
        """Those of them found in the prefix cache."""
        self.generated_tokens = 0
        self.preemptions = 0
        self.steps = 0
        self.busy_s = 0.0
        """Time in steps."""
        self.gaps = Gaps()
