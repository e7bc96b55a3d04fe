"""What is remembered of one exchange: for its log line and its metrics. Never any content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from balancer.decisions import Decision
from balancer.wire.openai import Usage

__all__ = ["Hedged", "Record"]

Hedged = Literal["first", "second", "none"]
"""Of the two replicas that were asked for the same."""


class Record:
    """One exchange. Times ending in `_s` are durations in seconds, None if it never came to that.

    `outcome` is `ok`, `client_gone`, `shutdown`, or the kind of the error.
    """

    __slots__ = (
        "attempts",
        "client",
        "decision",
        "duration_s",
        "events",
        "failures",
        "fell_back_from",
        "hedge",
        "is_call",
        "itl_s",
        "method",
        "model",
        "outcome",
        "path",
        "put_backs",
        "queued_s",
        "replica",
        "request_id",
        "started",
        "status",
        "stream",
        "ttft_s",
        "usage",
    )

    def __init__(
        self, *, method: str, path: str, client: str, request_id: str, started: float
    ) -> None:
        self.method = method
        self.path = path
        self.client = client
        self.request_id = request_id
        self.started = started
        self.status = 0
        self.outcome = "ok"
        self.duration_s: float | None = None
        self.is_call = False
        """Whether it asked for a model: those are what the metrics count."""
        self.failures: list[str] = []
        """The kinds of the tries that failed."""
        self.model: str | None = None
        self.replica: str | None = None
        self.attempts = 0
        self.queued_s: float | None = None
        self.ttft_s: float | None = None
        self.itl_s: float | None = None
        self.stream = False
        self.events = 0
        self.usage: Usage | None = None
        self.decision: Decision | None = None
        """Why it went where it did; None if it went nowhere."""
        self.fell_back_from: Sequence[str] = ()
        """The models whose pools gave up, before that of `model`."""
        self.hedge: Hedged | None = None
        """Whose first event came first; None if it was asked for once."""
        self.put_backs = 0
        """How often its place went to a request of a higher tier."""
