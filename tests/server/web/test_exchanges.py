"""What httpx and httpcore would do on their own, and what they must not leave behind."""

from __future__ import annotations

import gc
import logging
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import trio
import trio.testing
import trustme
from hypothesis import given
from hypothesis import strategies as st

from server.web import dialing
from server.web.client import Client, WebSettings
from server.web.urls import Refused, parse_url
from server.workflow.services import WebFailed, WebRequest
from tests.server.web.loopback import Asked, gone, loopback, until
from tests.server.web.test_client import LOCAL, answers, get


async def test_no_cookie_is_kept() -> None:
    """What one app's request was given, another's does not send."""

    async def handler(asked: Asked) -> None:
        await asked.answer(200, b"", {"Set-Cookie": "session=secret; Path=/"})

    async with loopback(handler) as server, Client(LOCAL) as web:
        for _ in range(2):
            await web.send(get(server.url))
        assert web._exchanges is not None
        assert not web._exchanges._http.cookies
    assert all("cookie" not in asked.headers for asked in server.asked)


async def test_the_environment_counts_for_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither a proxy nor credentials are taken from it."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password secret\n")  # noqa: ASYNC240
    monkeypatch.setenv("NETRC", str(netrc))

    async def handler(asked: Asked) -> None:
        await asked.answer(200)

    async with loopback(handler) as server, Client(LOCAL) as web:
        assert (await web.send(get(server.url))).status == 200
    assert "authorization" not in server.asked[0].headers


@pytest.mark.parametrize("location", ["http://[broken", "\x80\xff", "http://xn--0.example/", ""])
async def test_a_strange_redirect_is_an_answer_until_it_is_followed(location: str) -> None:
    """However its Location reads; followed, it is an error."""

    async def handler(asked: Asked) -> None:
        head = f"HTTP/1.1 302 X\r\nLocation: {location}\r\nContent-Length: 4\r\n\r\nbody"
        await asked.stream.send_all(head.encode("latin-1"))

    async with loopback(handler) as server, Client(LOCAL) as web:
        answer = await web.send(get(server.url, follow_redirects=False))
        assert (answer.status, answer.content) == (302, b"body")
        with pytest.raises(WebFailed):
            await web.send(get(server.url))


async def test_no_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Paths and queries carry keys: no library writes them down."""
    caplog.set_level(logging.INFO)

    async def handler(asked: Asked) -> None:
        await asked.answer(200)

    async with loopback(handler) as server, Client(LOCAL) as web:
        await web.send(get(f"{server.url}/key-1?token=key-2"))
    assert "key-" not in caplog.text
    assert "HTTP Request" not in caplog.text


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"1\r\nx\r\n",
        b"1\r\nx\r\n" * 5000,
        b"1\r\nx\r\n" * 100 + b"0\r\n\r\n",
        b"1\r\nx\r\n" * 10 + b"nonsense",
    ],
)
@pytest.mark.parametrize("pieces", [0, 1, 3])
async def test_a_stream_that_is_left_leaves_nothing(body: bytes, pieces: int) -> None:
    """Before the body, between its pieces, with more of it in memory: the connection is closed, and
    no generator is left to the garbage collector, which would warn."""

    async def handler(asked: Asked) -> None:
        await asked.stream.send_all(CHUNKED + body)
        await gone(asked)
        asked.closed.set()

    async with loopback(handler) as server, Client(LOCAL) as web:
        async with web.stream(get(server.url)) as incoming:
            for _ in range(min(pieces, body.count(b"x"))):
                assert await incoming.read() == b"x"
        gc.collect()
        with trio.fail_after(2):
            await server.asked[0].closed.wait()
        with pytest.raises(ZeroDivisionError):
            async with web.stream(get(server.url)) as incoming:
                raise ZeroDivisionError
        assert web._places._all.statistics().borrowed_tokens == 0
    gc.collect()


async def test_a_body_in_tiny_chunks_lets_others_run() -> None:
    """Thousands of chunks in memory do not hold the loop."""
    turns = 0

    async def handler(asked: Asked) -> None:
        await asked.stream.send_all(CHUNKED + b"1\r\nx\r\n" * 2000 + b"0\r\n\r\n")

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with loopback(handler) as server, Client(LOCAL) as web, trio.open_nursery() as nursery:
        nursery.start_soon(other)
        assert len((await web.send(get(server.url))).content) == 2000
        nursery.cancel_scope.cancel()
    assert turns > 1000


async def test_a_request_that_is_not_taken_is_cancelled() -> None:
    """While its body is sent: the socket is closed and nothing is left."""
    arrived, closed = trio.Event(), trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(1000)
            arrived.set()
            await trio.testing.wait_all_tasks_blocked(0.02)
            with trio.fail_after(5):
                while await stream.receive_some(1_000_000):
                    pass
            closed.set()

    async with trio.open_nursery() as nursery, Client(LOCAL) as web:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"
        async with trio.open_nursery() as requests:
            content = bytes(30_000_000)
            requests.start_soon(web.send, get(url, method="POST", content=content))
            await arrived.wait()
            requests.cancel_scope.cancel()
        gc.collect()
        await closed.wait()
        arrived, closed = trio.Event(), trio.Event()
        with pytest.raises(WebFailed, match=r"waited 0\.02 s for the request to be taken"):
            await web.send(get(url, method="POST", content=content, write_s=0.02))
        gc.collect()
        nursery.cancel_scope.cancel()


async def test_an_answer_before_the_request_is_through() -> None:
    """A server that refuses a large body early and hangs up is heard all the same."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(1000)
        await stream.send_all(b"HTTP/1.1 413 X\r\nContent-Length: 3\r\n\r\nbig")
        await stream.send_eof()
        while await stream.receive_some(1_000_000):
            pass
        await stream.aclose()

    async with trio.open_nursery() as nursery, Client(LOCAL) as web:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"
        answer = await web.send(get(url, method="POST", content=bytes(1_000_000)))
        assert (answer.status, answer.content) == (413, b"big")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_stale_connection_is_replaced_once(method: str) -> None:
    """Closed just as the request goes out: sent again only if that does no harm."""

    async def handler(asked: Asked) -> None:
        if len(server.asked) == 2:
            await asked.stream.aclose()
        else:
            await asked.answer(200, "ok")

    async with loopback(handler) as server, Client(LOCAL) as web:
        await web.send(get(server.url))
        if method == "GET":
            assert (await web.send(get(server.url))).content == b"ok"
            assert len(server.asked) == 3
        else:
            with pytest.raises(WebFailed, match="closed the connection without an answer"):
                await web.send(get(server.url, method=method, content=b"x"))
            assert len(server.asked) == 2


