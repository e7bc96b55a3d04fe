"""How messages reach an MCP server: streamable HTTP, and the older pair of SSE and POST.

Nothing runs in the background. Streamable HTTP asks once for each message; the older transport
holds its stream open for as long as its `async with` lasts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol
from urllib.parse import urljoin

import trio

from server.tools.event_stream import EventStream, EventTooLong, ServerEvent
from server.tools.mcp_config import McpServer
from server.web.streams import Incoming, StreamingWeb
from server.web.urls import Refused, parse_url
from server.workflow.large_json import MOST_BODY_BYTES, json_bytes, read_json
from server.workflow.services import ToolFailed, WebFailed, WebRequest
from server.workflow.sizes import TooLarge

__all__ = [
    "HttpTransport",
    "NotSpoken",
    "SessionGone",
    "SseTransport",
    "Transport",
    "mcp_failed",
    "reply_to",
]

MOST_BYTES: Final = 16 * 1024 * 1024
_SHOWN_CHARACTERS: Final = 300

Message = dict[str, Any]


class NotSpoken(Exception):
    """The server does not speak this transport; the other may do."""


class SessionGone(Exception):
    """The server has forgotten the session: it is to be opened anew."""


class Transport(Protocol):
    """Sends messages. `ask` returns the response that has the request's id; what the server asks
    or says meanwhile goes to `heard`, and an answer that it returns is sent back."""

    version: str
    """The protocol's version, once it is agreed on."""

    async def ask(self, message: Message) -> Message: ...

    async def tell(self, message: Message) -> None: ...


def mcp_failed(server: McpServer, what: object) -> ToolFailed:
    """An error that names the server without its URL's secrets."""
    return ToolFailed(f"the MCP server {server.name!r}: {what}", "ToolInvokeError")


class HttpTransport:
    """Streamable HTTP (2025-03-26 and later): each message is a POST, answered by JSON or by a
    stream of events."""

    def __init__(self, server: McpServer, web: StreamingWeb) -> None:
        self._server = server
        self._web = web
        self.session = ""
        self.version = ""

    async def ask(self, message: Message) -> Message:
        """Raises `ToolFailed`, `NotSpoken` for the first message, `SessionGone`."""
        try:
            async with self._web.stream(self._request(message)) as incoming:
                await self._check(incoming, message)
                self.session = _header(incoming, "mcp-session-id") or self.session
                if "text/event-stream" in _header(incoming, "content-type"):
                    return await self._from_events(incoming, message["id"])
                return _response(await _whole(incoming), message["id"])
        except WebFailed as error:
            raise mcp_failed(self._server, error.message) from None
        except (EventTooLong, ValueError) as error:
            raise mcp_failed(self._server, error) from None

    async def tell(self, message: Message) -> None:
        """Send a notification or an answer. Raises `ToolFailed`."""
        try:
            async with self._web.stream(self._request(message)) as incoming:
                if incoming.status == 404 and self.session:
                    raise SessionGone
                if not 200 <= incoming.status < 300:
                    raise mcp_failed(self._server, f"answered {incoming.status}")
        except WebFailed as error:
            raise mcp_failed(self._server, error.message) from None

    async def end(self) -> None:
        """Tell the server that the session is over."""
        if self.session:
            request = self._request({}, method="DELETE")
            try:
                async with self._web.stream(request):
                    pass
            except WebFailed:
                # It will time out there.
                self.session = ""

    async def _check(self, incoming: Incoming, message: Message) -> None:
        status = incoming.status
        if 200 <= status < 300:
            return
        if status == 404 and self.session:
            raise SessionGone
        text = (await _whole(incoming))[:_SHOWN_CHARACTERS].decode("utf-8", "replace")
        if message.get("method") == "initialize" and status in (400, 404, 405, 406):
            raise NotSpoken(f"answered {status}: {text}")
        raise mcp_failed(self._server, f"answered {status}: {text}")

    async def _from_events(self, incoming: Incoming, id: int) -> Message:
        stream = EventStream()
        while data := await incoming.read():
            for event in stream.feed(data):
                heard = _decoded(event.data)
                for one in heard if isinstance(heard, list) else [heard]:
                    if _answers(one, id):
                        return one  # type: ignore[no-any-return]
                    reply = reply_to(one)
                    if reply is not None:
                        await self.tell(reply)
        raise ValueError("its stream ended without an answer")

    def _request(self, message: Message, method: str = "POST") -> WebRequest:
        headers = [
            ("Accept", "application/json, text/event-stream"),
            ("Content-Type", "application/json"),
            *self._server.headers,
        ]
        if self.session:
            headers.append(("Mcp-Session-Id", self.session))
        if self.version:
            headers.append(("MCP-Protocol-Version", self.version))
        return WebRequest(
            method=method,
            url=self._server.url,
            headers=headers,
            content=_written(self._server, message) if message else None,
            read_s=self._server.timeout_s,
            total_s=self._server.timeout_s,
            most_bytes=MOST_BYTES,
        )


