"""Strings of the configuration that have a form of their own: URLs, paths, API keys, headers.

The `read_` functions are for `check`: they take the text and its source, return the canonical
form, and raise ValueError with what was expected.
"""

from __future__ import annotations

import ipaddress
import os
import re
from typing import Final, NamedTuple

from server.config.check import Source
from server.config.hints import quoted

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_HIGHEST_PORT: Final = 65_535

_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?P<authority>[^/?#\\]*)(?P<path>/[^?#\\]*)?(?P<rest>[?#].*)?",
    re.ASCII | re.DOTALL,
)
_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]{1,5}))?", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?\.?", re.ASCII)
_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*", re.ASCII)
_LISTEN_FORM: Final = "expected http://host:port or https://host:port"
_REPLICA_FORM: Final = 'expected the URL of a replica, such as "http://127.0.0.1:8000"'

_PLACE = re.compile(
    r"(?:https?://)?(?:(?:\*\.)?[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?(?::[0-9]{1,5})?"
    r"|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]+)",
    re.ASCII,
)
_PROXY_FORM: Final = "expected http://host:port"
_NETWORK_FORM: Final = (
    'expected a host such as "api.example.com" or "*.example.com", '
    'or a network such as "10.0.0.0/8"'
)
_KV_FORM: Final = "expected tcp://host:port"

MASK: Final = "***"
"""Stands for a secret wherever a configuration is printed."""
_MASKED: Final = (
    f'expected the secret itself: "{MASK}" only stands for one in a configuration that was printed'
)
_ENV: Final = "env:"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_VISIBLE = re.compile(r"[!-~]+", re.ASCII)
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)
_FIELD_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?", re.ASCII)
_OWN_HEADERS: Final = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Framing and routing: the connection to the replica sets these itself."""


class Address(NamedTuple):
    """Where to listen. `host` is a name or a bare IP address (no brackets); port 0 means any."""

    scheme: str
    host: str
    port: int

    @property
    def url(self) -> str:
        """The address as a URL, an IPv6 host in brackets."""
        return f"{self.scheme}://{_bracketed(self.host)}:{self.port}"


class _Parts(NamedTuple):
    scheme: str
    host: str
    port: int | None
    path: str


def parse_listen(url: str) -> Address:
    """Read an address to listen on: scheme, host and port, and nothing else.

    Raises ValueError, with what was expected, for anything that is not `http(s)://host:port`.
    """
    parts = _split(url, _LISTEN_FORM)
    if parts.path not in ("", "/"):
        raise ValueError(f"{_LISTEN_FORM}, without a path")
    if parts.port is None:
        raise ValueError(f"{_LISTEN_FORM}: the port is missing (0 picks a free one)")
    return Address(parts.scheme, parts.host, parts.port)


def parse_replica_url(url: str) -> str:
    """Return a replica's URL in its one canonical form, without a trailing "/" or "/v1".

    The API's own paths begin with /v1, so the base path must not: "http://h:8000/v1/" becomes
    "http://h:8000". Scheme and host become lower case and a scheme's usual port is dropped, so
    two spellings of one replica compare equal. Raises ValueError with what was expected.
    """
    parts = _split(url, _REPLICA_FORM)
    if parts.port == 0:
        raise ValueError(f"{_REPLICA_FORM}: port 0 cannot be called")
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    _check_base_path(path)
    known = parts.port is None or parts.port == _DEFAULT_PORTS[parts.scheme]
    port = "" if known else f":{parts.port}"
    return f"{parts.scheme}://{_bracketed(parts.host)}{port}{path}"


def _check_base_path(path: str) -> None:
    if path.endswith(("/completions", "/embeddings", "/responses", "/messages")):
        raise ValueError(f"{_REPLICA_FORM}: give the base URL, up to and without /v1")
    segments = path.split("/")
    if not _PATH.fullmatch(path) or "." in segments or ".." in segments:
        raise ValueError(f"{_REPLICA_FORM}: the path is not a plain one")


def _split(url: str, form: str) -> _Parts:
    matched = _URL.fullmatch(url)
    if matched is None:
        raise ValueError(form)
    scheme = matched["scheme"].lower()
    if scheme not in _DEFAULT_PORTS:
        raise ValueError(f"{form}: the scheme must be http or https")
    if matched["rest"] is not None:
        raise ValueError(f"{form}, without a query or a fragment")
    if "@" in matched["authority"]:
        raise ValueError(f"{form}, without a user name or password")
    host, port = _host_and_port(matched["authority"], form)
    return _Parts(scheme, host, port, matched["path"] or "")


def _host_and_port(authority: str, form: str) -> tuple[str, int | None]:
    matched = _AUTHORITY.fullmatch(authority)
    if matched is None:
        raise ValueError(f"{form}: {_authority_fault(authority)}")
    port = None if matched["port"] is None else int(matched["port"])
    if port is not None and port > _HIGHEST_PORT:
        raise ValueError(f"{form}: the port must be at most {_HIGHEST_PORT}")
    return _host(matched["host"], form), port


def _authority_fault(authority: str) -> str:
    if authority.count(":") > 1 and "[" not in authority:
        return "an IPv6 address needs brackets, as in http://[::1]:8746"
    return "the port must be a number"


def _host(text: str, form: str) -> str:
    if not text:
        raise ValueError(f"{form}: the host is missing (every interface: 0.0.0.0 or [::])")
    try:
        if text.startswith("["):
            return str(ipaddress.IPv6Address(_without_zone(text[1:-1])))
        if re.fullmatch(r"[0-9.]+", text):
            return str(ipaddress.IPv4Address(text))
    except ValueError as error:
        raise ValueError(f"{form}: the host is not an IP address") from error
    if not _NAME.fullmatch(text) or ".." in text:
        raise ValueError(f"{form}: the host is neither a name nor an IP address")
    return text.lower()


def _without_zone(address: str) -> str:
    if "%" in address:
        raise ValueError("a zone has no place in a URL")
    return address


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def read_listen(text: str, _source: Source) -> str:
    """The canonical URL of an address to listen on."""
    return parse_listen(text).url


def read_replica_url(text: str, _source: Source) -> str:
    """The canonical URL of a replica."""
    return parse_replica_url(text)


def read_kv_endpoint(text: str, _source: Source) -> str:
    """Where an engine publishes, for ZeroMQ to connect to."""
    scheme, _, authority = text.partition("://")
    if scheme.lower() != "tcp":
        raise ValueError(_KV_FORM)
    host, port = _host_and_port(authority, _KV_FORM)
    if not port:
        raise ValueError(f"{_KV_FORM}: the port is missing")
    return f"tcp://{_bracketed(host)}:{port}"


def read_file_path(text: str, source: Source) -> str:
    """The absolute path of a file that can be read; relative to the source's directory."""
    path = os.path.abspath(os.path.join(source.directory, text))
    if not os.path.isfile(path):
        raise ValueError(f"expected the path of a file: there is none at {quoted(path)}")
    try:
        with open(path, "rb"):
            return path
    except OSError as error:
        raise ValueError(f"expected a file that can be read: {error.strerror}") from error


