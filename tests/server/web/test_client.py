"""The client over real sockets on 127.0.0.1: limits, redirects, rebinding, TLS, cancellation."""

from __future__ import annotations

import gzip
import ssl
import zlib
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
import trustme

from server.web import dialing
from server.web.client import Client, WebSettings
from server.workflow.services import WebFailed, WebRequest
from tests.server.web.loopback import Asked, gone, loopback, until

LOCAL = WebSettings(allow=("127.0.0.1",), resolve_s=1.0)


def get(url: str, **fields: object) -> WebRequest:
    return WebRequest(**{"method": "GET", "url": url, "total_s": 10.0} | fields)  # type: ignore[arg-type]


def answers(*addresses: list[str]) -> Callable[[str, int], Awaitable[list[str]]]:
    """A resolver that gives one answer after the other."""
    left = list(addresses)

    async def resolve(host: str, port: int) -> list[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return resolve


async def test_a_request_and_its_answer() -> None:
    """Method, path, headers and body arrive; status, headers, body and URL come back."""

    async def handler(asked: Asked) -> None:
        await asked.answer(201, b"made", {"X-A": "1", "Set-Cookie": "a=b"})

    async with loopback(handler) as server, Client(LOCAL) as web:
        request = get(
            f"{server.url}/p?q=1", method="POST", content=b"body", headers=[("X-Key", "ü")]
        )
        answer = await web.send(request)
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.body) == ("POST", "/p?q=1", b"body")
    assert asked.headers["host"] == f"127.0.0.1:{server.port}"
    assert asked.headers["content-length"] == "4"
    assert asked.headers["x-key"] == "ü"
    assert (answer.status, answer.content, answer.url) == (201, b"made", f"{server.url}/p?q=1")
    assert ("x-a", "1") in answer.headers


@pytest.mark.parametrize("value", ["sk-secret\x00", "sk-secret\r\nX: y", "sk-secret\ud83d"])
async def test_a_header_that_cannot_be_sent_is_refused_and_not_shown(value: str) -> None:
    """It may be a key: the error names the header alone, and nothing is sent."""

    async def handler(asked: Asked) -> None:
        await asked.answer(200)

    async with loopback(handler) as server, Client(LOCAL) as web:
        with pytest.raises(WebFailed, match="'Authorization' has a character") as caught:
            await web.send(get(server.url, headers=[("Authorization", value)]))
        assert not server.asked
    assert "secret" not in caught.value.message
    assert caught.value.type == "RequestRefused"


async def test_half_a_character_in_a_url_is_refused() -> None:
    """JSON can hold one; no encoding can."""
    async with Client(LOCAL) as web:
        for url in ("http://127.0.0.1:1/\ud83d", "http://127.0.0.1:1/?q=\ud83d"):
            with pytest.raises(WebFailed, match="half of a character"):
                await web.send(get(url))


async def test_the_inside_is_refused_by_default() -> None:
    """Nothing is connected to, and the error names the setting."""

    async def handler(asked: Asked) -> None:
        await asked.answer()

    async with loopback(handler) as server, Client() as web:
        with pytest.raises(WebFailed, match=r"loopback.*\[web\] allow") as caught:
            await web.send(get(server.url))
        assert caught.value.type == "RequestRefused"
        assert server.connections == 0


async def test_a_trusted_origin_may_be_inside_and_no_other() -> None:
    """The operator's word holds for one origin; without it the kept connections are not used."""

    async def handler(asked: Asked) -> None:
        await asked.answer(200, "ok")

    async with loopback(handler) as server, loopback(handler) as other, Client() as web:
        trusted = web.trusting(server.url)
        assert (await trusted.send(get(server.url))).content == b"ok"
        for client, url in ((trusted, other.url), (web, server.url)):
            with pytest.raises(WebFailed, match="loopback"):
                await client.send(get(url))
        assert (await trusted.trusting(other.url).send(get(other.url))).status == 200


