"""How long a replica that is tried out after failures may take to begin its answer. Pure."""

from __future__ import annotations

from typing import Final

__all__ = ["Patience"]

_QUANTILE: Final = 0.95
_STEP: Final = 0.1
_TIMES: Final = 4.0
_LEAST_S: Final = 5.0
_SAMPLES_LEAST: Final = 32


class Patience:
    """Follows the time within which 95 % of a pool's streams begin.

    One number that moves up a step for each wait above it and down a nineteenth of one for each
    below, in proportion to itself: where it comes to rest, one wait in twenty is longer.
    Q. Ma, S. Muthukrishnan, M. Sandler, Frugal Streaming for Estimating Quantiles (2013).
    """

    __slots__ = ("_count", "p95_s")

    def __init__(self) -> None:
        self._count = 0
        self.p95_s = 0.0
        """0 before the first wait."""

    def waited(self, wait_s: float) -> None:
        """A stream began `wait_s` after its request was sent."""
        self._count += 1
        if wait_s > self.p95_s:
            self.p95_s = self.p95_s * (1 + _STEP * _QUANTILE) or wait_s
        else:
            self.p95_s *= 1 - _STEP * (1 - _QUANTILE)

    def trial_s(self, first_byte_s: float) -> float:
        """At most `first_byte_s`; 4 times what is usual, 5 s at least, once enough is known."""
        if self._count < _SAMPLES_LEAST:
            return first_byte_s
        return min(first_byte_s, max(_LEAST_S, _TIMES * self.p95_s))
