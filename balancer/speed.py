"""How fast a replica reads prompts and writes answers, learned from what it did."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["Speed"]

_MEMORY_S: Final = 10.0
_FIRST_GUESS_S: Final = 1.0


class Speed:
    """Tokens read by the time in which something was to be read, both fading with a time constant
    of 10 s. The first guess counts as one second of experience and never fades."""

    __slots__ = ("_decode_s", "_first_guess", "_reading", "_reading_s", "_tokens", "_until_s")

    def __init__(
        self, prefill_tokens_per_s: float = 12_000.0, decode_s_per_stream: float = 0.00042
    ) -> None:
        self._first_guess = prefill_tokens_per_s
        self._decode_s = decode_s_per_stream
        self._tokens = 0.0
        self._reading_s = 0.0
        self._reading = False
        self._until_s = 0.0

    def prefill_tokens_per_s(self, now: float) -> float:
        """Uncached prompt tokens per second while there are some; more than 0."""
        self._age(now)
        learned = self._tokens + self._first_guess * _FIRST_GUESS_S
        return learned / (self._reading_s + _FIRST_GUESS_S)

    def decode_s_per_stream(self, now: float) -> float:
        """How much longer each token takes for each stream more in the batch, in seconds."""
        return self._decode_s

    def reading(self, reading: bool, now: float) -> None:
        """From now on there is something to be read, or not."""
        self._age(now)
        self._reading = reading

    def read(self, tokens: int, now: float) -> None:
        """These were read by now."""
        self._age(now)
        self._tokens += tokens

    def _age(self, now: float) -> None:
        kept = math.exp(min(0.0, self._until_s - now) / _MEMORY_S)
        self._tokens *= kept
        self._reading_s *= kept
        if self._reading:
            self._reading_s += _MEMORY_S * (1.0 - kept)  # its own first seconds fade too
        self._until_s = now