class SseTransport:
    """HTTP with SSE (2024-11-05): messages are posted to an address that the server's own stream
    names first; the answers come over that stream."""

    def __init__(self, server: McpServer, web: StreamingWeb, incoming: Incoming) -> None:
        self._server = server
        self._web = web
        self._incoming = incoming
        self._stream = EventStream()
        self._waiting: list[ServerEvent] = []
        self._post_to = ""
        self.version = ""

    @classmethod
    @asynccontextmanager
    async def connected(cls, server: McpServer, web: StreamingWeb) -> AsyncIterator[SseTransport]:
        """Raises `NotSpoken`, and `ToolFailed` for a server that is not there."""
        request = WebRequest(
            method="GET",
            url=server.url,
            headers=[("Accept", "text/event-stream"), *server.headers],
            read_s=server.timeout_s,
            total_s=10 * server.timeout_s,
            most_bytes=MOST_BYTES,
        )
        try:
            async with web.stream(request) as incoming:
                kind = _header(incoming, "content-type")
                if incoming.status != 200 or "text/event-stream" not in kind:
                    raise NotSpoken(f"answered {incoming.status} ({kind or 'of no type'})")
                transport = cls(server, web, incoming)
                await transport._find_endpoint()
                yield transport
        except WebFailed as error:
            raise mcp_failed(server, error.message) from None

    async def _find_endpoint(self) -> None:
        event = await self._next()
        while event.name != "endpoint":
            event = await self._next()
        address = urljoin(self._incoming.url, event.data.strip())
        try:
            same = parse_url(address).origin == parse_url(self._incoming.url).origin
        except Refused:
            same = False
        if not same:
            raise mcp_failed(self._server, "wants its messages sent to another origin")
        self._post_to = address

    async def ask(self, message: Message) -> Message:
        """Raises `ToolFailed`."""
        with trio.move_on_after(self._server.timeout_s):
            await self.tell(message)
            while True:
                heard = self._heard(await self._next())
                if _answers(heard, message["id"]):
                    return heard  # type: ignore[no-any-return]
                reply = reply_to(heard)
                if reply is not None:
                    await self.tell(reply)
        raise mcp_failed(self._server, f"no answer within {self._server.timeout_s:g} s")

    async def tell(self, message: Message) -> None:
        """Raises `ToolFailed`."""
        request = WebRequest(
            method="POST",
            url=self._post_to,
            headers=[("Content-Type", "application/json"), *self._server.headers],
            content=_written(self._server, message),
            read_s=self._server.timeout_s,
            total_s=self._server.timeout_s,
            follow_redirects=False,
        )
        try:
            answer = await self._web.send(request)
        except WebFailed as error:
            raise mcp_failed(self._server, error.message) from None
        if not 200 <= answer.status < 300:
            raise mcp_failed(self._server, f"answered {answer.status} to a message")

    def _heard(self, event: ServerEvent) -> Any:
        try:
            return _decoded(event.data)
        except TooLarge as error:
            raise mcp_failed(self._server, error) from None

    async def _next(self) -> ServerEvent:
        while not self._waiting:
            try:
                data = await self._incoming.read()
                self._waiting += self._stream.feed(data)
            except WebFailed as error:
                raise mcp_failed(self._server, error.message) from None
            except EventTooLong as error:
                raise mcp_failed(self._server, error) from None
            if not data and not self._waiting:
                raise mcp_failed(self._server, "its stream ended without an answer")
        return self._waiting.pop(0)


def reply_to(heard: Any) -> Message | None:
    """What a server that asks something is told: pings are answered, nothing else is offered."""
    if not isinstance(heard, dict) or "method" not in heard or heard.get("id") is None:
        return None
    if heard["method"] == "ping":
        return {"jsonrpc": "2.0", "id": heard["id"], "result": {}}
    error = {"code": -32601, "message": "Method not found"}
    return {"jsonrpc": "2.0", "id": heard["id"], "error": error}


def _answers(heard: Any, id: int) -> bool:
    return isinstance(heard, dict) and heard.get("id") == id and "method" not in heard


def _written(server: McpServer, message: Message) -> bytes:
    try:
        return json_bytes(message)
    except ValueError as error:
        raise mcp_failed(server, error) from None


def _decoded(text: str) -> Any:
    """None for what is no message. Raises `TooLarge`."""
    try:
        return read_json(text, MOST_BODY_BYTES)
    except TooLarge:
        raise
    except ValueError:
        return None


def _response(content: bytes, id: int) -> Message:
    try:
        found = read_json(content, MOST_BODY_BYTES)
    except TooLarge:
        raise
    except ValueError as error:
        raise ValueError(f"its answer is no JSON: {error}") from None
    for one in found if isinstance(found, list) else [found]:
        if _answers(one, id):
            return one  # type: ignore[no-any-return]
    raise ValueError("its answer is not to what was asked")


async def _whole(incoming: Incoming) -> bytes:
    parts = []
    while data := await incoming.read():
        parts.append(data)
    return b"".join(parts)


def _header(incoming: Incoming, wanted: str) -> str:
    return next((value for name, value in incoming.headers if name == wanted), "")
