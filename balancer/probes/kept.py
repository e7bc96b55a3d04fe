"""GETs from one server over one connection that is kept: for what is asked every few seconds."""

from __future__ import annotations

import trio

from balancer.errors import AnswerInvalid, AnswerLost, Overdue
from balancer.wire.connect import Dialer, Origin
from balancer.wire.http1 import ConnectionPool, Headers, request_head

__all__ = ["KeptGet"]

_BODY_BYTES = 4_194_304


class KeptGet:
    """`get` what is wanted, one at a time; `close` in the end."""

    def __init__(self, dialer: Dialer, origin: Origin, headers: Headers) -> None:
        """`headers` (names in lower case) go with each request."""
        self.origin = origin
        self._connections = ConnectionPool(origin, dialer, keep=1)
        self._lines = [b"host: " + origin.authority.encode(), b"accept: */*"]
        self._lines += (b"%b: %b" % header for header in headers)

    async def get(self, path: str, limit_s: float) -> tuple[int, bytes]:
        """Status and body.

        Raises `AttemptFailed` (refused, reset, not HTTP, over 4 MiB) or `Overdue` after `limit_s`.
        """
        request = request_head("GET", (self.origin.base + path).encode(), self._lines)
        with trio.move_on_after(limit_s):
            try:
                return await self._exchange(request, path, limit_s, fresh=False)
            except AnswerLost as exc:
                if not exc.stale:
                    raise
                # The server closed the kept connection just when it was used.
                return await self._exchange(request, path, limit_s, fresh=True)
        raise Overdue("total", limit_s)

    async def _exchange(
        self, request: bytes, path: str, limit_s: float, *, fresh: bool
    ) -> tuple[int, bytes]:
        connection = await self._connections.take(limit_s, fresh=fresh)
        try:
            await connection.send(request)
            head = await connection.head()
            body = bytearray()
            while data := await connection.read():
                body += data
                if len(body) > _BODY_BYTES:
                    raise AnswerInvalid(
                        str(self.origin), f"more than {_BODY_BYTES} bytes for {path}"
                    )
            return head.status, bytes(body)
        finally:
            self._connections.give_back(connection)  # which closes it unless the answer is whole

    def close(self) -> None:
        self._connections.close()
