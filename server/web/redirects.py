"""What the next request is after a redirect. Pure."""

from __future__ import annotations

from typing import Final
from urllib.parse import urljoin

import msgspec

from server.web.urls import Refused, Target, parse_url
from server.workflow.services import WebRequest

__all__ = ["REDIRECTS", "redirected"]

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

_OF_BODY: Final = frozenset(
    {"content-type", "content-length", "content-encoding", "transfer-encoding"}
)
_HARMLESS: Final = frozenset(
    {"accept", "accept-encoding", "accept-language", "content-type", "range", "user-agent"}
)
"""Headers that carry no credential. Keys go by any name (X-API-Key, Token, ...), so that to another
origin go only these."""


def redirected(request: WebRequest, at: Target, status: int, location: str) -> WebRequest:
    """`request`, answered by `at` with `status`, as it goes on to `location`.

    Methods change as in browsers; a Location's own credentials are not used. Raises `Refused`.
    """
    target = parse_url(_joined(at.url, location))
    method, content, headers = request.method, request.content, list(request.headers)
    if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
        method, content = "GET", None
        headers = [(name, value) for name, value in headers if name.lower() not in _OF_BODY]
    if not _same_place(at, target):
        headers = [(name, value) for name, value in headers if name.lower() in _HARMLESS]
    return msgspec.structs.replace(
        request, method=method, content=content, headers=headers, url=target.url
    )


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise Refused(f"{location[:120]!r} is no URL: {error}") from None


def _same_place(at: Target, target: Target) -> bool:
    """The same origin, or the same host made safer: plain HTTP that moved to TLS."""
    if at.origin == target.origin:
        return True
    upgraded = (at.scheme, at.port, target.scheme, target.port) == ("http", 80, "https", 443)
    return upgraded and at.host == target.host
