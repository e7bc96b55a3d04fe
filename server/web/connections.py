"""Connections that the guard let through, each spoken over by httpcore, the transport below httpx;
kept for further requests.

The only module that knows httpcore, and imported late, by `server.web.exchange`. httpcore's own
pool is not used: it looks through all of its connections several times for each request, and with
more of them open than it may keep idle it keeps none.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from typing import Any, Final, NamedTuple, TypeAlias

import httpcore
import trio

from server.web.dialing import Dialer, Proxy
from server.web.faults import Broken, waiting
from server.web.settings import WebSettings
from server.web.urls import Target

__all__ = ["Answer", "Body", "Connections", "Content", "Question", "Stream"]

_Carrier: TypeAlias = "trio.SocketStream | trio.SSLStream[trio.SocketStream]"

_REPEATABLE: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})
"""May be sent again if a kept connection turns out to be closed."""


class Question(NamedTuple):
    """A request as it is sent."""

    method: bytes
    target: Target
    line: bytes
    """What stands in the request line: the path, or before a proxy the URL."""
    headers: list[tuple[bytes, bytes]]
    verify: bool
    trusted: bool
    times: dict[str, float]
    """Seconds: "connect", "read", "write"."""


class Content:
    """A body to be sent, in one piece. No generator: a request that is broken off would leave it to
    the garbage collector, and Trio warns of that."""

    def __init__(self, content: bytes | None = None) -> None:
        self._content = content
        self._left = content

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._left = self._content
        return self

    async def __anext__(self) -> bytes:
        data, self._left = self._left, None
        if not data:
            raise StopAsyncIteration
        return data


class Stream(httpcore.AsyncNetworkStream):
    """What httpcore reads from and writes to."""

    def __init__(self, carrier: _Carrier, transport: trio.SocketStream) -> None:
        self._carrier = carrier
        self._transport = transport
        self._answered = False
        self.closed = False

    async def read(
        self,
        max_bytes: int,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> bytes:
        """Raises `Late`, `Broken`."""
        with waiting(timeout, "an answer"):
            data = bytes(await self._carrier.receive_some(max_bytes))
        if not data and not self._answered:
            raise Broken("closed the connection without an answer")
        self._answered = True
        return data

    async def write(
        self,
        buffer: bytes,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> None:
        """Raises `Late`, and httpcore.WriteError: an answer may have come all the same."""
        self._answered = False
        with waiting(timeout, "the request to be taken", httpcore.WriteError):
            await self._carrier.send_all(buffer)

    async def tunnel(self, proxy: Proxy, host: str, port: int, within_s: float) -> None:
        """Have the proxy at the other end connect on. Raises `Late`, `Broken`."""
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        url = httpcore.URL(scheme="http", host=proxy.host, port=proxy.port, target=place)
        request = httpcore.Request(
            "CONNECT",
            url,
            headers=[("Host", place), *proxy.headers],
            content=Content(),
            extensions={"timeout": {"read": within_s, "write": within_s}},
        )
        with _faults():
            connection = httpcore.AsyncHTTP11Connection(url.origin, self)
            answer = await connection.handle_async_request(request)
        if not 200 <= answer.status < 300:
            raise Broken(f"the proxy answered {answer.status} to CONNECT {place}")

    async def secured(self, context: ssl.SSLContext, host: str, within_s: float) -> Stream:
        """The same after a TLS handshake. Raises `Late`, `Broken`."""
        carrier = trio.SSLStream(
            self._transport, context, server_hostname=host, https_compatible=True
        )
        with waiting(within_s, "the TLS handshake"):
            await carrier.do_handshake()
        return Stream(carrier, self._transport)

    def get_extra_info(self, info: str) -> Any:
        """httpcore asks whether an idle connection has become readable: closed, that is."""
        return self._transport.socket.is_readable() if info == "is_readable" else None

    def close(self) -> None:
        """At once, without waiting for the peer: synchronous, for the sake of cancellations."""
        self.closed = True
        self._transport.socket.close()

    async def aclose(self) -> None:
        self.close()

    @contextlib.contextmanager
    def closed_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise


class _Connection(NamedTuple):
    http: httpcore.AsyncHTTP11Connection
    stream: Stream
    idle_since: float = 0.0

    async def ask(self, question: Question, content: AsyncIterable[bytes]) -> httpcore.Response:
        """The head of the answer. Raises `Late`, `Broken`, ValueError."""
        request = httpcore.Request(
            question.method,
            _url(question),
            headers=question.headers,
            content=content,
            extensions={"timeout": question.times},
        )
        with self.stream.closed_on_failure(), _faults():
            return await self.http.handle_async_request(request)


class Answer(NamedTuple):
    """The head of an answer, and what its body is read from."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: Body
    stream: Stream


