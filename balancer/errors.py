"""What can go wrong between Triolet and a replica, told by whose fault it is.

    BalancerError
    ├── ConnectionLost            the peer of a socket is gone (reset, closed)
    ├── AttemptFailed             one try at one replica; the client has seen nothing yet
    │   ├── ConnectFailed           no connection: refused, unreachable, too slow, bad certificate
    │   ├── AnswerLost              the connection broke before the first event
    │   │   └── ReplicaLost           it was not waited for: nothing will come from there
    │   ├── AnswerInvalid           what came is not HTTP, or not the answer its head promised
    │   └── ReplicaRefused          the replica answered with an error status
    ├── Overdue                   a limit on time passed (`phase` says which)
    ├── StreamCut                 the replica failed after the first event
    └── PoolBusy                  no place to wait for a replica, or waited too long for one

An `AttemptFailed` may be tried again elsewhere; the others may not.
"""

from __future__ import annotations

from typing import Literal

__all__ = [
    "AnswerInvalid",
    "AnswerLost",
    "AttemptFailed",
    "BalancerError",
    "BusyReason",
    "ConnectFailed",
    "ConnectionLost",
    "Overdue",
    "Phase",
    "PoolBusy",
    "ReplicaLost",
    "ReplicaRefused",
    "StreamCut",
]

Phase = Literal["first_byte", "idle", "total"]
BusyReason = Literal["full", "hopeless", "late"]
Headers = list[tuple[bytes, bytes]]


class BalancerError(Exception):
    """Root of this tree. `kind` is the short name used in metrics and logs."""

    kind = "balancer"


class ConnectionLost(BalancerError, OSError):
    """The other end of a socket closed or reset it. An OSError, as ASGI wants it of `send`."""

    kind = "connection_lost"


class AttemptFailed(BalancerError):
    """One try failed and nothing of it reached the client."""

    kind = "attempt"

    def __init__(self, replica: str, why: str) -> None:
        super().__init__(f"replica {replica}: {why}")
        self.replica = replica
        self.why = why


class ConnectFailed(AttemptFailed):
    """No connection to the replica could be made within `connect_s`."""

    kind = "connect"


class AnswerLost(AttemptFailed):
    """The connection broke before the first event of the answer.

    `stale` is true if the connection had been kept from an earlier exchange and not a byte came
    back: then the replica most likely closed it before it saw the request, and the try is free.
    """

    kind = "reset"

    def __init__(self, replica: str, why: str, *, stale: bool = False) -> None:
        super().__init__(replica, why)
        self.stale = stale


class ReplicaLost(AnswerLost):
    """The replica was found lost, or too slow for one on trial, before its first event: the
    connection was given up here."""

    kind = "lost"


class AnswerInvalid(AttemptFailed):
    """The replica's bytes are not a well-formed HTTP answer, or end before they should."""

    kind = "invalid"


class ReplicaRefused(AttemptFailed):
    """The replica answered with an error: by its status, or in the first event of a 200.

    `headers` and `body` are the replica's own, to be passed on when no other replica is left.
    """

    kind = "status"

    def __init__(self, replica: str, status: int, headers: Headers, body: bytes) -> None:
        super().__init__(replica, f"answered {status}")
        self.status = status
        self.headers = headers
        self.body = body


class Overdue(BalancerError):
    """A limit on time passed: `first_byte_s`, `idle_s` or `total_s` of the pool."""

    kind = "timeout"

    def __init__(self, phase: Phase, limit_s: float) -> None:
        super().__init__(f"timeouts.{phase}_s ({limit_s:g} s) passed")
        self.phase = phase
        self.limit_s = limit_s


class StreamCut(BalancerError):
    """The replica failed after the first event: the client keeps what it has, and an error."""

    kind = "cut"

    def __init__(self, replica: str, why: str) -> None:
        super().__init__(f"replica {replica}: {why}")
        self.replica = replica
        self.why = why


class PoolBusy(BalancerError):
    """No replica of the pool may take the request, and waiting is not possible any longer.

    `reason`: `full` (the queue is), `hopeless` (the wait would have been too long, so it was not
    begun), `late` (`queue_s` or the deadline passed in line). `retry_after_s`, above 0, is when
    the same request would be let in: exact where the line's pace is known, else a guess.
    """

    kind = "busy"

    def __init__(
        self,
        why: str,
        retry_after_s: float,
        *,
        reason: BusyReason = "full",
        tier: str | None = None,
    ) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s
        self.reason = reason
        self.tier = tier
