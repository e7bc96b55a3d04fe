"""A small GET from a replica: for health probes and discovery, not for traffic."""

from __future__ import annotations

import trio

from balancer.errors import AnswerInvalid, AttemptFailed, Overdue
from balancer.wire.connect import Dialer, Origin
from balancer.wire.http1 import Connection, Headers, request_head

__all__ = ["FetchFailed", "fetch"]

_BODY_BYTES = 4_194_304


async def fetch(
    dialer: Dialer, origin: Origin, path: str, *, limit_s: float, headers: Headers | None = None
) -> tuple[int, bytes]:
    """Status and body of `GET path`, on a connection of its own.

    Raises `AttemptFailed` (refused, reset, not HTTP, over 4 MiB) or `Overdue` after `limit_s`.
    """
    with trio.move_on_after(limit_s):
        connection = Connection(await dialer.dial(origin), str(origin))
        try:
            return await _get(connection, origin, path, headers or [])
        finally:
            connection.close()
    raise Overdue("total", limit_s)


async def _get(
    connection: Connection, origin: Origin, path: str, headers: Headers
) -> tuple[int, bytes]:
    lines = [b"host: " + origin.authority.encode(), b"accept: application/json"]
    lines += (b"%b: %b" % header for header in headers)
    lines.append(b"connection: close")
    await connection.send(request_head("GET", (origin.base + path).encode(), lines))
    head = await connection.head()
    body = bytearray()
    while data := await connection.read():
        body += data
        if len(body) > _BODY_BYTES:
            raise AnswerInvalid(str(origin), f"more than {_BODY_BYTES} bytes for {path}")
    return head.status, bytes(body)


FetchFailed = (AttemptFailed, Overdue)
"""What `fetch` raises."""
