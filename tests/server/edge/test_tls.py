"""The https server over real sockets: HTTP/1.1 and HTTP/2, and what faulty clients cannot do."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import httpx
import pytest
import trio
import trio.testing
import trustme

from balancer.errors import ConnectionLost
from balancer.wire.poller import open_poller
from server.api.respond import respond_error, respond_json
from server.edge.accept import bind
from server.edge.app import App, Route
from server.edge.connection import EdgeLimits
from server.edge.exchange import ASGIApp, Receive, Scope, Send
from server.edge.http1 import Http1Server
from server.edge.request import HeadLimits
from server.edge.tls import TlsServer
from server.edge.tls_protocols import Http2
from server.observe.record import Record

BOTH = pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
HEAD = b" / HTTP/1.1\r\nhost: x\r\n"


class Identity:
    """A certificate for 127.0.0.1, as files, and the authority that signed it."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        issued = self.authority.issue_cert("127.0.0.1", "localhost")
        self.cert, self.key = str(folder / "cert.pem"), str(folder / "key.pem")
        issued.cert_chain_pems[0].write_to_path(self.cert)
        issued.private_key_pem.write_to_path(self.key)

    def client_context(self, *protocols: str) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return Identity(tmp_path_factory.mktemp("tls"))


PHASES: tuple[Literal["setup", "call", "teardown"], ...] = ("setup", "call", "teardown")


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing is logged that a person should read."""
    yield
    loud = [
        record
        for when in PHASES
        for record in caplog.get_records(when)
        if record.levelno >= logging.WARNING
    ]
    assert loud == []


class Serving:
    """A running server and the ways to reach it."""

    def __init__(self, server: TlsServer, identity: Identity, port: int) -> None:
        self.server = server
        self.identity = identity
        self.port = port
        self.done = trio.Event()
        self._sockets: list[trio.socket.SocketType] = []

    def close_clients(self) -> None:
        for sock in self._sockets:
            sock.close()

    async def connect_tcp(self) -> trio.SocketStream:
        """A connection before TLS."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        self._sockets.append(stream.socket)
        return stream

    async def connect(self, *protocols: str) -> trio.SSLStream[trio.SocketStream]:
        """A TLS connection that offers `protocols`."""
        stream = trio.SSLStream(
            await self.connect_tcp(),
            self.identity.client_context(*protocols),
            server_hostname="127.0.0.1",
            https_compatible=True,
        )
        await stream.do_handshake()
        return stream

    async def down_to(self, connections: int) -> None:
        """Wait until no more than so many connections are open."""
        with trio.fail_after(3):
            while self.server.counts().connections > connections:  # noqa: ASYNC110
                await trio.sleep(0.005)

    async def http2(self) -> H2Client:
        client = H2Client(await self.connect("h2"))
        await client.flush()
        return client

    def httpx(self, *, http2: bool = False) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=f"https://127.0.0.1:{self.port}",
            verify=self.identity.client_context(),
            http1=not http2,
            http2=http2,
            timeout=5,
            trust_env=False,
        )


@asynccontextmanager
async def serving(
    identity: Identity, app: ASGIApp, limits: EdgeLimits | None = None
) -> AsyncIterator[Serving]:
    """Serve `app`; at the end whatever is left is aborted, and nothing may stay behind."""
    server = TlsServer(app, limits or EdgeLimits(), cert=identity.cert, key=identity.key)
    listener = bind("127.0.0.1", 0)
    served = Serving(server, identity, listener.getsockname()[1])

    async def serve(task_status: trio.TaskStatus[None]) -> None:
        await server.serve([listener], task_status=task_status)
        served.done.set()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve)
            try:
                yield served
            finally:
                server.stop_accepting()
                server.abort()
                served.close_clients()
    assert server.counts().connections == 0