async def test_a_name_that_changes_its_answer_gains_nothing() -> None:
    """The name is resolved once, and the connection goes to the address that was checked."""

    async def handler(asked: Asked) -> None:
        await asked.answer(200, asked.headers["host"])

    async with loopback(handler) as server:
        resolve = answers(["127.0.0.1"], ["10.0.0.1"])
        async with Client(WebSettings(allow=("127.0.0.1",)), resolve=resolve) as web:
            answer = await web.send(get(f"http://rebinding.example:{server.port}/"))
            assert answer.content == f"rebinding.example:{server.port}".encode()
        resolve = answers(["8.8.8.8", "127.0.0.1"])
        async with Client(resolve=resolve) as web:
            with pytest.raises(WebFailed, match=r"rebinding\.example \(127\.0\.0\.1\) is loopback"):
                await web.send(get(f"http://rebinding.example:{server.port}/"))
        assert server.connections == 1


@pytest.mark.parametrize(
    "location",
    [
        "http://10.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "//localhost.inside/",
        "file:///etc/passwd",
        "http://0x7f.1/",
    ],
)
async def test_redirects_to_the_inside_are_refused(location: str) -> None:
    """Each hop passes the guard like the first."""

    async def handler(asked: Asked) -> None:
        await asked.answer(302, b"", {"Location": location})

    async with (
        loopback(handler) as server,
        Client(LOCAL, resolve=answers(["10.0.0.2"])) as web,
    ):
        with pytest.raises(WebFailed) as caught:
            await web.send(get(server.url))
        assert caught.value.type == "RequestRefused"


async def test_credentials_stay_with_their_origin() -> None:
    """Within an origin all headers go on; to another only those that carry no credential."""

    async def far(asked: Asked) -> None:
        await asked.answer(200, "far")

    async with loopback(far) as there:

        async def near(asked: Asked) -> None:
            url = "/second" if asked.path == "/" else f"http://u:p@127.0.0.1:{there.port}/x"
            await asked.answer(307, b"", {"Location": url})

        async with loopback(near) as server, Client(LOCAL) as web:
            headers = [("Authorization", "s"), ("X-API-Key", "s"), ("Cookie", "s"), ("Accept", "a")]
            answer = await web.send(get(server.url, headers=headers))
    assert answer.content == b"far"
    assert server.asked[1].headers["x-api-key"] == "s"
    (asked,) = there.asked
    assert not {"authorization", "x-api-key", "cookie"} & set(asked.headers)
    assert asked.headers["accept"] == "a"


@pytest.mark.parametrize(
    ("status", "method", "then", "body"),
    [
        (301, "POST", "GET", b""),
        (302, "PUT", "PUT", b"x"),
        (303, "PUT", "GET", b""),
        (303, "HEAD", "HEAD", b""),
        (307, "POST", "POST", b"x"),
        (308, "PATCH", "PATCH", b"x"),
    ],
)
async def test_methods_after_a_redirect(status: int, method: str, then: str, body: bytes) -> None:
    """As browsers and Dify's client do it."""

    async def handler(asked: Asked) -> None:
        if asked.path == "/":
            await asked.answer(status, b"", {"Location": "/next"})
        else:
            await asked.answer(200)

    async with loopback(handler) as server, Client(LOCAL) as web:
        content = None if method == "HEAD" else b"x"
        await web.send(get(server.url, method=method, content=content))
    assert (server.asked[1].method, server.asked[1].body) == (then, body)


async def test_endless_redirects_end() -> None:
    """After ten."""

    async def handler(asked: Asked) -> None:
        await asked.answer(302, b"", {"Location": "/"})

    async with loopback(handler) as server, Client(LOCAL) as web:
        with pytest.raises(WebFailed, match="redirected too often"):
            await web.send(get(server.url))
        assert len(server.asked) == 11


def packed(encoding: str, data: bytes) -> bytes:
    if encoding == "deflate":
        return zlib.compress(data)
    if encoding == "raw deflate":
        packer = zlib.compressobj(wbits=-15)
        return packer.compress(data) + packer.flush()
    return gzip.compress(gzip.compress(data) if encoding == "gzip, gzip" else data)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw deflate", "gzip, gzip", "x-gzip"])
