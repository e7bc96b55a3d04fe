"""Which failed tries are tried again, and how long to wait before that. Pure."""

from __future__ import annotations

from typing import Final

from balancer.errors import AttemptFailed, ReplicaRefused

__all__ = ["RETRIED_STATUSES", "backoff_s", "may_retry"]

RETRIED_STATUSES: Final = frozenset({429, 502, 503, 504})
"""Statuses that say "not here, not now" rather than "not this request"."""


def may_retry(failure: AttemptFailed) -> bool:
    """Whether another replica could do better.

    Connections that fail or break before the first event and answers that are not HTTP: yes. An
    error status only if it speaks of the replica's state and not of the request.
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