class H2Client:
    """HTTP/2 at the level of frames, to do what a good client does not."""

    def __init__(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        self.stream = stream
        config = h2.config.H2Configuration(header_encoding="utf-8", validate_outbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.events: list[h2.events.Event] = []
        self.closed = False

    async def flush(self) -> None:
        await self.stream.send_all(self.h2.data_to_send())

    async def request(
        self, method: str, path: str, *more: tuple[str, str], end: bool = True
    ) -> int:
        """Send the head of a request (no path: a plain CONNECT); returns the stream's number."""
        number = self.h2.get_next_available_stream_id()
        head = [(":method", method)]
        if path:
            head += [(":path", path), (":scheme", "https")]
        self.h2.send_headers(number, [*head, (":authority", "x"), *more], end_stream=end)
        await self.flush()
        return number

    async def pump(self) -> None:
        """Take what the server sends next."""
        try:
            data = await self.stream.receive_some()
        except trio.BrokenResourceError:
            data = b""
        self.closed = not data
        if data:
            self.events += self.h2.receive_data(data)
            await self.flush()

    async def until(
        self,
        kind: type[Any] | tuple[type[Any], ...],
        number: int | None = None,
        *,
        open_window: bool = True,
    ) -> Any:
        """The next event of `kind` (on that stream), or None if the connection is closed first."""
        while True:
            for event in self.events:
                if isinstance(event, h2.events.DataReceived) and open_window:
                    self._acknowledge(event)
                if isinstance(event, kind) and number in (None, getattr(event, "stream_id", None)):
                    self.events.remove(event)
                    return event
            if self.closed:
                return None
            await self.pump()

    def _acknowledge(self, event: h2.events.DataReceived) -> None:
        if event.flow_controlled_length:
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            event.flow_controlled_length = 0

    async def get(self, path: str) -> str:
        """The status of a whole exchange."""
        number = await self.request("GET", path)
        response = await self.until(h2.events.ResponseReceived, number)
        assert response is not None
        assert await self.until(h2.events.StreamEnded, number) is not None
        return str(dict(response.headers)[":status"])


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    """Everything until the peer closes, politely or not."""
    data = bytearray()
    try:
        while piece := await stream.receive_some(65_536):
            data += piece
    except trio.BrokenResourceError:
        return bytes(data)
    return bytes(data)


async def read_until(stream: trio.abc.ReceiveStream, end: bytes) -> None:
    data = b""
    while end not in data:
        piece = await stream.receive_some()
        assert piece
        data += piece


async def say(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def begin(send: Send, body: bytes = b"") -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def read_body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionLost("the client left while it sent")
        body += message["body"]
        if not message["more_body"]:
            return bytes(body)


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await say(send, 200, b"hello")


async def various(scope: Scope, receive: Receive, send: Send) -> None:
    """One of everything that an answer can be."""
    path = scope["path"]
    if path == "/echo":
        body = await read_body(receive)
        kind = dict(scope["headers"]).get(b"content-type", b"")
        await say(send, 201, body, (b"Content-Type", kind), (b"x-query", scope["query_string"]))
    elif path == "/empty":
        await say(send, 204, b"")
    elif path == "/stream":
        await begin(send)
        for number in range(5):
            message = {"type": "http.response.body", "body": b"%d;" % number, "more_body": True}
            await send(message)
        await send({"type": "http.response.body"})
    elif path == "/large":
        await say(send, 200, b"0123456789" * 30_000, (b"date", b"then"), (b"connection", b"close"))
    elif path == "/broken":
        raise RuntimeError("a bug")
    else:
        await say(send, 200, path.encode(), (b"x-method", scope["method"].encode()))


REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/a%20b%C3%A9?x=1", {}),
    ("HEAD", "/head", {}),
    ("POST", "/echo?q=%31", {"json": {"a": [1, 2]}}),
    ("POST", "/echo", {"content": b"x" * 700_000}),
    ("GET", "/empty", {}),
    ("GET", "/stream", {}),
    ("GET", "/large", {}),
    ("GET", "/broken", {}),
    ("GET", "/after", {}),
]


async def answers(client: httpx.AsyncClient, requests: list[Any]) -> list[Any]:
    """Status, headers and body of each; without what belongs to one version of HTTP."""
    seen = []
    for method, path, body in requests:
        response = await client.request(method, path, **body)
        headers = {
            name: value
            for name, value in response.headers.items()
            if name not in ("connection", "transfer-encoding")
        }
        assert headers.pop("date")
        seen.append((response.status_code, headers, response.content))
    return seen


@asynccontextmanager
async def plaintext(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the same app on our own HTTP/1.1 server."""
    poller = open_poller()
    server, listener = Http1Server(app, poller, lifespan=False), bind("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with trio.open_nursery() as nursery:
        await nursery.start(poller.run)
        await nursery.start(lambda task_status: server.serve([listener], task_status=task_status))
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            yield client
        nursery.cancel_scope.cancel()


@BOTH
async def test_answers_are_those_of_plaintext(identity: Identity, http2: bool) -> None:
    """The same app gives the same status, headers and body as on our own HTTP/1.1 server."""
    async with plaintext(various) as client:
        expected = await answers(client, REQUESTS)
    async with serving(identity, various) as served, served.httpx(http2=http2) as client:
        assert await answers(client, REQUESTS) == expected


def our_app() -> App:
    async def models(record: Record, scope: Scope, receive: Receive, send: Send) -> None:
        await respond_json(send, record, 200, {"data": [], "id": record.request_id})

    async def bug(record: Record, scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("a bug")

    routes = {"/v1/models": Route(GET=models), "/bug": Route(GET=bug)}
    return App(routes, respond_error, settle=lambda record: None)


@BOTH
async def test_our_app_answers_alike(identity: Identity, http2: bool) -> None:
    """Answers, the edge's own errors and a handler's bug of `App` are the same over TLS."""
    named = {"headers": {"x-request-id": "r1"}}
    asked = [(m, p, named) for m in ("GET", "POST", "HEAD") for p in ("/v1/models", "/bug", "/no")]
    async with plaintext(our_app()) as client:
        expected = await answers(client, asked)
    async with serving(identity, our_app()) as served, served.httpx(http2=http2) as client:
        assert await answers(client, asked) == expected


@BOTH
async def test_scope(identity: Identity, http2: bool, quiet: None) -> None:
    """The scope is ASGI's, with a client address and with extensions (none)."""
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await say(send, 200, b"")

    async with serving(identity, app) as served, served.httpx(http2=http2) as client:
        await client.get("/a%2Fb?c", headers={"X-One": "1"})
    (scope,) = scopes
    assert (scope["type"], scope["scheme"], scope["method"]) == ("http", "https", "GET")
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/a/b", b"/a%2Fb", b"c")
    assert scope["http_version"] == ("2" if http2 else "1.1")
    assert isinstance(scope["client"], tuple)
    assert scope["client"][0] == "127.0.0.1"
    assert scope["server"] == ("127.0.0.1", served.port)
    assert scope["extensions"] == {}
    assert scope["state"] == {}
    headers = dict(scope["headers"])
    assert headers[b"x-one"] == b"1"
    assert headers[b"host"] == b"127.0.0.1:%d" % served.port


async def test_protocol_is_negotiated(identity: Identity, quiet: None) -> None:
    """ALPN offers h2 and http/1.1; who does not ask gets HTTP/1.1; TLS is 1.2 or newer."""
    async with serving(identity, hello) as served:
        for offered, chosen in (("h2", "h2"), ("http/1.1", "http/1.1"), ("odd", None)):
            async with await served.connect(offered) as stream:
                assert stream.selected_alpn_protocol() == chosen
                assert stream.version() in ("TLSv1.2", "TLSv1.3")


@BOTH
@pytest.mark.slow
async def test_chunks_arrive_one_by_one(identity: Identity, http2: bool, quiet: None) -> None:
    """A chunk reaches the client before the app has the next one, whatever the limits on reading.

    The client is rightly silent for longer than any of them.
    """
    give, chunks = trio.open_memory_channel[bytes](0)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await begin(send)
        async for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body"})

    limits = EdgeLimits(head_s=0.1, body_s=0.1, keep_alive_s=0.1, write_s=0.1)
    async with (
        serving(identity, app, limits) as served,
        served.httpx(http2=http2) as client,
        client.stream("GET", "/") as response,
    ):
        pieces = response.aiter_raw()
        for number in range(4):
            await give.send(b"chunk %d" % number)
            assert await anext(pieces) == b"chunk %d" % number
            await trio.sleep(0.05)
        await give.aclose()
        assert [piece async for piece in pieces] == []
    await chunks.aclose()


@BOTH
async def test_client_leaving_ends_the_app(identity: Identity, http2: bool, quiet: None) -> None:
    """The app is told by `receive`, and its next `send` raises OSError."""
    told = trio.Event()
    failed = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        await begin(send, b"one")
        assert (await receive())["type"] == "http.disconnect"
        told.set()
        try:
            await send({"type": "http.response.body", "body": b"two", "more_body": True})
        except OSError:
            failed.set()
            raise

    async with serving(identity, app) as served:
        if http2:
            client = await served.http2()
            await client.request("GET", "/")
            await client.until(h2.events.DataReceived)
            await client.stream.aclose()
        else:
            stream = await served.connect()
            await stream.send_all(b"GET" + HEAD + b"\r\n")
            await read_until(stream, b"one")
            await stream.aclose()
        with trio.fail_after(1):
            await told.wait()
            await failed.wait()


@BOTH
async def test_complete_response_is_no_disconnect(
    identity: Identity, http2: bool, quiet: None
) -> None:
    """After its own last part an app may still send nothing, but it does not see an error."""
    ended: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await say(send, 200, b"x" * 100_000)
        ended.append((await receive())["type"])
        ended.append((await receive())["type"])

    async with serving(identity, app) as served, served.httpx(http2=http2) as client:
        for _ in range(3):
            assert len((await client.get("/")).content) == 100_000
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert served.server.counts().accepted == 1
    assert ended == ["http.request", "http.disconnect"] * 3


async def test_reset_ends_only_its_exchange(identity: Identity, quiet: None) -> None:
    """One stream of an HTTP/2 connection is cancelled: its app is told, the other goes on."""
    gone = trio.Event()
    go_on = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        await begin(send, b"begun")
        if scope["path"] == "/left":
            await receive()
            gone.set()
        else:
            await go_on.wait()
            await send({"type": "http.response.body", "body": b"end"})

    async with serving(identity, app) as served:
        client = await served.http2()
        left = await client.request("GET", "/left")
        kept = await client.request("GET", "/kept")
        await client.until(h2.events.DataReceived, left)
        await client.until(h2.events.DataReceived, kept)
        client.h2.reset_stream(left, h2.errors.ErrorCodes.CANCEL)
        await client.flush()
        with trio.fail_after(1):
            await gone.wait()
        go_on.set()
        assert (await client.until(h2.events.DataReceived, kept)).data == b"end"
        assert await client.until(h2.events.StreamEnded, kept) is not None
        await client.stream.aclose()


@pytest.mark.slow
async def test_resets_leave_nothing_behind(identity: Identity, quiet: None) -> None:
    """More cancelled streams than Hypercorn can remember do not wear a connection out."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/":
            await say(send, 200, b"hello")
        else:
            await read_body(receive)
            await receive()

    async with serving(identity, app) as served:
        client = await served.http2()
        for _ in range(1_100):
            number = await client.request("GET", "/wait")
            client.h2.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
        await client.flush()
        assert await client.get("/") == "200"
        await client.stream.aclose()


async def test_late_data_is_let_go(identity: Identity, quiet: None) -> None:
    """Data for a stream that has its answer is a KeyError in Hypercorn; here it harms nobody."""
    async with serving(identity, hello) as served:
        client = await served.http2()
        number = await client.request("POST", "/", end=False)
        assert await client.until(h2.events.StreamEnded, number) is not None
        for _ in range(20):
            client.h2.send_data(number, b"x" * 1_000)
        await client.flush()
        assert await client.get("/") == "200"
        client.h2.end_stream(number)
        assert await client.get("/") == "200"
        await client.stream.aclose()


async def test_late_data_has_an_end(identity: Identity, quiet: None) -> None:
    """A client that sends on and on after its answer is told to stop, without harm to others."""
    async with serving(identity, hello) as served:
        client = await served.http2()
        number = await client.request("POST", "/", end=False)
        assert await client.until(h2.events.StreamEnded, number) is not None
        sent = 0
        while not any(isinstance(event, h2.events.StreamReset) for event in client.events):
            if client.h2.local_flow_control_window(number) >= 16_000:
                client.h2.send_data(number, b"x" * 16_000)
                sent += 16_000
                await client.flush()
            else:
                await client.pump()
        reset = await client.until(h2.events.StreamReset, number)
        assert reset.error_code == h2.errors.ErrorCodes.NO_ERROR
        assert 1_000_000 < sent < 2_000_000
        assert await client.get("/") == "200"
        await client.stream.aclose()


async def test_one_connections_fault_is_not_the_servers(
    identity: Identity, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An unforeseen error in a protocol is logged and ends that connection alone."""
    original = Http2._handle_events

    async def faulty(self: Http2, events: list[h2.events.Event]) -> None:
        if any(isinstance(event, h2.events.PingReceived) for event in events):
            raise KeyError("unforeseen")
        await original(self, events)

    monkeypatch.setattr(Http2, "_handle_events", faulty)
    async with serving(identity, hello) as served:
        other, client = await served.http2(), await served.http2()
        client.h2.ping(b"12345678")
        await client.flush()
        assert await client.until(h2.events.PingAckReceived) is None
        assert await other.get("/") == "200"
        assert await (await served.http2()).get("/") == "200"
    assert [record.exc_info is not None for record in caplog.records] == [True]
    assert "this is a bug" in caplog.text


@BOTH
async def test_bug_in_an_app_ends_only_its_exchange(
    identity: Identity, http2: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """500 before the response; after its start the client sees that it is not whole."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/ok":
            await say(send, 200, b"ok")
            return
        if scope["path"] == "/middle":
            await begin(send, b"half")
        raise RuntimeError("a bug")

    async with serving(identity, app) as served, served.httpx(http2=http2) as client:
        assert (await client.get("/ok")).text == "ok"
        assert (await client.get("/start")).status_code == 500
        with pytest.raises(httpx.TransportError):
            await client.get("/middle")
        assert (await client.get("/ok")).text == "ok"
        assert served.server.counts().refused == {500: 1}
        if http2:
            assert served.server.counts().accepted == 1
    assert [record.getMessage() for record in caplog.records if record.name == "triolet.edge"] == [
        "GET /start failed",
        "GET /middle failed",
    ]


@BOTH
async def test_app_that_stops_short(identity: Identity, http2: bool, quiet: None) -> None:
    """Returning in mid-response is a broken response, never one that looks whole."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await begin(send, b"half")

    async with serving(identity, app) as served, served.httpx(http2=http2) as client:
        with pytest.raises(httpx.TransportError):
            await client.get("/")


async def test_short_answer_without_a_length_is_reset(identity: Identity, quiet: None) -> None:
    """In HTTP/1.0 the end of the connection is the end of the answer: it must not look like one."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await begin(send, b"half")

    async with serving(identity, app) as served:
        stream = await served.connect()
        await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(trio.BrokenResourceError):
            await read_until(stream, b"more")


def flood(ended: trio.Event) -> ASGIApp:
    """An app that sends without end, and says when it is made to stop."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/hello":
            await hello(scope, receive, send)
            return
        await begin(send)
        try:
            while True:
                body = b"x" * 100_000
                await send({"type": "http.response.body", "body": body, "more_body": True})
        except OSError:
            ended.set()
            raise

    return app


@BOTH
@pytest.mark.slow
async def test_client_that_stops_reading_is_cut(
    identity: Identity, http2: bool, quiet: None
) -> None:
    """Once its socket is full, it has `write_s`; then the app ends and the connection is closed."""
    ended = trio.Event()
    async with serving(identity, flood(ended), EdgeLimits(write_s=0.2)) as served:
        if http2:
            client = await served.http2()
            client.h2.increment_flow_control_window(2**30)
            client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**30})
            await client.request("GET", "/")
        else:
            stream = await served.connect()
            await stream.send_all(b"GET" + HEAD + b"\r\n")
        with trio.fail_after(3):
            await ended.wait()
        await served.down_to(0)


@pytest.mark.slow
async def test_shut_window_ends_the_exchange(identity: Identity, quiet: None) -> None:
    """A client that reads but never opens the stream's window: the stream is reset, no more."""
    ended = trio.Event()
    async with serving(identity, flood(ended), EdgeLimits(write_s=0.2)) as served:
        client = await served.http2()
        client.h2.increment_flow_control_window(2**20)
        number = await client.request("GET", "/")
        reset = await client.until(h2.events.StreamReset, number, open_window=False)
        assert reset is not None
        assert ended.is_set()
        assert await client.get("/hello") == "200"
        await client.stream.aclose()


@pytest.mark.parametrize("way", ["reset", "leave"])
async def test_leaving_frees_an_app_that_waits_to_send(
    identity: Identity, way: str, quiet: None
) -> None:
    """An app that waits for its stream's window ends with the stream, long before `write_s`."""
    ended = trio.Event()
    async with serving(identity, flood(ended), EdgeLimits(write_s=60)) as served:
        client = await served.http2()
        client.h2.increment_flow_control_window(2**20)
        number = await client.request("GET", "/")
        received = 0
        while received < 65_535:
            event = await client.until(h2.events.DataReceived, number, open_window=False)
            received += len(event.data)
        if way == "reset":
            client.h2.reset_stream(number)
            await client.flush()
        else:
            await client.stream.aclose()
        with trio.fail_after(1):
            await ended.wait()


@pytest.mark.slow
async def test_slow_client_has_its_time_for_each_piece(identity: Identity, quiet: None) -> None:
    """A large body may take longer than `write_s` in all, if the client goes on taking it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await say(send, 200, b"x" * 450_000)

    async with serving(identity, app, EdgeLimits(write_s=0.2)) as served:
        client = await served.http2()
        client.h2.increment_flow_control_window(2**20)
        number = await client.request("GET", "/")
        received = 0
        while received < 450_000:
            event = await client.until(h2.events.DataReceived, number, open_window=False)
            received += len(event.data)
            if received % 65_535 == 0:
                await trio.sleep(0.06)
                client.h2.increment_flow_control_window(65_535, number)
                await client.flush()
        assert await client.until(h2.events.StreamEnded, number) is not None
        await client.stream.aclose()


async def test_app_cancelled_while_it_sends(identity: Identity, quiet: None) -> None:
    """An app that gives up waiting for a full socket leaves whole TLS records behind it."""
    gave_up = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await begin(send)
        with trio.CancelScope() as sending:
            sending.deadline = trio.current_time() + 0.05
            while True:
                body = b"x" * 100_000
                await send({"type": "http.response.body", "body": body, "more_body": True})
                gave_up.set()
        await send({"type": "http.response.body", "body": b"end"})

    async with serving(identity, app) as served:
        stream = await served.connect()
        await stream.send_all(b"GET" + HEAD + b"connection: close\r\n\r\n")
        await gave_up.wait()
        await trio.sleep(0.1)
        assert (await read_all(stream)).endswith(b"\r\n3\r\nend\r\n0\r\n\r\n")


@BOTH
async def test_abort_ends_a_shielded_write(identity: Identity, http2: bool, quiet: None) -> None:
    """With a client that reads nothing and a long deadline, `abort` is immediate all the same."""
    ended = trio.Event()
    async with serving(identity, flood(ended), EdgeLimits(write_s=60)) as served:
        client = await served.http2() if http2 else None
        if client is not None:
            client.h2.increment_flow_control_window(2**30)
            client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**30})
            await client.request("GET", "/")
        else:
            stream = await served.connect()
            await stream.send_all(b"GET" + HEAD + b"\r\n")
        await trio.testing.wait_all_tasks_blocked(0.05)
        served.server.stop_accepting()
        served.server.abort()
        with trio.fail_after(1):
            await served.done.wait()


@BOTH
async def test_drain(identity: Identity, http2: bool, quiet: None) -> None:
    """After `stop_accepting` idle connections close, a response in flight is finished whole."""
    go_on = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/hello":
            await hello(scope, receive, send)
            return
        await begin(send, b"begun, ")
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"x" * 200_000, "more_body": True})
        await send({"type": "http.response.body", "body": b"ended"})

    async with (
        serving(identity, app) as served,
        served.httpx(http2=http2) as busy,
        served.httpx(http2=http2) as idle,
    ):
        await idle.get("/hello")
        async with busy.stream("GET", "/") as response:
            pieces = response.aiter_raw()
            body = await anext(pieces)
            served.server.stop_accepting()
            await served.down_to(1)
            with pytest.raises(OSError, match="refused"):
                socket.create_connection(("127.0.0.1", served.port))
            go_on.set()
            body += b"".join([piece async for piece in pieces])
        assert body == b"begun, " + b"x" * 200_000 + b"ended"
        with trio.fail_after(1):
            await served.done.wait()


async def test_draining_refuses_new_streams(identity: Identity, quiet: None) -> None:
    """A request that comes while an HTTP/2 connection drains may be repeated elsewhere."""
    go_on = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await begin(send)
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"end"})

    async with serving(identity, app) as served:
        client = await served.http2()
        first = await client.request("GET", "/")
        await client.until(h2.events.ResponseReceived, first)
        served.server.stop_accepting()
        second = await client.request("GET", "/")
        reset = await client.until(h2.events.StreamReset, second)
        assert reset.error_code == h2.errors.ErrorCodes.REFUSED_STREAM
        go_on.set()
        assert await client.until(h2.events.StreamEnded, first) is not None
        assert await client.until(h2.events.ConnectionTerminated) is not None
        assert await client.until(h2.events.PushedStreamReceived) is None
        with trio.fail_after(1):
            await served.done.wait()


@pytest.mark.parametrize(
    "opening",
    [b"", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\x16\x03\x01\x02\x00" + b"\xff" * 512],
    ids=["nothing", "plaintext", "garbage"],
)
async def test_bad_handshake(identity: Identity, opening: bytes, quiet: None) -> None:
    """What does not become TLS is closed, within `head_s` if it says nothing; others are served."""
    async with serving(identity, hello, EdgeLimits(head_s=0.1)) as served:
        stream = await served.connect_tcp()
        if opening:
            await stream.send_all(opening)
        with trio.fail_after(1):
            await read_all(stream)
        async with served.httpx() as client:
            assert (await client.get("/")).text == "hello"


@BOTH
async def test_idle_connections_are_closed(identity: Identity, http2: bool, quiet: None) -> None:
    """After `keep_alive_s` with no request, counted from the end of the last exchange."""
    limits = EdgeLimits(keep_alive_s=0.1)
    async with serving(identity, hello, limits) as served, served.httpx(http2=http2) as client:
        for _ in range(3):
            await client.get("/")
            await trio.sleep(0.02)
        assert served.server.counts()[:2] == (1, 1)
        await served.down_to(0)


async def test_slow_head_of_a_later_request(identity: Identity, quiet: None) -> None:
    """Once the beginning of a head is here, `head_s` counts, however long idling is allowed."""
    async with serving(identity, hello, EdgeLimits(head_s=0.1, keep_alive_s=60)) as served:
        stream = await served.connect()
        await stream.send_all(b"GET" + HEAD + b"\r\n")
        await read_until(stream, b"hello")
        await stream.send_all(b"GET" + HEAD)
        with trio.fail_after(1):
            assert (await read_all(stream)).startswith(b"HTTP/1.1 408 ")


async def test_reset_stream_leaves_the_connection_idle(identity: Identity, quiet: None) -> None:
    """A client that cancels its only request is idle from then on, and closed in time."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        await receive()

    async with serving(identity, app, EdgeLimits(keep_alive_s=0.1)) as served:
        client = await served.http2()
        number = await client.request("GET", "/")
        client.h2.reset_stream(number)
        await client.flush()
        with trio.fail_after(1):
            assert await client.until(h2.events.ConnectionTerminated) is not None


async def test_connections_beyond_the_limit(identity: Identity, quiet: None) -> None:
    """One too many is closed at accept and counted; there is room again when another leaves."""
    async with serving(identity, hello, EdgeLimits(connections=1)) as served:
        first = await served.connect()
        turned_away = await served.connect_tcp()
        assert await read_all(turned_away) == b""
        assert served.server.counts()[:3] == (1, 1, 1)
        await first.aclose()
        await served.down_to(0)
        async with served.httpx() as client:
            assert (await client.get("/")).text == "hello"


SMALL = EdgeLimits(HeadLimits(header_bytes=2_000, header_count=20), head_s=0.1, body_s=0.1)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET" + HEAD + b"x: " + b"y" * 3_000 + b"\r\n\r\n", 431),
        (b"GET" + HEAD + b"x: " + b"y" * 3_000, 431),
        (b"HEAD" + HEAD + b"a: b\r\n" * 30 + b"\r\n", 431),
        (b"GET" + HEAD + b"x: y", 408),
        (b"POST" + HEAD + b"content-length: 5\r\n\r\nhe", 408),
        (b"POST" + HEAD + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST" + HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
        (b"GET" + HEAD + b"x : y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n", 405),
        (b"\0\1\2\r\n\r\n", 400),
    ],
)
async def test_refused(identity: Identity, request_: bytes, status: int, quiet: None) -> None:
    """A bad request has its answer, the connection is closed, and it is counted."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        raise AssertionError("unreachable")

    async with serving(identity, app, SMALL) as served:
        stream = await served.connect()
        await stream.send_all(request_)
        answer = await read_all(stream)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert answer.lower().count(b"connection: close") == 1
        assert served.server.counts().refused == {status: 1}


async def test_slow_body_over_http2(identity: Identity, quiet: None) -> None:
    """A body that does not come within `body_s` is answered 408; the connection goes on."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        await say(send, 200, b"")

    async with serving(identity, app, EdgeLimits(body_s=0.1)) as served:
        client = await served.http2()
        number = await client.request("POST", "/", end=False)
        response = await client.until(h2.events.ResponseReceived, number)
        assert dict(response.headers)[":status"] == "408"
        assert await client.get("/") == "200"
        await client.stream.aclose()


@pytest.mark.parametrize(
    ("method", "path", "more", "status"),
    [
        ("CONNECT", "", [], "405"),
        ("CONNECT", "/", [(":protocol", "websocket")], "405"),
        ("GET", "/\u00e9", [], "400"),
        ("GET", "/", [(f"a{number}", "b") for number in range(30)], "431"),
    ],
)
async def test_refused_over_http2(
    identity: Identity,
    method: str,
    path: str,
    more: list[tuple[str, str]],
    status: str,
    quiet: None,
) -> None:
    """What cannot be served is answered and counted, and the connection goes on."""
    async with serving(identity, hello, SMALL) as served:
        client = await served.http2()
        number = await client.request(method, path, *more)
        response = await client.until(h2.events.ResponseReceived, number)
        assert dict(response.headers)[":status"] == status
        assert await client.get("/") == "200"
        assert served.server.counts().refused == {int(status): 1}
        assert await (await served.http2()).get("/") == "200"


async def test_heavy_head_over_http2(identity: Identity, quiet: None) -> None:
    """Headers over the limit end the connection: their effect on the compression is unknown."""
    async with serving(identity, hello, SMALL) as served:
        client = await served.http2()
        await client.request("GET", "/", *((f"a{number}", "b" * 300) for number in range(10)))
        assert await client.until(h2.events.ConnectionTerminated) is not None
        assert await (await served.http2()).get("/") == "200"


@pytest.mark.parametrize(
    "upgrade",
    [
        b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n",
        b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
        b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    ],
    ids=["h2c", "websocket"],
)
async def test_upgrade_is_declined(identity: Identity, upgrade: bytes, quiet: None) -> None:
    """A request that asks for another protocol is answered in this one, and so is the next."""
    async with serving(identity, hello) as served:
        stream = await served.connect()
        for last in (b"", b"connection: close\r\n"):
            kept = b"" if last else upgrade
            await stream.send_all(b"GET" + HEAD + kept + last + b"\r\n")
            await trio.testing.wait_all_tasks_blocked(0.01)
        answer = await read_all(stream)
        assert answer.count(b"HTTP/1.1 200 ") == 2
        assert answer.count(b"hello") == 2


async def test_prior_knowledge_is_no_way_in(identity: Identity, quiet: None) -> None:
    """HTTP/2 is spoken only where TLS has agreed on it."""
    async with serving(identity, hello) as served:
        stream = await served.connect("http/1.1")
        await stream.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 9)
        assert (await read_all(stream)).startswith(b"HTTP/1.1 ")


