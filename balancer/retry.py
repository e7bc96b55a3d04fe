"""Which failed tries are tried again, where, how often, and after how long. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

from balancer.errors import (
    AnswerLost,
    AttemptFailed,
    BalancerError,
    ConnectFailed,
    ReplicaRefused,
    StreamCut,
)
from balancer.faults import Fault, fault_of
from balancer.window import Window

__all__ = [
    "FALLBACK_ON",
    "RETRIED_STATUSES",
    "Budget",
    "BudgetSettings",
    "backoff_s",
    "falls_back",
    "is_move",
    "may_retry",
]

RETRIED_STATUSES: Final = frozenset({429, 502, 503, 504})
"""Statuses that say "not here, not now" rather than "not this request"."""


def may_retry(failure: AttemptFailed) -> bool:
    """Whether another replica could do better.

    Connections that fail or break before the first event and answers that are not HTTP: yes. An
    error status only if it speaks of the replica's state and not of the request. Not a 500: it
    may be this very request that breaks an engine, and it should not break the next one too.
    """
    if isinstance(failure, ReplicaRefused):
        return failure.status in RETRIED_STATUSES
    return True


def backoff_s(attempt: int, *, same_replica: bool) -> float:
    """Seconds to wait before try number `attempt` (the first retry is 1).

    None when another replica takes over; 0.1 s, doubled each time up to 2 s, when the only one
    left is the one that has just failed.
    """
    return min(2.0, 0.1 * 2.0 ** (attempt - 1)) if same_replica else 0.0


FALLBACK_ON: Final = frozenset({Fault.UNAVAILABLE, Fault.OVERLOADED, Fault.CONTEXT})
"""What sends a request to the next pool of its fallback chain, unless the pool says otherwise."""


def falls_back(failure: BalancerError, on: Collection[Fault] = FALLBACK_ON) -> bool:
    """Whether the next pool of a fallback chain should be asked, once this one gave up.

    A first-byte timeout falls back although it is not retried: the pool's other replicas would
    most likely be as slow, and a second wait as long would load them with a request whose client
    has nearly lost patience; another pool is another model, on other GPUs. What was told to the
    client already (`StreamCut`, a silence in mid-stream) cannot fall back: the caller must not ask
    once the client has a head.
    """
    return not isinstance(failure, StreamCut) and fault_of(failure) in on


def is_move(failure: AttemptFailed) -> bool:
    """Whether a retry only moves work off a replica that is gone, so that no budget is needed.

    Connections that fail or break cost nobody anything, and the breaker sees to it that they do
    not go on: when a replica dies with a hundred requests not yet begun, all hundred are moved. An
    answer that refuses comes from a replica at work: asking others for the same is how overload
    spreads.
    """
    return isinstance(failure, (ConnectFailed, AnswerLost))


class BudgetSettings(NamedTuple):
    """How many extra tries a pool may make. Finagle's and Linkerd's defaults for retries."""

    share: float = 0.2
    """Of the requests of the last `window_s` (0 to 1) ..."""
    per_s: float = 10.0
    """... and so many each second besides, so that a quiet pool may retry too."""
    window_s: float = 10.0


class Budget:
    """Bounds the extra tries of one pool, so that they cannot multiply an overload.

    Without it each request that fails is sent three times, at the very time when the pool cannot
    cope with one.
    """

    __slots__ = ("_counts", "_settings")

    def __init__(self, settings: BudgetSettings) -> None:
        self._settings = settings
        self._counts = Window(settings.window_s)

    def requested(self, now: float) -> None:
        """A request came: its first try."""
        self._counts.add(now, False)

    def take(self, now: float) -> bool:
        """Take one extra try, if there is one left."""
        settings = self._settings
        extra, tries = self._counts.share(now)
        allowed = settings.share * (tries - extra) + settings.per_s * settings.window_s
        if extra + 1 > allowed:
            return False
        self._counts.add(now, True)
        return True