async def test_packed_bodies_are_unpacked(encoding: str) -> None:
    """gzip and deflate, also without the header that some servers forget, and twice over."""
    data = b"hello " * 100_000

    async def handler(asked: Asked) -> None:
        header = encoding.removeprefix("raw ")
        await asked.answer(200, packed(encoding, data), {"Content-Encoding": header})

    async with loopback(handler) as server, Client(LOCAL) as web:
        assert (await web.send(get(server.url))).content == data


async def test_gzip_in_several_members() -> None:
    """As log files and some servers have it; what is no member at the end is left out."""

    async def handler(asked: Asked) -> None:
        body = gzip.compress(b"one ") + gzip.compress(b"two") + b"\x00\x00"
        await asked.answer(200, body, {"Content-Encoding": "gzip"})

    async with loopback(handler) as server, Client(LOCAL) as web:
        assert (await web.send(get(server.url))).content == b"one two"


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip"])
async def test_a_gzip_bomb_is_cut_off(encoding: str) -> None:
    """100 MB in 100 kB (or a few hundred bytes) are not unpacked past the bound."""
    bomb = packed(encoding, bytes(100_000_000))

    async def handler(asked: Asked) -> None:
        await asked.answer(200, bomb, {"Content-Encoding": encoding})

    async with loopback(handler) as server, Client(LOCAL) as web:
        with pytest.raises(WebFailed, match="larger than 1000000 bytes") as caught:
            await web.send(get(server.url, most_bytes=1_000_000))
        assert caught.value.type == "ResponseSizeError"


@pytest.mark.parametrize("size", [999, 1000, 1001])
async def test_bodies_are_bounded_to_the_byte(size: int) -> None:
    """The bound itself passes, one byte more does not."""

    async def handler(asked: Asked) -> None:
        await asked.answer(200, bytes(size))

    async with loopback(handler) as server, Client(LOCAL) as web:
        request = get(server.url, most_bytes=1000)
        if size <= 1000:
            assert len((await web.send(request)).content) == size
        else:
            with pytest.raises(WebFailed, match="larger than 1000"):
                await web.send(request)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"nonsense\r\n\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", "no HTTP"),
        (b"", "closed the connection"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000, "no HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", "encoding"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip,gzip,gzip\r\n\r\n", "packed 3 times"),
    ],
)
async def test_broken_answers_are_errors(head: bytes, message: str) -> None:
    """What is cut off or no HTTP is a WebFailed that names the host."""

    async def handler(asked: Asked) -> None:
        await asked.stream.send_all(head)
        await asked.stream.send_eof()

    async with loopback(handler) as server, Client(LOCAL) as web:
        with pytest.raises(WebFailed, match=f"127.0.0.1:{server.port}: .*{message}"):
            await web.send(get(server.url))


async def test_times_are_bounded() -> None:
    """No answer, a body that drips, a place that takes no connection: each within its limit."""

    async def handler(asked: Asked) -> None:
        if asked.path == "/drip":
            await asked.start({})
            for _ in range(100):
                await asked.stream.send_all(b".")
                await trio.sleep(0.02)
        await trio.sleep_forever()

    async with loopback(handler) as server, Client(LOCAL) as web:
        with pytest.raises(WebFailed, match=r"waited 0\.05 s for an answer") as caught:
            await web.send(get(server.url, read_s=0.05))
        assert caught.value.type == "RequestTimeout"
        with pytest.raises(WebFailed, match=r"no whole answer within 0\.1 s"):
            await web.send(get(f"{server.url}/drip", total_s=0.1))


async def test_a_name_that_hangs_is_given_up() -> None:
    """Resolution has its own limit."""

    async def resolve(host: str, port: int) -> list[str]:
        await trio.Event().wait()
        return []

    async with Client(WebSettings(resolve_s=0.02), resolve=resolve) as web:
        with pytest.raises(WebFailed, match="not resolved within"):
            await web.send(get("http://slow.example/"))