async def test_pipelined_requests_are_answered_in_order(identity: Identity, quiet: None) -> None:
    """Several requests in one write, the last of which asks to close."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await say(send, 200, scope["path"].encode())

    async with serving(identity, app) as served:
        stream = await served.connect()
        asked = b"".join(b"GET /%d HTTP/1.1\r\nhost: x\r\n\r\n" % number for number in range(5))
        await stream.send_all(asked + b"GET /z HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        answer = await read_all(stream)
        found = [
            answer.find(b"\r\n\r\n/%b" % name) for name in (b"0", b"1", b"2", b"3", b"4", b"z")
        ]
        assert found == sorted(found)
        assert -1 not in found


async def test_pipelining_client_that_leaves(identity: Identity, quiet: None) -> None:
    """A second request waiting behind a stream does not keep the connection when a write fails."""
    ended = trio.Event()
    async with serving(identity, flood(ended), EdgeLimits(write_s=0.1)) as served:
        stream = await served.connect()
        await stream.send_all((b"GET" + HEAD + b"\r\n") * 2)
        await stream.receive_some(1)
        await trio.aclose_forcefully(stream)
        with trio.fail_after(3):
            await ended.wait()
        await served.down_to(0)


async def test_expect_continue(identity: Identity, quiet: None) -> None:
    """A client that waits to be asked for its body is asked."""
    async with serving(identity, various) as served:
        stream = await served.connect()
        head = b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nconnection: close\r\n"
        await stream.send_all(head + b"expect: 100-continue\r\n\r\n")
        assert (await stream.receive_some(1_000)).startswith(b"HTTP/1.1 100 ")
        await stream.send_all(b"hi")
        assert (await read_all(stream)).endswith(b"\r\n\r\nhi")


@BOTH
async def test_early_answer_reaches_a_client_that_still_sends(
    identity: Identity, http2: bool, quiet: None
) -> None:
    """An app that answers before it has read the body, and is never going to read it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await say(send, 413, b"too much")

    async def body() -> AsyncIterator[bytes]:  # noqa: ASYNC900 - what httpx asks for
        for _ in range(40):
            yield b"x" * 10_000
            await trio.lowlevel.checkpoint()

    async with serving(identity, app) as served, served.httpx(http2=http2) as client:
        response = await client.post("/", content=body())
        assert (response.status_code, response.text) == (413, "too much")


