"""MCP servers as providers of tools: the session, its list of tools, calls and what they return."""

from __future__ import annotations

import base64
import binascii
import contextlib
import itertools
import mimetypes
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import trio

from server import __version__
from server.tools.mcp_config import McpServer
from server.tools.mcp_transport import (
    HttpTransport,
    NotSpoken,
    SessionGone,
    SseTransport,
    Transport,
    mcp_failed,
)
from server.web.streams import StreamingWeb
from server.workflow.large_json import json_text, read_json
from server.workflow.node import NodeRun
from server.workflow.services import Files, ServiceFailed, ToolFailed, ToolOutput
from server.workflow.sizes import TooLarge
from server.workflow.tool_arguments import coerced
from server.workflow.values import plain

__all__ = ["McpProvider", "McpTool"]

VERSION: Final = "2025-06-18"
LIST_S: Final = 60.0
"""How long a list of tools counts as fresh."""

MOST_TOOLS: Final = 1000
T = TypeVar("T")

_MOST_PAGES: Final = 50
_TELLING_S: Final = 1.0


class McpProvider:
    """One server. Over streamable HTTP there is one session for all calls; over the older
    transport each call opens its own, and closes it."""

    def __init__(self, server: McpServer, web: StreamingWeb) -> None:
        self.server = server
        self._web = web
        self._ids = itertools.count(1)
        self._opening = trio.Lock()
        self._http: HttpTransport | None = None
        self._kind: str = server.transport
        self._tools: list[McpTool] = []
        self._listed_at = -LIST_S

    async def tools(self) -> list[McpTool]:
        """What the server offers. Raises `ToolFailed`."""
        async with self._opening:
            if trio.current_time() - self._listed_at >= LIST_S:
                self._tools = await self._repeated(self._list)
                self._listed_at = trio.current_time()
        return self._tools

    async def call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """The result of a call. A cancelled one is called off at the server too. Raises
        `ToolFailed`."""

        async def ask(transport: Transport) -> dict[str, Any]:
            parameters = {"name": name, "arguments": arguments}
            return await self._ask(transport, "tools/call", parameters, call_off=True)

        return await self._repeated(ask)

    async def end(self) -> None:
        """Close the session."""
        if self._http is not None:
            http, self._http = self._http, None
            await http.end()

    async def _repeated(self, ask: Callable[[Transport], Awaitable[T]]) -> T:
        """Ask, and once more in a new session if the server has forgotten the old one."""
        for last in (False, True):
            try:
                async with self._session() as transport:
                    return await ask(transport)
            except SessionGone:
                self._http = None
                if last:
                    raise mcp_failed(self.server, "keeps no session") from None
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Transport]:
        """A transport on which `initialize` was said."""
        fault: object = ""
        for kind in self._kinds():
            try:
                if kind == "http":
                    self._http = self._http or await self._opened()
                    self._kind = kind
                    yield self._http
                    return
                async with SseTransport.connected(self.server, self._web) as transport:
                    await self._initialize(transport)
                    self._kind = kind
                    yield transport
                    return
            except NotSpoken as error:
                fault = error
        raise mcp_failed(self.server, f"speaks neither HTTP nor SSE ({fault})")

    def _kinds(self) -> tuple[str, ...]:
        """Those to be tried, in turn."""
        if self._kind != "unknown":
            return (self._kind,)
        older = self.server.url.partition("?")[0].rstrip("/").endswith("/sse")
        return ("sse", "http") if older else ("http", "sse")

    async def _opened(self) -> HttpTransport:
        transport = HttpTransport(self.server, self._web)
        await self._initialize(transport)
        return transport

    async def _initialize(self, transport: Transport) -> None:
        answer = await self._ask(
            transport,
            "initialize",
            {
                "protocolVersion": VERSION,
                "capabilities": {},
                "clientInfo": {"name": "triolet", "version": __version__},
            },
        )
        transport.version = str(answer.get("protocolVersion") or VERSION)
        await transport.tell({"jsonrpc": "2.0", "method": "notifications/initialized"})

    async def _ask(
        self,
        transport: Transport,
        method: str,
        parameters: dict[str, Any],
        *,
        call_off: bool = False,
    ) -> dict[str, Any]:
        id = next(self._ids)
        message = {"jsonrpc": "2.0", "id": id, "method": method, "params": parameters}
        try:
            answer = await transport.ask(message)
        except trio.Cancelled:
            if call_off:
                await _call_off(transport, id)  # noqa: ASYNC102 - shielded there, with a deadline
            raise
        error = answer.get("error")
        if isinstance(error, dict):
            raise mcp_failed(self.server, f"{method}: {error.get('message') or error}")
        result = answer.get("result")
        if not isinstance(result, dict):
            raise mcp_failed(self.server, f"answered {method} without a result")
        return result

    async def _list(self, transport: Transport) -> list[McpTool]:
        found: list[McpTool] = []
        parameters: dict[str, Any] = {}
        for _ in range(_MOST_PAGES):
            page = await self._ask(transport, "tools/list", parameters)
            listed = page.get("tools")
            for data in listed if isinstance(listed, list) else ():
                if isinstance(data, dict) and isinstance(data.get("name"), str):
                    found.append(McpTool(self, data))
            if not page.get("nextCursor") or len(found) >= MOST_TOOLS:
                break
            parameters = {"cursor": page["nextCursor"]}
        return found[:MOST_TOOLS]


