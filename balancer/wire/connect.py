"""A replica's address, and a connection to it."""

from __future__ import annotations

import errno
import ipaddress
import socket
import ssl
from functools import cache
from typing import NamedTuple
from urllib.parse import urlsplit

import trio

from balancer.errors import ConnectFailed
from balancer.wire.poller import Poller
from balancer.wire.transport import Transport

__all__ = ["Dialer", "Origin", "TcpDialer", "tls_context"]


class Origin(NamedTuple):
    """Where a replica listens. `base` is the path in front of `/v1`, empty or `/like/this`.

    `named` is the name that `host` is one address of, where a name stands for many replicas: it is
    what the replica is called by in `Host` and what its certificate must be for.
    """

    scheme: str
    host: str
    port: int
    base: str = ""
    named: str = ""

    @classmethod
    def parse(cls, url: str) -> Origin:
        """From `http(s)://host[:port][/base]`; a final `/v1` or `/` is not part of the base.

        Raises ValueError naming what is wrong.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https"):
            raise ValueError(f"{url!r} must begin with http:// or https://")
        if not parts.hostname or parts.username or parts.query or parts.fragment:
            raise ValueError(f"{url!r} must be http(s)://host[:port][/base] and nothing more")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return cls(parts.scheme, parts.hostname, port, parts.path.rstrip("/").removesuffix("/v1"))

    def at(self, address: str) -> Origin:
        """The same at one of the addresses of its name."""
        return self._replace(host=address, named=self.named or self.host)

    @property
    def server_name(self) -> str:
        """What its certificate must be for."""
        return self.named or self.host

    @property
    def authority(self) -> str:
        """For the Host header."""
        return self._with_port(self.server_name)

    def _with_port(self, host: str) -> str:
        host = f"[{host}]" if ":" in host else host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self._with_port(self.host)}{self.base}"


class Dialer:
    """Opens connections to replicas. Replaced in tests by one without a network."""

    async def dial(self, origin: Origin) -> Transport:
        """A connection, TLS included. Raises `ConnectFailed`; set a deadline."""
        raise NotImplementedError


class TcpDialer(Dialer):
    """The real one: every address of the name in turn, no delay for small writes."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller

    async def dial(self, origin: Origin) -> Transport:
        try:
            sock = await _connect(origin)
            if origin.scheme == "https":
                return await self._secure(sock, origin)
            return Transport(sock, self._poller)
        except OSError as exc:
            raise ConnectFailed(str(origin), _reason(exc)) from exc
        except UnicodeError as exc:
            raise ConnectFailed(str(origin), f"not a host name: {exc}") from exc

    async def _secure(self, sock: socket.socket, origin: Origin) -> Transport:
        transport: Transport | None = None
        try:
            secured = tls_context().wrap_socket(
                sock, server_hostname=origin.server_name, do_handshake_on_connect=False
            )
            transport = Transport(secured, self._poller)
            await transport.handshake()
        except OSError as exc:  # ssl.SSLError is one
            _abandon(sock, transport)
            raise ConnectFailed(str(origin), f"TLS: {_reason(exc)}") from exc
        except BaseException:
            _abandon(sock, transport)
            raise
        return transport


def _abandon(sock: socket.socket, transport: Transport | None) -> None:
    if transport is not None:
        transport.close()
    sock.close()  # does nothing if a TLS socket has taken it over


@cache
def tls_context() -> ssl.SSLContext:
    """For https replicas: the system's authorities. The first call takes some 20 ms."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


async def _connect(origin: Origin) -> socket.socket:
    failure: OSError | None = None
    for family, address in await _resolve(origin):
        try:
            return await _connect_one(family, address)
        except OSError as exc:
            failure = exc
    raise failure or OSError(f"{origin.host} has no address")


async def _resolve(origin: Origin) -> list[tuple[int, tuple[str, int]]]:
    try:
        version = ipaddress.ip_address(origin.host).version
    except ValueError:
        found = await trio.socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        return [(family, address) for family, _, _, _, address in found]  # type: ignore[misc]
    return [(socket.AF_INET6 if version == 6 else socket.AF_INET, (origin.host, origin.port))]


async def _connect_one(family: int, address: tuple[str, int]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _watch_for_death(sock)
        status = sock.connect_ex(address)
        if status == errno.EINPROGRESS:
            await trio.lowlevel.wait_writable(sock)
            status = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if status:
            raise OSError(status, errno.errorcode.get(status, "unknown"))
    except BaseException:
        sock.close()
        raise
    return sock


def _watch_for_death(sock: socket.socket) -> None:
    """Have the kernel ask, after 15 s of silence, whether the replica's host still lives.

    A host that loses power, or a NAT that forgets the flow, sends nothing: a kept connection would
    look fine until a request on it waits for `first_byte_s`.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _reason(exc: OSError) -> str:
    reasons = {
        errno.ECONNREFUSED: "connection refused: nothing listens there",
        errno.ETIMEDOUT: "connection timed out",
        errno.EHOSTUNREACH: "no route to the host",
        errno.ENETUNREACH: "no route to the network",
        errno.EMFILE: "too many open files in this process (raise `ulimit -n`)",
    }
    return reasons.get(exc.errno or 0, str(exc))
