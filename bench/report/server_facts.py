"""What the target reported of itself, request by request: cached tokens, replicas.

Each is computed over the requests that report it and says how many those are: a target that is
silent is not a target with nothing to say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from bench.load.record import Record

__all__ = ["PrefixCache", "Replicas", "prefix_cache", "replicas"]


class PrefixCache(msgspec.Struct, frozen=True, kw_only=True):
    """Prompt tokens that the target took from its prefix cache."""

    requests: int
    """How many succeeded and reported it."""
    prompt_tokens: int
    cached_tokens: int

    @property
    def hit_share(self) -> float:
        """Cached out of all prompt tokens, 0 to 1: the engines' prefix-cache hit rate."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else 0.0


class Replicas(msgspec.Struct, frozen=True, kw_only=True):
    """Who served, as the target named them."""

    requests: dict[str, int]
    """Requests that succeeded, by replica; the busiest first."""

    @property
    def skew(self) -> float:
        """The busiest replica's requests over the average's: 1 is an even spread. Replicas that
        served nothing are not known of."""
        counts = self.requests.values()
        return max(counts) * len(counts) / sum(counts)


def prefix_cache(succeeded: Sequence[Record]) -> PrefixCache | None:
    """Over the requests whose usage gives prompt and cached tokens; None if none does."""
    prompt = cached = requests = 0
    for record in succeeded:
        if record.cached_tokens is None or record.input_tokens is None:
            continue
        requests += 1
        prompt += record.input_tokens
        cached += record.cached_tokens
    if not requests:
        return None
    return PrefixCache(requests=requests, prompt_tokens=prompt, cached_tokens=cached)


def replicas(succeeded: Sequence[Record]) -> Replicas | None:
    """Requests by replica; None if no answer names one."""
    counts = Counter(record.replica for record in succeeded if record.replica is not None)
    return Replicas(requests=dict(counts.most_common())) if counts else None