async def test_idle_connections_are_bounded(autojump_clock: trio.testing.MockClock) -> None:
    """In number and in time."""

    async def handler(asked: Asked) -> None:
        await asked.answer(200)

    settings = WebSettings(allow=("127.0.0.1",), idle_connections=2, idle_s=5.0)
    autojump_clock.autojump_threshold = 0.05
    async with (
        loopback(handler) as a,
        loopback(handler) as b,
        loopback(handler) as c,
        Client(settings) as web,
    ):
        for server in (a, b, c, a, b, c):
            await web.send(get(server.url))
        assert (a.connections, b.connections, c.connections) == (1, 1, 2)
        await trio.sleep(6.0)
        await web.send(get(a.url))
        assert a.connections == 2


async def test_trusted_and_unverified_connections_are_not_shared() -> None:
    """A connection on the operator's word carries one request; verify keeps apart."""

    async def handler(asked: Asked) -> None:
        await asked.answer(200)

    async with loopback(handler) as server, Client(LOCAL) as web:
        for _ in range(2):
            await web.trusting(server.url).send(get(server.url))
        assert server.connections == 2
        for verify in (True, False, True, False):
            await web.send(get(server.url, verify=verify))
        assert server.connections == 4
        await web.trusting(server.url).send(get(server.url))
        assert server.connections == 5


