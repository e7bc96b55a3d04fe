"""One request and its answer over httpx. The only module that imports httpx, and imported late:
httpx takes a while to load.

httpx gets one request at a time, ready to be sent, and hands out what came back. What it would do
on its own (redirects, cookies, credentials and proxies from the environment, unpacking without a
bound) is switched off: the guard and the limits are in what does it here.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from http.cookiejar import CookieJar
from typing import Any, Final

import httpx
import trio

from server.web.connections import Answer, Connections, Content, Question, Stream
from server.web.dialing import Dialer
from server.web.faults import Broken
from server.web.headers import request_headers
from server.web.settings import WebSettings
from server.web.urls import Target
from server.workflow.services import WebRequest

__all__ = ["Exchange", "Exchanges"]

logging.getLogger("httpx").setLevel(logging.WARNING)  # Else it logs each request.

_CLOSING_S: Final = 2.0
"""Closing waits for no peer; what is left unread in memory takes a moment at most."""


class Exchange:
    """An answer whose body is still to come, as it comes."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers = [(name.decode("latin-1"), _text(value)) for name, value in _raw(response)]
        self._response = response
        self._stream: Stream = response.extensions["network_stream"]
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self._pieces = aiter(response.stream)
        self._reading = False
        self._ended = False

    async def read(self) -> bytes:
        """The next bytes of the body; empty at its end. Raises `Late`, `Broken`."""
        if self._ended:
            return b""
        # Whatever ends this wait otherwise than with bytes ends the generators behind it, too.
        self._reading = False
        data = await anext(self._pieces, b"")
        self._reading, self._ended = bool(data), not data
        # A body in many small chunks comes out of memory: others have their turn between them.
        await trio.lowlevel.checkpoint()
        return data

    async def aclose(self) -> None:
        """Give the connection back after a whole answer, else close it at once."""
        with trio.move_on_after(_CLOSING_S, shield=True):
            if self._reading:
                await self._break_off()
            await self._response.aclose()

    async def _break_off(self) -> None:
        """httpx and httpcore read through generators within generators, which are left behind
        unless each of them comes to its end: without its connection, it does."""
        self._stream.close()
        try:
            async for _ in self._pieces:
                await trio.lowlevel.checkpoint()
        except Broken:
            return


class Exchanges:
    """Asks what it is given, once, and where the guard lets it. To be closed."""

    def __init__(self, dialer: Dialer, settings: WebSettings) -> None:
        self._dialer = dialer
        self._http = httpx.AsyncClient(
            transport=_Transport(Connections(dialer, settings)),
            cookies=_NoCookies(),
            follow_redirects=False,
            trust_env=False,
        )

    async def ask(self, request: WebRequest, target: Target, trusted: bool) -> Exchange:
        """Raises `Refused`, `Late`, `Broken`, and ValueError for a request that is no HTTP."""
        question = self._question(request, target, trusted)
        sent = httpx.Request(
            request.method,
            # What httpx sees of the URL is what it may log: the rest may be a secret.
            target.origin,
            stream=_Content(request.content),
            extensions={"question": question, "timeout": question.times},
        )
        return Exchange(await self._http.send(sent, stream=True))

    async def aclose(self) -> None:
        with trio.move_on_after(_CLOSING_S, shield=True):
            await self._http.aclose()

    def _question(self, request: WebRequest, target: Target, trusted: bool) -> Question:
        fields, line = request_headers(request, target), target.path
        proxy = self._dialer.proxy_to(target.host, target.port, trusted)
        if proxy is not None and target.scheme == "http":
            fields, line = fields + proxy.headers, target.url
        return Question(
            method=request.method.encode("ascii"),
            target=target,
            line=line.encode("ascii"),
            headers=[(name.encode("latin-1"), value.encode()) for name, value in fields],
            verify=request.verify,
            trusted=trusted,
            times={
                "connect": request.connect_s,
                "read": request.read_s,
                "write": request.write_s,
            },
        )


class _Transport(httpx.AsyncBaseTransport):
    """Between httpx and the connections."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        answer = await self._connections.ask(request.extensions["question"], request.stream)
        return _Response(
            answer.status,
            headers=answer.headers,
            stream=_Body(answer),
            extensions={"network_stream": answer.stream},
        )

    async def aclose(self) -> None:
        self._connections.close()


class _Response(httpx.Response):
    @property
    def has_redirect_location(self) -> bool:
        """httpx prepares the next request even when it does not follow, and fails where it cannot:
        redirects are the client's to read."""
        return False


class _Body(httpx.AsyncByteStream):
    def __init__(self, answer: Answer) -> None:
        self._body = answer.body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._body

    async def aclose(self) -> None:
        await self._body.aclose()


class _Content(Content, httpx.AsyncByteStream):
    """As httpx wants it."""


class _NoCookies(CookieJar):
    """Keeps none: an app's cookies are not another's."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Nor reads any."""


def _raw(response: httpx.Response) -> list[tuple[bytes, bytes]]:
    return [(name.lower(), value) for name, value in response.headers.raw]


def _text(value: bytes) -> str:
    """A header's value: UTF-8 where it is, as some servers send file names."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
