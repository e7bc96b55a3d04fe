"""The header fields of a request as it leaves. Pure."""

from __future__ import annotations

import base64
import re
from typing import Final

from server import __version__
from server.web.decode import ACCEPTED
from server.web.urls import Target
from server.workflow.services import WebFailed, WebRequest

__all__ = ["request_headers"]

_OURS: Final = frozenset(
    {
        *("connection", "content-length", "expect", "keep-alive", "proxy-authorization"),
        *("proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)
"""What frames a message is decided here: a graph that sets them could hide a second request."""

_UNSENDABLE: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")

_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


def request_headers(request: WebRequest, target: Target) -> list[tuple[str, str]]:
    """All of them, Host first. Credentials in the URL become Basic, unless the request has its
    own. Raises `WebFailed` for a value that none can have; never showing it, for it may be a key.
    """
    given = [(name, value.strip()) for name, value in request.headers if _taken(name)]
    for name, value in given:
        if _UNSENDABLE.search(value):
            raise WebFailed(
                f"the header {name!r} has a character in it that no header can have",
                "RequestRefused",
            )
    names = {name.lower() for name, _ in given}
    headers = [] if "host" in names else [("Host", target.authority)]
    headers += given
    for name, value in _defaults(target):
        if name.lower() not in names:
            headers.append((name, value))
    if request.content or request.method in _WITH_BODY:
        headers.append(("Content-Length", str(len(request.content or b""))))
    return headers


def _taken(name: str) -> bool:
    return bool(name.strip()) and name.lower() not in _OURS


def _defaults(target: Target) -> list[tuple[str, str]]:
    defaults = [
        ("Accept", "*/*"),
        ("Accept-Encoding", ACCEPTED),
        ("User-Agent", f"triolet/{__version__}"),
    ]
    if target.userinfo is not None:
        token = base64.b64encode(target.userinfo.encode()).decode()
        defaults.append(("Authorization", f"Basic {token}"))
    return defaults
