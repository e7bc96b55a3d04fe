"""URLs, read once into what will be connected to. Pure."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple
from urllib.parse import quote, unquote, urlsplit

__all__ = ["Refused", "Target", "parse_url"]

LONGEST_URL: Final = 8192
"""Characters; servers and proxies take no longer ones either."""

_LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_FORBIDDEN: Final = re.compile(r"[\x00-\x20\x7f\\]")
_PATH_SAFE: Final = "/%:@!$&'()*+,;=~-._"
_QUERY_SAFE: Final = _PATH_SAFE + "?[]{}|^`"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Refused(Exception):
    """A request that may not leave. The message says why and what would allow it."""


class Target(NamedTuple):
    """Where a request goes. `host` is an ASCII name or an address without brackets."""

    scheme: str
    host: str
    port: int
    path: str
    """With the query."""
    userinfo: str | None = None
    """`user:password`, decoded, if the URL had one."""

    @property
    def origin(self) -> str:
        """Such as "https://example.org:443"."""
        return f"{self.scheme}://{_bracketed(self.host)}:{self.port}"

    @property
    def authority(self) -> str:
        """As the Host header has it."""
        host = _bracketed(self.host)
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """Without credentials."""
        return f"{self.scheme}://{self.authority}{self.path}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def parse_url(url: str) -> Target:
    """Read a URL into what will be connected to: there is no second reading of it.

    Raises `Refused` for what is not plain http(s), and for hosts that parsers read differently.
    """
    if len(url) > LONGEST_URL:
        raise Refused(f"the URL has {len(url)} characters; at most {LONGEST_URL} are taken")
    url = url.strip()
    scheme = url.partition(":")[0].lower()
    if scheme not in _DEFAULT_PORTS or not url[len(scheme) :].startswith("://"):
        raise Refused(f"{_shown(url)}: only http:// and https:// are requested")
    authority = re.split(r"[/?#]", url[len(scheme) + 3 :], maxsplit=1)[0]
    if _FORBIDDEN.search(authority):
        raise Refused(f"{_shown(url)}: the host has characters that no host has")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname or ""
    except ValueError as error:
        raise Refused(f"{_shown(url)}: {error}") from None
    userinfo = authority.rpartition("@")[0]
    if "@" in userinfo:
        raise Refused(f"{_shown(url)}: more than one @ before the host; write those in it as %40")
    try:
        path = quote(parts.path, safe=_PATH_SAFE) or "/"
        query = f"?{quote(parts.query, safe=_QUERY_SAFE)}" if parts.query else ""
    except UnicodeEncodeError:
        raise Refused(f"{_shown(url)}: it has half of a character, which cannot be sent") from None
    return Target(
        scheme,
        _host(host),
        _DEFAULT_PORTS[scheme] if port is None else port,
        path + query,
        unquote(userinfo) if userinfo else None,
    )


def _shown(url: str) -> str:
    """Enough of it for a message, without what may be a credential."""
    return repr(re.sub(r"//[^/?#]*@", "//", re.split(r"[?#]", url, maxsplit=1)[0])[:120])


def _host(host: str) -> str:
    """A name in ASCII without its last dot, or an address in its one spelling."""
    if ":" in host:
        return _v6_host(host)
    name = _ascii(host).lower()
    if name.endswith("."):
        name = name[:-1]
    labels = name.split(".")
    if not all(_LABEL.fullmatch(label) for label in labels) or len(name) > 253:
        raise Refused(f"{host[:120]!r} is no host name")
    if _NUMBER.fullmatch(labels[-1]):
        return _v4_host(name)
    return name


def _v6_host(host: str) -> str:
    if "%" in host:
        raise Refused(f"{host[:120]!r}: addresses with a zone are not requested")
    try:
        return str(IPv6Address(host))
    except ValueError:
        raise Refused(f"{host[:120]!r} is no IPv6 address") from None


def _v4_host(host: str) -> str:
    """Octal, hexadecimal and short forms are refused: parsers do not agree about them."""
    try:
        return str(IPv4Address(host))
    except ValueError:
        raise Refused(
            f"{host[:120]!r} is no IPv4 address; write it as four decimal numbers"
        ) from None


def _ascii(host: str) -> str:
    if host.isascii():
        return host
    import idna

    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError) as error:
        raise Refused(f"{host[:120]!r} is no host name: {error}") from None
