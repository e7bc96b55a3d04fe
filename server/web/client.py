"""Requests to the outside, under the guard: redirects, limits, and httpx for each of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Final

import trio

from server.web.decode import BadEncoding, decoder_of
from server.web.dialing import Dialer
from server.web.faults import Broken, Late
from server.web.limits import Places
from server.web.redirects import REDIRECTS, redirected
from server.web.resolve import Resolve
from server.web.settings import WebSettings
from server.web.streams import Incoming
from server.web.urls import Refused, Target, parse_url
from server.workflow.services import WebFailed, WebRequest, WebResponse

if TYPE_CHECKING:
    from server.web.exchange import Exchange, Exchanges

__all__ = ["Client", "WebSettings"]

REFUSED: Final = "RequestRefused"
FAILED: Final = "RequestFailed"
TIMEOUT: Final = "RequestTimeout"
TOO_LARGE: Final = "ResponseSizeError"


class Client:
    """`services.Web`, for as long as its `async with` lasts.

    >>> async with Client(WebSettings(allow=("sandbox",))) as web:
    ...     answer = await web.send(WebRequest(method="GET", url="http://sandbox:8194/"))

    Errors are `WebFailed` of the types RequestRefused, RequestFailed, RequestTimeout and
    ResponseSizeError.
    """

    def __init__(
        self, settings: WebSettings | None = None, *, resolve: Resolve | None = None
    ) -> None:
        self._settings = settings or WebSettings()
        self._dialer = Dialer(self._settings, resolve)
        self._places = Places(self._settings.connections, self._settings.connections_per_host)
        self._exchanges: Exchanges | None = None

    async def __aenter__(self) -> Client:
        from server.web.exchange import Exchanges

        self._exchanges = Exchanges(self._dialer, self._settings)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        exchanges, self._exchanges = self._exchanges, None
        if exchanges is not None:
            await exchanges.aclose()

    async def send(self, request: WebRequest) -> WebResponse:
        """See `services.Web`."""
        return await self._send(request, frozenset())

    @asynccontextmanager
    async def stream(self, request: WebRequest) -> AsyncIterator[Incoming]:
        """See `StreamingWeb`."""
        async with self._stream(request, frozenset()) as incoming:
            yield incoming

    def trusting(self, *urls: str) -> Trusting:
        """See `StreamingWeb`."""
        try:
            return Trusting(self, frozenset(parse_url(url).origin for url in urls))
        except Refused as error:
            raise ValueError(str(error)) from None

    async def _send(self, request: WebRequest, trusted: frozenset[str]) -> WebResponse:
        async with self._stream(request, trusted) as incoming:
            parts = []
            while data := await incoming.read():
                parts.append(data)
            return WebResponse(
                status=incoming.status,
                headers=incoming.headers,
                content=b"".join(parts),
                url=incoming.url,
            )

    @asynccontextmanager
    async def _stream(
        self, request: WebRequest, trusted: frozenset[str]
    ) -> AsyncIterator[Incoming]:
        with trio.move_on_after(request.total_s) as scope:
            async with self._followed(request, trusted) as incoming:
                yield incoming
        if scope.cancelled_caught:
            raise WebFailed(
                f"{_place(request.url)}: no whole answer within {request.total_s:g} s", TIMEOUT
            )

    @asynccontextmanager
    async def _followed(
        self, request: WebRequest, trusted: frozenset[str]
    ) -> AsyncIterator[Incoming]:
        """The answer at the end of the redirects. Each of them passes the guard like the first."""
        for _ in range(self._settings.redirects + 1):
            target = _target(request.url)
            async with self._answered(target, request, trusted) as answer:
                location = _location(request, answer)
                if location is None:
                    yield answer
                    return
            try:
                request = redirected(request, target, answer.status, location)
            except Refused as error:
                raise WebFailed(f"redirected by {target.authority}: {error}", REFUSED) from None
        raise WebFailed(f"{_place(request.url)}: redirected too often", FAILED)

    @asynccontextmanager
    async def _answered(
        self, target: Target, request: WebRequest, trusted: frozenset[str]
    ) -> AsyncIterator[_Answer]:
        async with self._places.place(target.origin):
            exchange = await self._asked(target, request, target.origin in trusted)
            try:
                yield _Answer(exchange, request, target)
            except BadEncoding as error:
                raise WebFailed(f"{target.authority}: {error}", FAILED) from None
            finally:
                await exchange.aclose()

    async def _asked(self, target: Target, request: WebRequest, trusted: bool) -> Exchange:
        """The head of the answer to one request."""
        if self._exchanges is None:
            raise RuntimeError("the web client is not open")
        try:
            return await self._exchanges.ask(request, target, trusted)
        except Refused as error:
            raise WebFailed(str(error), REFUSED) from None
        except Late as error:
            raise WebFailed(f"{target.authority}: {error}", TIMEOUT) from None
        except (Broken, ValueError, OSError) as error:
            raise WebFailed(f"{target.authority}: {error}", FAILED) from None


class Trusting:
    """A client as it is for servers that the operator named."""

    def __init__(self, client: Client, origins: frozenset[str]) -> None:
        self._client = client
        self._origins = origins

    async def send(self, request: WebRequest) -> WebResponse:
        return await self._client._send(request, self._origins)

    @asynccontextmanager
    async def stream(self, request: WebRequest) -> AsyncIterator[Incoming]:
        async with self._client._stream(request, self._origins) as incoming:
            yield incoming

    def trusting(self, *urls: str) -> Trusting:
        more = self._client.trusting(*urls)
        return Trusting(self._client, self._origins | more._origins)


class _Answer:
    """`Incoming`, over an exchange: unpacked, and bounded in its size."""

    def __init__(self, exchange: Exchange, request: WebRequest, target: Target) -> None:
        self.status = exchange.status
        self.headers = exchange.headers
        self.url = target.url
        self._exchange = exchange
        self._ended = False
        self._most_bytes = request.most_bytes
        self._left = request.most_bytes
        self._packed_left = request.most_bytes
        self._decoder = decoder_of(_header(exchange, "content-encoding"))
        self._unpacked: Iterator[bytes] = iter(())

    async def read(self) -> bytes:
        """See `Incoming`."""
        try:
            data = await self._next()
        except Late as error:
            raise WebFailed(f"{_place(self.url)}: {error}", TIMEOUT) from None
        except (Broken, BadEncoding) as error:
            raise WebFailed(f"{_place(self.url)}: {error}", FAILED) from None
        self._left -= len(data)
        if self._left < 0 or self._packed_left < 0:
            raise WebFailed(
                f"{_place(self.url)}: the answer is larger than {self._most_bytes} bytes",
                TOO_LARGE,
            )
        return data

    async def _next(self) -> bytes:
        while not self._ended:
            for piece in self._unpacked:
                if piece:
                    await trio.lowlevel.checkpoint()
                    return piece
            data = await self._exchange.read()
            self._packed_left -= len(data)
            if not data or self._packed_left < 0:
                self._ended = not data
                return data
            if self._decoder is None:
                return data
            self._unpacked = self._decoder.feed(data)
        return b""


def _header(exchange: Exchange, wanted: str) -> str:
    return ", ".join(value for name, value in exchange.headers if name == wanted)


def _location(request: WebRequest, answer: _Answer) -> str | None:
    """Where the answer sends the request; None if it is the answer itself."""
    if not request.follow_redirects or answer.status not in REDIRECTS:
        return None
    return next((value for name, value in answer.headers if name == "location"), None)


def _target(url: str) -> Target:
    try:
        return parse_url(url)
    except Refused as error:
        raise WebFailed(str(error), REFUSED) from None


def _place(url: str) -> str:
    """The part of a URL that may stand in a message: no path, no query, no credentials."""
    try:
        return parse_url(url).authority
    except Refused:
        return "the request"
