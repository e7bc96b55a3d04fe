"""Requests out of bytes. Pure: llhttp with the limits and refusals of a server that faces clients.

llhttp, in its strict default, refuses what lets two parsers disagree about where a message ends:
both Content-Length and Transfer-Encoding, repeated or odd lengths, folded headers, bare LF or CR,
spaces before colons, control characters. The rest of the refusals are here.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

import httptools

__all__ = ["HeadLimits", "Incoming", "Refusal", "RequestParser"]


class HeadLimits(NamedTuple):
    """What one request may weigh."""

    header_bytes: int = 65_536
    header_count: int = 128
    body_bytes: int = 33_554_432


class Refusal(NamedTuple):
    """Why a request is not served; the connection is closed after this answer."""

    status: int
    message: str


class Incoming:
    """One request as it comes in: the head is here, the body may still be coming."""

    __slots__ = (
        "body_bytes",
        "complete",
        "expects_continue",
        "headers",
        "keep_alive",
        "method",
        "pieces",
        "target",
        "version",
    )

    def __init__(self, method: str, target: bytes, version: str) -> None:
        self.method = method
        self.target = target
        self.version = version
        self.headers: list[tuple[bytes, bytes]] = []
        self.keep_alive = False
        self.expects_continue = False
        self.pieces: list[bytes] = []
        self.body_bytes = 0
        self.complete = False

    def take_body(self) -> bytes:
        """The bytes of the body that have come and were not taken yet."""
        body = self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
        self.pieces.clear()
        return body


class RequestParser:
    """Bytes of one connection in, requests out, in order, on `ready`.

    After a `refusal` nothing more is taken; requests on `ready` before it are still to be served.
    """

    def __init__(self, limits: HeadLimits) -> None:
        self.ready: deque[Incoming] = deque()
        self.refusal: Refusal | None = None
        self._limits = limits
        self._parser = httptools.HttpRequestParser(self)
        self._current: Incoming | None = None
        self._upgrading: Incoming | None = None
        self._start()

    def _start(self) -> None:
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._header_bytes = 0
        self._fed_bytes = 0
        self._begun = False

    @property
    def in_head(self) -> bool:
        """Whether the beginning of a head is here and its end is not."""
        return self._begun and self._current is None

    def close(self) -> None:
        """Take nothing more. llhttp knows this object, and it llhttp: without that circle both are
        freed at once, and not when the collector comes round.
        """
        self._refuse(400, "the connection is closed")
        self._parser = _NO_PARSER

    def feed(self, data: bytes) -> None:
        """Take bytes from the connection. Never raises: see `refusal`."""
        while data and self.refusal is None:
            self._fed_bytes += len(data)
            try:
                self._parser.feed_data(data)
                data = b""
            except httptools.HttpParserUpgrade as exc:
                data = self._decline_upgrade(data, exc.args[0])
            except httptools.HttpParserError as exc:
                self._refuse(400, f"malformed HTTP/1.1 request: {exc}")
        if self._fed_bytes > self._limits.header_bytes:
            # A name, a value, a trailer or a chunk's extension that does not come to its end.
            self._refuse_head()

    def _decline_upgrade(self, data: bytes, offset: int) -> bytes:
        """Go on in HTTP/1.1, as RFC 9110 (7.8) lets a server do; llhttp has stopped here.

        It has taken the request for one without a body. If it has one, the new parser is told so
        by a head of ours, which nobody else sees.
        """
        self._parser = httptools.HttpRequestParser(self)
        incoming, self._upgrading = self._upgrading, None
        if incoming is not None:
            self._current = incoming
            self._parser.feed_data(_replayed_head(incoming))
        return data[offset:]

    def _refuse(self, status: int, message: str) -> None:
        if self.refusal is None:
            self.refusal = Refusal(status, message)

    def _refuse_head(self) -> None:
        limits = self._limits
        self._refuse(
            431,
            f"request headers over the limit of {limits.header_bytes} bytes in "
            f"{limits.header_count} fields (limits.header_bytes, limits.header_count)",
        )

    # What llhttp calls.

    def on_message_begin(self) -> None:
        self._begun = True

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._header_bytes += len(url)
        if self._header_bytes > self._limits.header_bytes:
            self._refuse_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._current is not None:
            return  # a trailer: nobody here asks for those
        self._headers.append((name.lower(), value))
        self._header_bytes += len(name) + len(value) + 4
        limits = self._limits
        if len(self._headers) > limits.header_count or self._header_bytes > limits.header_bytes:
            self._refuse_head()

    def on_headers_complete(self) -> None:
        if self._current is not None:
            return  # the head of ours, for a declined upgrade
        parser = self._parser
        self._fed_bytes = 0
        incoming = Incoming(
            parser.get_method().decode("ascii"), self._target, parser.get_http_version()
        )
        incoming.headers = self._headers
        incoming.keep_alive = parser.should_keep_alive()
        self._current = incoming
        self._check(incoming)
        if self.refusal is None:
            self.ready.append(incoming)
            if parser.should_upgrade() and _has_body(incoming):
                self._upgrading = incoming

    def _check(self, incoming: Incoming) -> None:
        hosts = 0
        for name, value in incoming.headers:
            if name in _CHECKED:
                if name == b"host":
                    hosts += 1
                elif name == b"content-length":
                    if int(value) > self._limits.body_bytes:
                        self._refuse_body()
                elif name == b"transfer-encoding":
                    self._check_encoding(incoming, value)
                elif value.lower() == b"100-continue":
                    incoming.expects_continue = incoming.version == "1.1"
                else:
                    self._refuse(417, "the only expectation understood is 100-continue")
        if incoming.version not in ("1.1", "1.0"):
            self._refuse(505, f"HTTP/{incoming.version} is not spoken here; HTTP/1.1 is")
        elif hosts != 1 and (hosts or incoming.version == "1.1"):
            self._refuse(400, f"a request has exactly one Host header, this one has {hosts}")
        elif incoming.method == "CONNECT":
            self._refuse(405, "CONNECT is not served here: this is not a forward proxy")

    def _check_encoding(self, incoming: Incoming, value: bytes) -> None:
        if incoming.version == "1.0":
            self._refuse(400, "Transfer-Encoding does not exist in HTTP/1.0")
        elif value.strip().lower() != b"chunked":
            self._refuse(501, "the only Transfer-Encoding understood is chunked")

    def _refuse_body(self) -> None:
        self._refuse(
            413,
            f"request body over the limit of {self._limits.body_bytes} bytes (limits.body_bytes)",
        )

    def on_body(self, body: bytes) -> None:
        incoming = self._current
        if incoming is None or self.refusal is not None:
            return
        self._fed_bytes = 0
        incoming.body_bytes += len(body)
        if incoming.body_bytes > self._limits.body_bytes:
            self._refuse_body()
        else:
            incoming.pieces.append(body)

    def on_message_complete(self) -> None:
        if self._upgrading is not None:
            return  # its body is still to come
        if self._current is not None:
            self._current.complete = self.refusal is None
        self._current = None
        self._start()


def _has_body(incoming: Incoming) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and int(value) > 0)
        for name, value in incoming.headers
    )


def _replayed_head(incoming: Incoming) -> bytes:
    """A head with the framing of `incoming` and nothing else."""
    framing = [
        b"%b: %b\r\n" % header
        for header in incoming.headers
        if header[0] in (b"transfer-encoding", b"content-length")
    ]
    return b"POST / HTTP/1.1\r\nhost: a\r\n%b\r\n" % b"".join(framing)


_NO_PARSER: Final = httptools.HttpRequestParser(object())

_CHECKED: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect"})
