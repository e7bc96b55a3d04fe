"""Addresses of replicas, and real connections to them over loopback."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio
import trustme

from balancer.errors import ConnectFailed
from balancer.wire import connect
from balancer.wire.connect import Dialer, Origin, TcpDialer
from balancer.wire.poller import EpollPoller, TaskPoller, open_poller


@pytest.mark.parametrize(
    ("url", "origin", "authority"),
    [
        ("http://h", Origin("http", "h", 80), "h"),
        ("http://H:80/", Origin("http", "h", 80), "h"),
        ("https://h", Origin("https", "h", 443), "h"),
        ("https://h:80", Origin("https", "h", 80), "h:80"),
        ("HTTP://127.0.0.1:8001/v1", Origin("http", "127.0.0.1", 8001), "127.0.0.1:8001"),
        ("http://h/v1/", Origin("http", "h", 80), "h"),
        ("http://h/base", Origin("http", "h", 80, "/base"), "h"),
        ("http://h/base/v1/", Origin("http", "h", 80, "/base"), "h"),
        ("http://h/v1beta", Origin("http", "h", 80, "/v1beta"), "h"),
        ("http://[::1]:8001/v1", Origin("http", "::1", 8001), "[::1]:8001"),
        ("https://[fe80::1]", Origin("https", "fe80::1", 443), "[fe80::1]"),
    ],
)
def test_parse(url: str, origin: Origin, authority: str) -> None:
    """Scheme, host, port and what stands in front of `/v1`; the name parses to the same."""
    assert Origin.parse(url) == origin
    assert origin.authority == authority
    assert Origin.parse(str(origin)) == origin


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h:80",
        "ftp://h",
        "http://",
        "http:///v1",
        "http://user@h",
        "http://user:word@h",
        "http://h?x=1",
        "http://h#x",
        "http://h:port",
        "http://h:99999",
        "http://[::1",
    ],
)
def test_parse_refuses(url: str) -> None:
    """With a reason, never half understood."""
    with pytest.raises(ValueError):
        Origin.parse(url)


@pytest.fixture(params=[open_poller, TaskPoller])
async def dialer(request: pytest.FixtureRequest, nursery: trio.Nursery) -> TcpDialer:
    """The real one, on each poller."""
    poller: EpollPoller | TaskPoller = request.param()
    await nursery.start(poller.run)
    return TcpDialer(poller)


@asynccontextmanager
async def listening(
    host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """The port of a server that sends back in capitals what it gets."""

    async def shout(stream: trio.SocketStream) -> None:
        served: trio.abc.Stream = stream
        if tls is not None:
            served = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
        try:
            while data := await served.receive_some():
                await served.send_all(bytes(data).upper())
        except trio.BrokenResourceError:
            pass
        finally:
            await trio.aclose_forcefully(served)

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host=host)
        await nursery.start(trio.serve_listeners, shout, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def assert_works(dialer: Dialer, url: str) -> None:
    transport = await dialer.dial(Origin.parse(url))
    try:
        with trio.fail_after(5):
            await transport.send_all(b"hello")
            assert await transport.receive() == b"HELLO"
            with trio.move_on_after(0.01):
                await transport.receive()
            await transport.send_all(b"x" * 300_000)
            received = 0
            while received < 300_000:
                received += len(await transport.receive())
    finally:
        transport.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_dial(host: str, dialer: TcpDialer) -> None:
    """By address and by name (a name's addresses are tried in turn)."""
    async with listening() as port:
        await assert_works(dialer, f"http://{host}:{port}")


async def test_dial_ipv6(dialer: TcpDialer) -> None:
    """Where this machine has IPv6."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("no IPv6 on this machine's loopback")
    async with listening("::1") as port:
        await assert_works(dialer, f"http://[::1]:{port}")


async def test_no_delay_for_small_writes(dialer: TcpDialer) -> None:
    """Tokens are small: Nagle's algorithm would hold them back."""
    async with listening() as port:
        transport = await dialer.dial(Origin.parse(f"http://127.0.0.1:{port}"))
        assert transport._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        transport.close()


async def test_refused(dialer: TcpDialer) -> None:
    """Says what that means, and which replica."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectFailed, match=f"127.0.0.1:{port}: connection refused: nothing"):
        await dialer.dial(Origin.parse(f"http://127.0.0.1:{port}"))


async def test_unknown_name(dialer: TcpDialer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name without an address is no connection either."""

    async def unknown(*_: object, **__: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(trio.socket, "getaddrinfo", unknown)
    with pytest.raises(ConnectFailed, match="Name or service not known"):
        await dialer.dial(Origin.parse("http://no-such-host.invalid"))


async def test_every_address_is_tried(dialer: TcpDialer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first that answers is taken; if none does, the last one's reason is told."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dead = listener.getsockname()[1]
    async with listening() as port:
        ports = [dead, port]

        async def two(*_: object, **__: object) -> object:
            kind = socket.SOCK_STREAM
            return [(socket.AF_INET, kind, 6, "", ("127.0.0.1", port)) for port in ports]

        monkeypatch.setattr(trio.socket, "getaddrinfo", two)
        await assert_works(dialer, "http://somewhere")
        ports = [dead, dead]
        with pytest.raises(ConnectFailed, match="refused"):
            await dialer.dial(Origin.parse("http://somewhere"))


async def test_cancelled_while_connecting(
    dialer: TcpDialer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket is closed: the warning of one left open would fail this test."""
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: errno.EINPROGRESS)

    async def never(*_: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(trio.lowlevel, "wait_writable", never)
    with trio.move_on_after(0.01) as scope:
        await dialer.dial(Origin.parse("http://127.0.0.1:1"))
    assert scope.cancelled_caught


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch) -> Iterator[trustme.CA]:
    """A certificate authority that the dialer trusts, and no other."""
    made = trustme.CA()
    original = ssl.create_default_context

    def trusting() -> ssl.SSLContext:
        context = original()
        made.configure_trust(context)
        return context

    monkeypatch.setattr(ssl, "create_default_context", trusting)
    connect.tls_context.cache_clear()
    yield made
    connect.tls_context.cache_clear()


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_tls(host: str, authority: trustme.CA, dialer: TcpDialer) -> None:
    """Encrypted end to end, the certificate checked for the name or the address."""
    async with listening(tls=server_context(authority, host)) as port:
        await assert_works(dialer, f"https://{host}:{port}")


async def test_tls_wrong_host(authority: trustme.CA, dialer: TcpDialer) -> None:
    """A certificate for somebody else is no connection."""
    async with listening(tls=server_context(authority, "elsewhere.example")) as port:
        with pytest.raises(ConnectFailed, match=r"SSL: .*certificate"):
            await dialer.dial(Origin.parse(f"https://127.0.0.1:{port}"))


async def test_tls_unknown_authority(authority: trustme.CA, dialer: TcpDialer) -> None:
    """Nor is one that nobody we trust has signed."""
    async with listening(tls=server_context(trustme.CA(), "127.0.0.1")) as port:
        with pytest.raises(ConnectFailed, match=r"SSL: .*certificate"):
            await dialer.dial(Origin.parse(f"https://127.0.0.1:{port}"))


async def test_tls_to_a_plain_server(authority: trustme.CA, dialer: TcpDialer) -> None:
    """Bytes that are no TLS are told as such."""
    async with listening() as port:
        with pytest.raises(ConnectFailed, match="SSL: "):
            await dialer.dial(Origin.parse(f"https://127.0.0.1:{port}"))


async def test_tls_cancelled_in_the_handshake(authority: trustme.CA, dialer: TcpDialer) -> None:
    """A server that never speaks: given up, and the socket closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with trio.move_on_after(0.05) as scope:
            await dialer.dial(Origin.parse(f"https://127.0.0.1:{port}"))
        assert scope.cancelled_caught
        accepted, _ = listener.accept()
        accepted.settimeout(5)
        with accepted:
            while accepted.recv(4096):
                pass
