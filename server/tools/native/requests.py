"""Requests of native tools, all through `services.Web` and its guard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from server.tools.native.given import Given
from server.workflow.large_json import MOST_BODY_BYTES, json_bytes, read_json
from server.workflow.services import ToolFailed, WebRequest, WebResponse
from server.workflow.sizes import TooLarge

__all__ = ["ask_json", "json_in", "send"]

MOST_BYTES: Final = 10 * 1024 * 1024
_SHOWN: Final = 300
"""Characters of a refusing answer that an error repeats."""


async def send(
    given: Given,
    method: str,
    url: str,
    *,
    query: Mapping[str, Any] | None = None,
    headers: Sequence[tuple[str, str]] = (),
    body: Any = None,
    content: bytes | None = None,
    read_s: float = 60.0,
    most_bytes: int = MOST_BYTES,
) -> WebResponse:
    """Send a request, `body` as JSON. Raises `WebFailed`, and `ToolFailed` for a status of 400 and
    above. No address or header is in the error: they may hold a credential."""
    kept = {name: value for name, value in (query or {}).items() if value is not None}
    if kept:
        url += ("&" if "?" in url else "?") + urlencode(kept, doseq=True)
    if body is not None:
        content = _written(given, body)
        headers = [*headers, ("content-type", "application/json")]
    response = await given.web.send(
        WebRequest(
            method=method,
            url=url,
            headers=tuple(headers),
            content=content,
            read_s=read_s,
            total_s=max(120.0, 2 * read_s),
            most_bytes=most_bytes,
        )
    )
    if response.status >= 400:
        told = " ".join(response.content[:2000].decode("utf-8", "replace").split())[:_SHOWN]
        raise ToolFailed(
            f"{given.provider} answered with status {response.status}: {told}", "ToolInvokeError"
        )
    return response


def _written(given: Given, body: Any) -> bytes:
    try:
        return json_bytes(body)
    except ValueError as error:
        raise given.wrong(str(error)) from None


def json_in(given: Given, response: WebResponse) -> Any:
    """Its JSON. Raises `ToolFailed`."""
    try:
        return read_json(response.content, MOST_BODY_BYTES)
    except TooLarge as error:
        raise ToolFailed(f"{given.provider}: its answer: {error}", "ToolInvokeError") from None
    except ValueError:
        told = response.content[:_SHOWN].decode("utf-8", "replace")
        raise ToolFailed(
            f"{given.provider} did not answer with JSON: {told}", "ToolInvokeError"
        ) from None


async def ask_json(given: Given, method: str, url: str, **how: Any) -> dict[str, Any]:
    """Send a request and read the object that it is answered with. Raises as `send` does."""
    found = json_in(given, await send(given, method, url, **how))
    if not isinstance(found, dict):
        raise ToolFailed(f"{given.provider} answered with no JSON object", "ToolInvokeError")
    return found