async def _call_off(transport: Transport, id: int) -> None:
    message = {
        "jsonrpc": "2.0",
        "method": "notifications/cancelled",
        "params": {"requestId": id, "reason": "the run was cancelled"},
    }
    with trio.move_on_after(_TELLING_S, shield=True), contextlib.suppress(ToolFailed, SessionGone):
        await transport.tell(message)


class McpTool:
    """One tool of a server."""

    def __init__(self, provider: McpProvider, data: dict[str, Any]) -> None:
        self._provider = provider
        schema = data.get("inputSchema")
        self.name = str(data["name"])
        self.description = str(data.get("description") or data.get("title") or "")
        self.schema: dict[str, Any] = schema if isinstance(schema, dict) else {"type": "object"}

    async def call(
        self, arguments: dict[str, Any], settings: dict[str, Any], run: NodeRun
    ) -> ToolOutput:
        properties = self.schema.get("properties")
        known = properties if isinstance(properties, dict) else {}
        given = {name: value for name, value in settings.items() if name in known} | arguments
        result = await self._provider.call(self.name, plain(coerced(given, self.schema)))
        try:
            return _output(self, result, run)
        except TooLarge as error:
            raise ToolFailed(f"{self.name}: its answer: {error}", "ToolInvokeError") from None


def _output(tool: McpTool, result: dict[str, Any], run: NodeRun) -> ToolOutput:
    output = ToolOutput(files=[], json=[], variables={})
    content = result.get("content")
    texts = []
    for item in content if isinstance(content, list) else ():
        if isinstance(item, dict):
            text = _take(item, output, run)
            if text:
                texts.append(text)
    structured = result.get("structuredContent")
    if isinstance(structured, dict):
        output.json = [structured]
        output.variables = {
            str(name): value
            for name, value in structured.items()
            if name not in ("text", "files", "json")
        }
        texts = texts or [json_text(structured)]
    output.text = "\n".join(texts)
    if result.get("isError"):
        raise ToolFailed(output.text or f"{tool.name} failed", "ToolInvokeError")
    return output


def _take(item: dict[str, Any], output: ToolOutput, run: NodeRun) -> str:
    """One item of a result: its text, or its file into the output."""
    kind = item.get("type")
    if kind == "text":
        text = str(item.get("text", ""))
        output.json += _objects(text)
        return text
    if kind in ("image", "audio"):
        _keep(item.get("data"), item.get("mimeType"), str(kind), output, run.run.services.files)
    if kind == "resource_link":
        return f"[{item.get('name') or ''}]({item.get('uri') or ''})"
    resource = item.get("resource") if kind == "resource" else None
    if isinstance(resource, dict) and "blob" in resource:
        name = str(resource.get("uri", "")).rpartition("/")[2]
        _keep(resource["blob"], resource.get("mimeType"), name, output, run.run.services.files)
    elif isinstance(resource, dict):
        return str(resource.get("text", ""))
    return ""


def _objects(text: str) -> list[Any]:
    """A text that is JSON is given as `json` too. Raises `TooLarge`."""
    if text.lstrip()[:1] not in ("{", "["):
        return []
    try:
        found = read_json(text)
    except TooLarge:
        raise
    except ValueError:
        return []
    items = found if isinstance(found, list) else [found]
    return items if all(isinstance(one, dict) for one in items) else []


def _keep(data: Any, mime_type: Any, name: str, output: ToolOutput, files: Files) -> None:
    try:
        content = base64.b64decode(str(data), validate=True)
    except (binascii.Error, ValueError):
        raise ToolFailed(f"{name}: its data is no base64", "ToolInvokeError") from None
    kind = str(mime_type or "application/octet-stream")
    if "." not in name:
        name += mimetypes.guess_extension(kind) or ".bin"
    try:
        output.files.append(files.keep(content, name=name, mime_type=kind))
    except ServiceFailed as error:
        raise ToolFailed(error.message, error.type) from None
