"""When a request that has no first event yet is sent a second time, elsewhere. Pure; opt-in.

The slowest few requests of a pool owe their delay to where they went (a replica that hangs, a
prompt in front of them that nobody foresaw), and a second try elsewhere is likely to be faster than
the rest of the wait. It costs work twice, so only a small share of requests may do it, only where a
replica has room at once, and the one that answers second is cancelled.
J. Dean, L. A. Barroso, The Tail at Scale, Comm. ACM 56 (2013).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from balancer.retry import Budget, BudgetSettings

__all__ = ["Hedge", "HedgeSettings"]


class HedgeSettings(NamedTuple):
    """When requests are hedged."""

    after_s: float | None = None
    """After so many seconds without a first event; None: after the time learned, below."""
    quantile: float = 0.95
    """What is learned: the time within which this share of requests had theirs (0 to 1)."""
    share: float = 0.05
    """The most that is hedged, of all requests of the last minute (0 to 1)."""


_SAMPLES: Final = 256
"""So many waits are remembered."""
_SAMPLES_LEAST: Final = 32
"""With fewer nothing is hedged: the slowest of twenty is no 95th percentile."""
_LEARN_EVERY: Final = 16
"""The quantile is worked out anew after so many waits: sorting takes longer than a request may."""
_AFTER_LEAST_S: Final = 0.05
"""A wait shorter than this is not worth a second connection."""
_BUDGET_PER_S: Final = 0.1
"""So many hedges each second are allowed besides: in a quiet pool 5 % of nothing is nothing."""


class Hedge:
    """Learns how long a pool's requests wait for their first event, and bounds their hedges.

    A wait is measured in units of `expected_s`, what the policy predicts for this request, so that
    a long prompt is not taken for a slow replica. Without predictions, leave it at 1: then waits
    are what they are.
    """

    __slots__ = ("_budget", "_count", "_ratio", "_ratios", "_settings")

    def __init__(self, settings: HedgeSettings) -> None:
        self._settings = settings
        self._budget = Budget(BudgetSettings(settings.share, _BUDGET_PER_S, 60.0))
        self._ratios: list[float] = []
        self._count = 0
        self._ratio: float | None = None

    def requested(self, now: float) -> None:
        """A request came."""
        self._budget.requested(now)

    def waited(self, wait_s: float, expected_s: float = 1.0) -> None:
        """A request had its first event after `wait_s`, counted from its sending.

        Of a hedged request both tries are told: the loser's wait until it was cancelled is less
        than it would have been, but to leave it out would make every limit learned lower than the
        last.
        """
        if expected_s <= 0:
            return
        ratio = wait_s / expected_s
        if len(self._ratios) < _SAMPLES:
            self._ratios.append(ratio)
        else:
            self._ratios[self._count % _SAMPLES] = ratio
        self._count += 1
        if self._count >= _SAMPLES_LEAST and self._count % _LEARN_EVERY == 0:
            ordered = sorted(self._ratios)
            self._ratio = ordered[
                min(len(ordered) - 1, int(self._settings.quantile * len(ordered)))
            ]

    def after_s(self, expected_s: float = 1.0) -> float | None:
        """How long after its sending a request is hedged; None: not at all, too little is known."""
        if self._settings.after_s is not None:
            return self._settings.after_s
        if self._ratio is None or expected_s <= 0:
            return None
        return max(_AFTER_LEAST_S, self._ratio * expected_s)

    def take(self, now: float) -> bool:
        """Take one hedge from the budget, if there is one left."""
        return self._budget.take(now)
