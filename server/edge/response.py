"""Responses into bytes. Pure: an ASGI app's messages framed for HTTP/1.1 or 1.0."""

from __future__ import annotations

import time
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

__all__ = ["FramingError", "ResponseFramer", "simple_response"]

Headers = list[tuple[bytes, bytes]]

_STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}


class FramingError(RuntimeError):
    """The app said something that cannot be put into a well-formed response."""


class ResponseFramer:
    """Frames one response. `head`, then `body` until `ended`."""

    __slots__ = ("_bodiless", "_chunked", "_is_head", "_left", "_old", "ended", "keep_alive")

    def __init__(self, *, method: str, version: str, keep_alive: bool) -> None:
        self._is_head = method == "HEAD"
        self._old = version == "1.0"
        self.keep_alive = keep_alive
        self.ended = False
        self._bodiless = False
        self._chunked = False
        self._left: int | None = None

    def start(self, status: int, headers: Headers, body: bytes, *, more: bool) -> bytes:
        """The head and the first bytes of the body."""
        lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d " % status]
        length, dated = self._add_headers(lines, headers, sized=status != 204)
        if not dated:
            lines.append(_date_line())
        self._bodiless = self._is_head or status in (204, 304)
        if length is not None:
            self._left = length
        elif status in (204, 304):
            self._left = 0
        elif not more:
            self._left = len(body)
            lines.append(b"content-length: %d" % len(body))
        elif self._old:
            self.keep_alive = False
        else:
            self._chunked = True
            lines.append(b"transfer-encoding: chunked")
        if not self.keep_alive:
            lines.append(b"connection: close")
        elif self._old:
            lines.append(b"connection: keep-alive")
        lines += (b"", b"")
        head = b"\r\n".join(lines)
        _check_lines(head, len(lines))
        return head + self.body(body, more=more)

    def _add_headers(
        self, lines: list[bytes], headers: Headers, *, sized: bool
    ) -> tuple[int | None, bool]:
        """Append the app's header lines; the length and whether there is a date among them."""
        length, dated = None, False
        for name, value in headers:
            lower = name.lower()
            if lower == b"content-length":
                if not value.isdigit() or length not in (None, int(value)):
                    raise FramingError(f"the app's content-length is {value!r}")
                if length is not None or not sized:
                    continue  # RFC 9110 (8.6): a 204 has none
                length = int(value)
            elif lower == b"date":
                dated = True
            elif lower == b"connection":
                self.keep_alive = self.keep_alive and b"close" not in value.lower()
                continue
            elif lower in (b"transfer-encoding", b"keep-alive"):
                continue  # framing is this class's business
            lines.append(name + b": " + value)
        return length, dated

    def body(self, data: bytes, *, more: bool) -> bytes:
        """The next bytes of the body as they go on the wire; `more` false ends the response."""
        if self.ended:
            raise FramingError("the app sent a body after the end of its response")
        if self._left is not None and not self._bodiless:
            self._left -= len(data)
            if self._left < 0 or (self._left and not more):
                raise FramingError("the app's body is not as long as its content-length says")
        self.ended = not more
        if self._bodiless:
            return b""
        return self.chunk(data, more=more) if self._chunked else data

    def chunk(self, data: bytes, *, more: bool) -> bytes:
        if more:
            return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        return b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n"


def _check_lines(head: bytes, count: int) -> None:
    """A header value with a line end in it would be a second header, or a second response."""
    if head.count(b"\n") != count - 1 or head.count(b"\r") != count - 1 or b"\0" in head:
        raise FramingError("a header of the app's response contains CR, LF or NUL")


_date: tuple[int, bytes] = (0, b"")


def _date_line() -> bytes:
    global _date  # formatted once a second instead of once a response
    now = int(time.time())
    if _date[0] != now:
        _date = (now, b"date: " + formatdate(now, usegmt=True).encode())
    return _date[1]


def simple_response(status: int, headers: Headers, body: bytes, *, method: str = "GET") -> bytes:
    """A whole response after which the connection is closed."""
    framer = ResponseFramer(method=method, version="1.1", keep_alive=False)
    return framer.start(status, headers, body, more=False)