class Body:
    """The body as it comes. To be closed."""

    def __init__(self, stream: Any, done: Callable[[], None]) -> None:
        self._stream = stream
        self._done = done
        self._pieces: AsyncIterator[bytes] = aiter(stream)

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        with _faults():
            return await anext(self._pieces)

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            self._done()


class _Purpose(NamedTuple):
    """What a kept connection may be used for."""

    origin: str
    verify: bool


class Connections:
    """Asks over kept connections and new ones. Those made on the operator's word are not kept."""

    def __init__(self, dialer: Dialer, settings: WebSettings) -> None:
        self._dialer = dialer
        self._most_idle = settings.idle_connections
        self._idle_s = settings.idle_s
        self._idle: dict[_Purpose, list[_Connection]] = {}
        self._open = True

    async def ask(self, question: Question, content: AsyncIterable[bytes]) -> Answer:
        """Raises `Refused`, `Late`, `Broken`, and ValueError for a request that is no HTTP."""
        kept = None if question.trusted else self._kept(question)
        if kept is not None:
            try:
                return self._answer(question, kept, await kept.ask(question, content))
            except Broken:
                if question.method not in _REPEATABLE:
                    raise
        opened = await self._opened(question)
        return self._answer(question, opened, await opened.ask(question, content))

    def close(self) -> None:
        """Close the idle ones, and keep no more."""
        self._open = False
        for kept in self._idle.values():
            for connection in kept:
                connection.stream.close()
        self._idle.clear()

    def _answer(
        self, question: Question, connection: _Connection, answer: httpcore.Response
    ) -> Answer:
        def done() -> None:
            if question.trusted or not self._keep(question, connection):
                connection.stream.close()

        body = Body(answer.stream, done)
        return Answer(answer.status, answer.headers, body, connection.stream)

    async def _opened(self, question: Question) -> _Connection:
        target, connect_s = question.target, question.times["connect"]
        host, port = target.host, target.port
        transport = await self._dialer.dial(host, port, connect_s, question.trusted)
        stream = Stream(transport, transport)
        with stream.closed_on_failure():
            if target.scheme == "https":
                proxy = self._dialer.proxy_to(host, port, question.trusted)
                if proxy is not None:
                    await stream.tunnel(proxy, host, port, connect_s)
                context = await self._dialer.tls(question.verify)
                stream = await stream.secured(context, host, connect_s)
            return _Connection(
                httpcore.AsyncHTTP11Connection(_url(question).origin, stream), stream
            )

    def _kept(self, question: Question) -> _Connection | None:
        purpose = _Purpose(question.target.origin, question.verify)
        kept = self._idle.get(purpose, [])
        oldest = trio.current_time() - self._idle_s
        while kept:
            connection = kept.pop()
            if connection.idle_since >= oldest and not connection.http.has_expired():
                return connection
            connection.stream.close()
        self._idle.pop(purpose, None)
        return None

    def _keep(self, question: Question, connection: _Connection) -> bool:
        now = trio.current_time()
        if not self._open or connection.stream.closed or not connection.http.is_idle():
            return False
        self._drop_old(now - self._idle_s)
        if sum(map(len, self._idle.values())) >= self._most_idle:
            return False
        purpose = _Purpose(question.target.origin, question.verify)
        self._idle.setdefault(purpose, []).append(connection._replace(idle_since=now))
        return True

    def _drop_old(self, oldest: float) -> None:
        for purpose, kept in list(self._idle.items()):
            while kept and kept[0].idle_since < oldest:
                kept.pop(0).stream.close()
            if not kept:
                del self._idle[purpose]


def _url(question: Question) -> httpcore.URL:
    target = question.target
    return httpcore.URL(
        scheme=target.scheme, host=target.host, port=target.port, target=question.line
    )


@contextlib.contextmanager
def _faults() -> Iterator[None]:
    """The faults that httpcore finds itself; those of `Stream` pass through it."""
    try:
        yield
    except httpcore.RemoteProtocolError as error:
        raise Broken(f"answered what is no HTTP: {error}") from None
    except httpcore.LocalProtocolError as error:
        raise ValueError(str(error)) from None
