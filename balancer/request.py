"""What is sent to replicas for one call, and how long each of its waits may take."""

from __future__ import annotations

from typing import NamedTuple

from balancer.replica import Replica
from balancer.wire.http1 import request_head

__all__ = ["Limits", "Request"]


class Request:
    """What goes to a replica. `headers` are those to pass on, names in lower case."""

    __slots__ = ("body", "headers", "method", "stream", "target")

    def __init__(
        self,
        method: str,
        target: bytes,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        *,
        stream: bool = True,
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.stream = stream
        """Whether a stream is asked for: only then does a first event come before the end."""

    def head_for(self, replica: Replica) -> bytes:
        """The request's head as this replica gets it."""
        origin, own = replica.origin, replica.headers
        lines = [b"host: " + origin.authority.encode()]
        lines += (b"%b: %b" % header for header in self.headers if header[0] not in own)
        lines += (b"%b: %b" % header for header in own.items())
        lines.append(b"content-length: %d" % len(self.body))
        return request_head(self.method, origin.base.encode() + self.target, lines)


class Limits(NamedTuple):
    """What bounds one request's waits, in seconds; `total_at` is a time of `trio.current_time`."""

    connect_s: float
    first_byte_s: float
    idle_s: float
    hold_s: float
    """How long a beginning that carries nothing is held back; 0: no longer than it takes to read
    what is there."""
    total_s: float
    total_at: float
