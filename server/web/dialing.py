"""Connections to addresses that were checked.

A name is resolved here, the guard judges all of its addresses, and the connection is made to one of
those very addresses. The name stays what TLS verifies and what the Host header says; there is no
moment at which it could be looked up again.
"""

from __future__ import annotations

import base64
import ipaddress
import ssl
from typing import Final
from urllib.parse import unquote, urlsplit

import trio

from server.web.faults import Broken, Late
from server.web.guard import Guard
from server.web.resolve import Resolve, system_resolver
from server.web.settings import WebSettings

__all__ = ["Dialer", "Proxy"]

_MOST_TRIES: Final = 4
_FIRST_TRIES_S: Final = 2.0
"""For an address while there are others: one that swallows packets does not take all the time."""


class Dialer:
    """Opens connections: to a host, or to the proxy where it is the way to the host."""

    def __init__(self, settings: WebSettings, resolve: Resolve | None = None) -> None:
        self._guard = Guard(settings.allow, settings.deny)
        self._resolve = resolve or system_resolver()
        self._resolve_s = settings.resolve_s
        self._proxy = Proxy(settings.proxy) if settings.proxy else None
        self._contexts: dict[bool, ssl.SSLContext] = {}

    async def dial(
        self, host: str, port: int, connect_s: float, trusted: bool
    ) -> trio.SocketStream:
        """Raises `Refused`, `Late` and `Broken`."""
        proxy = self.proxy_to(host, port, trusted)
        if proxy is not None:
            self._check_unresolved(host, port)
            return await _first([(proxy.host, proxy.port)], connect_s)
        addresses = await self._checked(host, port, trusted)
        return await _first([(address, port) for address in addresses], connect_s)

    def proxy_to(self, host: str, port: int, trusted: bool) -> Proxy | None:
        """The proxy through which a host is reached; None if it is reached directly."""
        if trusted or self._guard.allows_name(host, port):
            return None
        return self._proxy

    async def tls(self, verify: bool) -> ssl.SSLContext:
        """Made once: reading the certificates takes long enough to do it in a thread."""
        if verify not in self._contexts:
            context = await trio.to_thread.run_sync(_ssl_context, verify)
            self._contexts.setdefault(verify, context)
        return self._contexts[verify]

    def _check_unresolved(self, host: str, port: int) -> None:
        """Before a proxy, which resolves names itself."""
        self._guard.check_name(host, port)
        if _is_address(host):
            self._guard.check(host, port, [host])

    async def _checked(self, host: str, port: int, trusted: bool) -> list[str]:
        self._guard.check_name(host, port)
        addresses = [host] if _is_address(host) else await self._resolved(host, port)
        return self._guard.check(host, port, addresses, trusted)

    async def _resolved(self, host: str, port: int) -> list[str]:
        try:
            with trio.fail_after(self._resolve_s):
                return await self._resolve(host, port)
        except trio.TooSlowError:
            raise Late(f"the name was not resolved within {self._resolve_s:g} s") from None
        except (OSError, UnicodeError) as error:
            raise Broken(f"the name cannot be resolved ({error})") from None


def _ssl_context(verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _first(places: list[tuple[str, int]], connect_s: float) -> trio.SocketStream:
    """A connection to the first address that takes one, in order."""
    deadline = trio.current_time() + connect_s
    places = places[:_MOST_TRIES]
    fault: Exception = Late(f"not connected within {connect_s:g} s")
    for number, (host, port) in enumerate(places):
        left = deadline - trio.current_time()
        if number < len(places) - 1:
            left = min(left, _FIRST_TRIES_S)
        with trio.move_on_after(left):
            try:
                return await trio.open_tcp_stream(host, port)
            except OSError as error:
                fault = Broken(f"not connected: {error.__cause__ or error}")
    raise fault


class Proxy:
    """A forward proxy: what URLs of plain HTTP are asked of, and what TLS is tunnelled through."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"[web] proxy: {url!r} is not http://host:port")
        self.host = parts.hostname
        self.port = parts.port or 3128
        self.headers: list[tuple[str, str]] = []
        if parts.username is not None:
            userinfo = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            token = base64.b64encode(userinfo.encode()).decode()
            self.headers = [("Proxy-Authorization", f"Basic {token}")]