async def test_cancelling_closes_the_socket() -> None:
    """Wherever the request stands, the server sees the connection close."""
    for path in ("/head", "/body"):
        arrived, seen = trio.Event(), trio.Event()

        async def handler(
            asked: Asked, path: str = path, arrived: trio.Event = arrived, seen: trio.Event = seen
        ) -> None:
            if path == "/body":
                await asked.start({})
                await asked.stream.send_all(b"some")
            arrived.set()
            await gone(asked)
            seen.set()

        async with loopback(handler) as server, Client(LOCAL) as web:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(web.send, get(server.url + path))
                await arrived.wait()
                nursery.cancel_scope.cancel()
            with trio.fail_after(2):
                await seen.wait()
            assert web._places._all.statistics().borrowed_tokens == 0
            assert not web._places._hosts


@pytest.mark.parametrize("stage", ["name", "handshake", "place"])
async def test_cancelling_early_leaves_nothing(stage: str) -> None:
    """While the name is resolved, TLS is agreed on, or a place is waited for."""
    reached = trio.Event()

    async def resolve(host: str, port: int) -> list[str]:
        if stage == "name":
            reached.set()
            await trio.sleep_forever()
        return ["127.0.0.1"]

    closed = trio.Event()

    async def silent(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(1000)
            reached.set()
            while await stream.receive_some(1000):
                pass
            closed.set()

    settings = WebSettings(allow=("127.0.0.1",), connections_per_host=1)
    async with trio.open_nursery() as nursery, Client(settings, resolve=resolve) as web:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, silent, [listener])
        url = f"https://some.example:{listener.socket.getsockname()[1]}/"
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as requests:
                requests.start_soon(web.send, get(url))
                await reached.wait()
                if stage == "place":
                    requests.start_soon(web.send, get(url))
                    await trio.testing.wait_all_tasks_blocked(0.01)
                scope.cancel()
        if stage != "name":
            with trio.fail_after(2):
                await closed.wait()
        assert web._places._all.statistics().borrowed_tokens == 0
        assert not web._places._hosts
        nursery.cancel_scope.cancel()


async def test_leaving_a_stream_closes_it() -> None:
    """A stream is read as it comes, and closed when its block ends."""
    seen = trio.Event()

    async def handler(asked: Asked) -> None:
        await asked.start({})
        await asked.stream.send_all(b"first")
        await gone(asked)
        seen.set()

    async with loopback(handler) as server, Client(LOCAL) as web:
        async with web.stream(get(server.url)) as incoming:
            assert await incoming.read() == b"first"
        with trio.fail_after(2):
            await seen.wait()


async def test_connections_are_kept_and_replaced() -> None:
    """Whole answers leave their connection for the next; one that the server closed is not used."""

    async def handler(asked: Asked) -> None:
        await asked.answer(200, "ok")
        if asked.path == "/last":
            await asked.stream.aclose()

    async with loopback(handler) as server, Client(LOCAL) as web:
        for path in ("/", "/", "/last"):
            await web.send(get(server.url + path))
        assert server.connections == 1
        await trio.sleep(0.01)
        assert (await web.send(get(server.url, method="POST", content=b"x"))).status == 200
        assert server.connections == 2


async def test_a_host_has_so_many_connections() -> None:
    """Further requests to it wait; other hosts' do not."""
    now = most = 0
    release = trio.Event()

    async def handler(asked: Asked) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await release.wait()
        now -= 1
        await asked.answer(200)

    async def quick(asked: Asked) -> None:
        await asked.answer(200)

    settings = WebSettings(allow=("127.0.0.1",), connections_per_host=2)
    async with loopback(handler) as slow, loopback(quick) as fast, Client(settings) as web:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(web.send, get(slow.url))
            await until(lambda: now == 2)
            assert (await web.send(get(fast.url))).status == 200
            release.set()
        assert most == 2
        assert len(slow.asked) == 5