async def test_unread_upload_does_not_block_the_connection(identity: Identity, quiet: None) -> None:
    """An HTTP/2 connection that waits for an app to read goes on when the app never will."""
    answer = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer.wait()
        await say(send, 413, b"too much")

    async with serving(identity, app) as served, served.httpx(http2=True) as client:
        async with trio.open_nursery() as nursery:

            async def post() -> None:
                response = await client.post("/", content=b"x" * 900_000)
                assert response.status_code == 413

            nursery.start_soon(post)
            await trio.testing.wait_all_tasks_blocked(0.05)
            answer.set()
        assert (await client.get("/")).status_code == 413
        assert served.server.counts().accepted == 1


@pytest.mark.slow
async def test_upload_has_backpressure(identity: Identity, quiet: None) -> None:
    """While the app does not read the body, the client can send only what buffers hold."""
    read = trio.Event()
    size = 40_000_000

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read.wait()
        length = 0
        while True:
            message = await receive()
            length += len(message["body"])
            if not message["more_body"]:
                await say(send, 200, b"%d" % length)
                return

    sent = 0
    async with serving(identity, app) as served:
        stream = await served.connect()
        await stream.send_all(b"POST" + HEAD + b"content-length: %d\r\n\r\n" % size)

        async def upload() -> None:
            nonlocal sent
            for _ in range(size // 100_000):
                await stream.send_all(b"x" * 100_000)
                sent += 100_000

        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert sent < size / 2
            read.set()
        answer = await stream.receive_some(1_000)
        assert answer.startswith(b"HTTP/1.1 200 ")
        await stream.aclose()


async def test_cancelled_streams_do_not_harm_the_others(identity: Identity, quiet: None) -> None:
    """Of many concurrent HTTP/2 streams every second is reset; the rest arrive whole."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await begin(send)
        for _ in range(20):
            body = scope["path"].encode() * 1_000
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body"})

    async with serving(identity, app) as served:
        client = await served.http2()
        client.h2.increment_flow_control_window(2**20)
        numbers = [await client.request("GET", f"/{letter}") for letter in "abcdefghijklmnop"]
        for number in numbers[::2]:
            await client.until(h2.events.DataReceived, number, open_window=False)
            client.h2.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
            await client.flush()
        bodies = dict.fromkeys(numbers[1::2], b"")
        ended = 0
        while ended < len(bodies):
            event = await client.until((h2.events.DataReceived, h2.events.StreamEnded))
            if event.stream_id not in bodies:
                continue
            if isinstance(event, h2.events.StreamEnded):
                ended += 1
            else:
                bodies[event.stream_id] += event.data
        assert list(bodies.values()) == [b"/%c" % letter * 20_000 for letter in b"bdfhjlnp"]
        await client.stream.aclose()


def test_bad_certificate_is_named(identity: Identity, tmp_path: Path) -> None:
    """A missing, foreign, encrypted or meaningless file: OSError with both names in it."""
    other = trustme.CA().issue_cert("127.0.0.1")
    foreign, odd = str(tmp_path / "foreign.pem"), str(tmp_path / "odd.pem")
    other.private_key_pem.write_to_path(foreign)
    Path(odd).write_text("not a certificate")
    pairs = [
        (identity.cert, str(tmp_path / "missing.pem")),
        (identity.cert, foreign),
        (odd, identity.key),
    ]
    for cert, key in pairs:
        with pytest.raises(OSError, match="cannot serve TLS") as raised:
            TlsServer(hello, cert=cert, key=key)
        assert cert in str(raised.value)
        assert key in str(raised.value)
        assert raised.value.strerror is None
