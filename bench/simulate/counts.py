"""Prompts as a router sees them: it counts bytes, the engine counts tokens.

A router takes four bytes for a token. English prose has 4.2 to 4.7 of them, program text 3 to 3.5,
numbers and other scripts 1.5 to 3. How wrong the estimate is depends on what an app sends, and
varies from text to text. Both are drawn here: lognormal, for each app (known by how its prompts
begin) and for each segment. Equal text is estimated alike, so what prompts share they still share;
but the router's blocks end elsewhere than the engine's.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final

from bench.workload.model import Prompt, Segment

__all__ = ["APP_SIGMA", "TEXT_SIGMA", "EstimatedCounts"]

APP_SIGMA: Final = 0.25
"""Of the logarithm: nineteen of twenty apps are estimated at 0.6 to 1.6 times of what they send."""
TEXT_SIGMA: Final = 0.12
"""The same for each text of an app, in addition."""

_NORMAL: Final = NormalDist()
_MOST_KEPT: Final = 500_000
_ALL_BITS: Final = 2**64 - 1
_GOLDEN: Final = 0x9E3779B97F4A7C15


class EstimatedCounts:
    """Turns prompts into what a router takes them for; the same for the same `seed`."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._apps: dict[int, float] = {}
        self._texts: dict[int, float] = {}

    def __call__(self, prompt: Prompt) -> Prompt:
        if not prompt:
            return prompt
        app = self._factor(self._apps, prompt[0].key, APP_SIGMA, 1)
        seen = []
        for segment in prompt:
            own = self._factor(self._texts, segment.key, TEXT_SIGMA, 2)
            tokens = max(1, round(app * own * segment.tokens))
            seen.append(Segment(segment.key, tokens, segment.role))
        return tuple(seen)

    def _factor(self, known: dict[int, float], key: int, sigma: float, kind: int) -> float:
        factor = known.get(key)
        if factor is None:
            if len(known) >= _MOST_KEPT:
                known.clear()  # each is drawn again, and the same
            drawn = _uniform((key + kind * _GOLDEN + self._seed * _GOLDEN * 3) & _ALL_BITS)
            factor = known[key] = math.exp(sigma * _NORMAL.inv_cdf(drawn))
        return factor


def _uniform(number: int) -> float:
    """Above 0 and below 1: the last steps of SplitMix64 (Steele, Lea and Flood, 2014)."""
    mixed = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _ALL_BITS
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _ALL_BITS
    return (((mixed ^ (mixed >> 31)) >> 12) + 0.5) / 2**52