async def test_framing_headers_are_ours() -> None:
    """A graph cannot hide a second request behind a length of its own."""

    async def handler(asked: Asked) -> None:
        await asked.answer(200)

    async with loopback(handler) as server, Client(LOCAL) as web:
        headers = [("Content-Length", "1"), ("Transfer-Encoding", "chunked"), ("Connection", "x")]
        await web.send(get(server.url, method="POST", content=b"abc", headers=headers))
        assert server.asked[0].body == b"abc"
        assert "transfer-encoding" not in server.asked[0].headers
        for bad in ("a\r\nX: 1", "a\x00"):
            with pytest.raises(WebFailed):
                await web.send(get(server.url, headers=[("X-A", bad)]))
        assert len(server.asked) == 1


async def test_userinfo_becomes_basic() -> None:
    """Credentials in a URL are sent as such, and not shown."""

    async def handler(asked: Asked) -> None:
        await asked.answer(200, asked.headers["authorization"])

    async with loopback(handler) as server, Client(LOCAL) as web:
        answer = await web.send(get(f"http://us%40er:pass@127.0.0.1:{server.port}/"))
        assert answer.content == b"Basic dXNAZXI6cGFzcw=="
        assert "pass" not in answer.url


async def test_a_proxy_takes_what_is_outside() -> None:
    """Names go to the proxy unresolved, with its credentials; literal inside addresses do not, and
    what `allow` names is reached directly."""

    async def proxy(asked: Asked) -> None:
        await asked.answer(403 if asked.method == "CONNECT" else 200, "by proxy")

    async def direct(asked: Asked) -> None:
        await asked.answer(200, "direct")

    async with loopback(proxy) as squid, loopback(direct) as server:
        settings = WebSettings(
            allow=(f"127.0.0.1:{server.port}",),
            deny=("bad.example",),
            proxy=f"http://user:pw@127.0.0.1:{squid.port}",
        )
        async with Client(settings, resolve=answers(["10.0.0.1"])) as web:
            assert (await web.send(get("http://some.example/x?y"))).content == b"by proxy"
            assert (await web.send(get(server.url))).content == b"direct"
            for url in ("http://10.0.0.1/", "http://bad.example/"):
                with pytest.raises(WebFailed):
                    await web.send(get(url))
            with pytest.raises(WebFailed, match="CONNECT"):
                await web.send(get("https://some.example/"))
    first, tunnel = squid.asked
    assert first.path == "http://some.example/x?y"
    assert first.headers["host"] == "some.example"
    assert first.headers["proxy-authorization"] == "Basic dXNlcjpwdw=="
    assert (tunnel.method, tunnel.path) == ("CONNECT", "some.example:443")


@pytest.mark.parametrize("verify", [True, False])
async def test_tls_verifies_the_name_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, verify: bool
) -> None:
    """The connection goes to an address, and the certificate is held against the name."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("right.example").configure_cert(context)

    def trusting(verify: bool) -> ssl.SSLContext:
        made = ssl.create_default_context()
        authority.configure_trust(made)
        if not verify:
            made.check_hostname = False
            made.verify_mode = ssl.CERT_NONE
        return made

    monkeypatch.setattr(dialing, "_ssl_context", trusting)

    async def serve(stream: trio.SocketStream) -> None:
        secured = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        try:
            await secured.receive_some(65536)
            await secured.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        except (trio.BrokenResourceError, ssl.SSLError):
            await stream.aclose()

    settings = WebSettings(allow=("127.0.0.1",))
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        async with Client(settings, resolve=answers(["127.0.0.1"])) as web:
            answer = await web.send(get(f"https://right.example:{port}/", verify=verify))
            assert answer.content == b"ok"
            wrong = get(f"https://wrong.example:{port}/", verify=verify)
            if verify:
                with pytest.raises(WebFailed, match="TLS failed"):
                    await web.send(wrong)
            else:
                assert (await web.send(wrong)).content == b"ok"
        nursery.cancel_scope.cancel()