def secured(monkeypatch: pytest.MonkeyPatch, *names: str) -> ssl.SSLContext:
    """A server's context; the client trusts whoever signed it."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names).configure_cert(context)

    def trusting(verify: bool) -> ssl.SSLContext:
        made = ssl.create_default_context()
        authority.configure_trust(made)
        return made

    monkeypatch.setattr(dialing, "_ssl_context", trusting)
    return context


@pytest.mark.parametrize("host", ["some.example", "2606:4700::1111"])
async def test_tls_goes_through_the_proxy(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """A tunnel to the name that was asked for, TLS within it, and it is kept."""
    context = secured(monkeypatch, host)
    asked: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        asked.append(bytes(await stream.receive_some(65536)))
        await stream.send_all(b"HTTP/1.1 200 Connected\r\n\r\n")
        inner = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        while data := await inner.receive_some(65536):
            asked.append(bytes(data))
            await inner.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    place = f"[{host}]" if ":" in host else host
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        proxy = f"http://user:pw@127.0.0.1:{listener.socket.getsockname()[1]}"
        async with Client(WebSettings(proxy=proxy)) as web:
            for _ in range(2):
                assert (await web.send(get(f"https://{place}/x?y"))).content == b"ok"
        nursery.cancel_scope.cancel()
    connect, first, second = asked
    assert connect.startswith(f"CONNECT {place}:443 HTTP/1.1\r\nHost: {place}:443\r\n".encode())
    assert b"Proxy-Authorization: Basic dXNlcjpwdw==" in connect
    assert first == second
    assert first.startswith(f"GET /x?y HTTP/1.1\r\nHost: {place}\r\n".encode())
    assert b"Proxy-Authorization" not in first


@pytest.mark.parametrize("stage", ["CONNECT", "handshake"])
async def test_a_tunnel_that_comes_to_nothing_is_closed(stage: str) -> None:
    """Within the time for connecting, and by a cancellation."""
    reached, closed = trio.Event(), trio.Semaphore(0)

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(65536)
            if stage == "handshake":
                await stream.send_all(b"HTTP/1.1 200 X\r\n\r\n")
                await stream.receive_some(65536)
            reached.set()
            while await stream.receive_some(65536):
                pass
            closed.release()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        proxy = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        async with Client(WebSettings(proxy=proxy)) as web:
            with pytest.raises(WebFailed, match=r"waited 0\.05 s"):
                await web.send(get("https://some.example/", connect_s=0.05))
            reached = trio.Event()
            async with trio.open_nursery() as requests:
                requests.start_soon(web.send, get("https://some.example/"))
                await reached.wait()
                requests.cancel_scope.cancel()
            with trio.fail_after(2):
                await closed.acquire()
                await closed.acquire()
            assert web._places._all.statistics().borrowed_tokens == 0
        nursery.cancel_scope.cancel()


async def test_switching_protocols_is_no_answer() -> None:
    """Nobody asked for it."""

    async def handler(asked: Asked) -> None:
        await asked.stream.send_all(b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\n\r\n\x00\x01")
        await gone(asked)
        asked.closed.set()

    async with loopback(handler) as server, Client(LOCAL) as web:
        with pytest.raises(WebFailed, match="no HTTP"):
            await web.send(get(server.url))
        await until(lambda: server.asked[0].closed.is_set())


async def test_closing_the_client_leaves_no_connection() -> None:
    """Kept ones are closed; one that is still read from is not kept when it ends."""
    seen: list[trio.SocketStream] = []

    async def handler(asked: Asked) -> None:
        await asked.answer(200, b"whole")
        seen.append(asked.stream)

    async with loopback(handler) as server:
        async with Client(LOCAL) as web:
            await web.send(get(server.url))
            context = web.stream(get(server.url))
            incoming = await context.__aenter__()
        while await incoming.read():
            pass
        await context.__aexit__(None, None, None)
        # The server closes its ends when it sees the client's closed.
        await until(lambda: all(stream.socket.fileno() == -1 for stream in seen))


async def test_a_client_that_is_not_open_says_so() -> None:
    """Rather than to fail in some other way; and it can be opened again."""

    async def handler(asked: Asked) -> None:
        await asked.answer(200)

    web = Client(LOCAL)
    async with loopback(handler) as server:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="not open"):
                await web.send(WebRequest(method="GET", url=server.url))
            async with web:
                assert (await web.send(get(server.url))).status == 200


@pytest.mark.parametrize("address", [["127.0.0.1"], ["10.0.0.1"]])
async def test_answers_of_the_resolver_are_asked_for_once(address: list[str]) -> None:
    """Nothing below the guard looks a name up again."""
    asked = 0

    async def resolve(host: str, port: int) -> list[str]:
        nonlocal asked
        asked += 1
        return await answers(address)(host, port)

    async def handler(request: Asked) -> None:
        await request.answer(200)

    async with loopback(handler) as server, Client(LOCAL, resolve=resolve) as web:
        url = f"http://name.example:{server.port}/"
        if address == ["127.0.0.1"]:
            await web.send(get(url))
        else:
            with pytest.raises(WebFailed):
                await web.send(get(url))
    assert asked == 1


@given(st.text(max_size=30), st.sampled_from(["http://", "https://xn--", "http://[", "http://1."]))
def test_httpx_takes_every_host_that_the_guard_takes(text: str, start: str) -> None:
    """And sees the same one."""
    try:
        target = parse_url(start + text)
    except Refused:
        return
    url = httpx.URL(target.origin)
    assert url.raw_host.decode() == target.host
    assert url.port in (target.port, None)


@pytest.mark.parametrize("host", ["xn--0", "_a_.xn--zzzzzz", "a--b.example"])
async def test_hosts_that_httpx_cannot_decode_are_asked(host: str) -> None:
    """What is connected to is the guard's reading of the URL, and httpx's is not needed."""

    async def handler(asked: Asked) -> None:
        await asked.answer(302, b"", {"Location": "/next"} if asked.path == "/" else {})

    resolve = answers(["127.0.0.1"])
    async with loopback(handler) as server, Client(LOCAL, resolve=resolve) as web:
        answer = await web.send(get(f"http://{host}:{server.port}/"))
        assert answer.url == f"http://{host}:{server.port}/next"
    assert [asked.headers["host"] for asked in server.asked] == [f"{host}:{server.port}"] * 2


def test_httpx_is_loaded_when_it_is_needed() -> None:
    """A server without apps does not wait for it."""
    code = "import sys, server.web.client; sys.exit('httpx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
