"""How fast a replica reads prompts, learned from what it answered."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["PrefillRate"]

_MEMORY_S: Final = 10.0
_FIRST_GUESS_S: Final = 1.0


class PrefillRate:
    """Tokens read by the time in which something was to be read, both fading with a time constant
    of 10 s. The first guess counts as one second of experience and never fades."""

    def __init__(self, first_guess: float) -> None:
        self._first_guess = first_guess
        self._tokens = 0.0
        self._reading_s = 0.0
        self._reading = False
        self._until_s = 0.0

    def reading(self, reading: bool, now: float) -> None:
        """From now on there is something to be read, or not."""
        self._age(now)
        self._reading = reading

    def read(self, tokens: int, now: float) -> None:
        """These were read by now."""
        self._age(now)
        self._tokens += tokens

    def tokens_per_s(self, now: float) -> float:
        """More than 0."""
        self._age(now)
        learned = self._tokens + self._first_guess * _FIRST_GUESS_S
        return learned / (self._reading_s + _FIRST_GUESS_S)

    def _age(self, now: float) -> None:
        kept = math.exp(min(0.0, self._until_s - now) / _MEMORY_S)
        self._tokens *= kept
        self._reading_s *= kept
        if self._reading:
            self._reading_s += _MEMORY_S * (1.0 - kept)  # its own first seconds fade too
        self._until_s = now