def read_directory(text: str, source: Source) -> str:
    """The absolute path of a directory, there or not; relative to the source's directory."""
    path = os.path.abspath(os.path.join(source.directory, text))
    if os.path.exists(path) and not os.path.isdir(path):
        raise ValueError(f"expected the path of a directory: {quoted(path)} is none")
    return path


def read_proxy(text: str, _source: Source) -> str:
    """The canonical URL of an HTTP proxy: scheme, host and port."""
    parts = _split(text, _PROXY_FORM)
    if parts.path not in ("", "/"):
        raise ValueError(f"{_PROXY_FORM}, without a path")
    return Address(parts.scheme, parts.host, parts.port or _DEFAULT_PORTS[parts.scheme]).url


def read_network(text: str, _source: Source) -> str:
    """A host's name (*.example.com: all below it), an address, or a network such as 10.0.0.0/8;
    with a scheme or a port for that alone."""
    try:
        return str(ipaddress.ip_network(text, strict=False)) if "/" in text else _place(text)
    except ValueError:
        return _place(text)


def _place(text: str) -> str:
    if not _PLACE.fullmatch(text):
        raise ValueError(_NETWORK_FORM)
    return text.lower()


def read_setting(text: str, source: Source) -> str:
    """A tool's setting as it is; "env:NAME" stands for the value of an environment variable."""
    if text == MASK:
        raise ValueError(_MASKED)
    return read_api_key(text, source) if text.startswith(_ENV) else text


def read_api_key(text: str, source: Source) -> str:
    """The key itself; "env:NAME" stands for the value of an environment variable."""
    if text == MASK:
        raise ValueError(_MASKED)
    if not text.startswith(_ENV):
        return _visible(text, "")
    name = text.removeprefix(_ENV)
    if not _VARIABLE.fullmatch(name):
        raise ValueError("expected the name of an environment variable after env:")
    if source.environ is None:
        raise ValueError(f"expected the key itself: {_ENV} is not allowed in {source.name}")
    key = source.environ.get(name)
    if not key:
        raise ValueError(f"expected the environment variable {name} to hold the key; it is not set")
    return _visible(key, f" in the environment variable {name}")


def _visible(key: str, where: str) -> str:
    if not _VISIBLE.fullmatch(key):
        raise ValueError(f"expected visible ASCII characters{where}, without spaces or line breaks")
    return key


def read_header_name(text: str, _source: Source) -> str:
    """The name in lower case."""
    name = text.lower()
    if not _TOKEN.fullmatch(name):
        raise ValueError("expected the name of a header")
    if name in _OWN_HEADERS:
        raise ValueError("expected another header: this one is set for each request")
    return name


def read_header_value(text: str, _source: Source) -> str:
    """The value as it is."""
    if text == MASK:
        raise ValueError(_MASKED)
    if not _FIELD_VALUE.fullmatch(text):
        raise ValueError("expected visible ASCII characters, with spaces only between them")
    return text
