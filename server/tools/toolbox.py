"""`Toolbox`: finds the tool that a graph or an agent names.

In order: what the app's bindings, and then the configuration's, say of it (an OpenAPI document, an
MCP server, a workflow); the native tools; what installed packages add. What nobody has is an error
that names the binding which would supply it.
"""

from __future__ import annotations

import importlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple

import trio

from server.tools.bindings import binding_of, short_name
from server.tools.mcp import McpProvider
from server.tools.mcp_config import McpServer, mcp_servers
from server.tools.native import NATIVE
from server.tools.native.operator_settings import OperatorSettings
from server.tools.openapi import MOST_BYTES, Document, DocumentError, parse, read_document
from server.tools.openapi_calls import OpenApiTool, read_auth
from server.tools.plugins import Plugins
from server.tools.workflow_tools import Workflows, WorkflowTool
from server.web.streams import StreamingWeb
from server.workflow.app import ToolRef
from server.workflow.node import NodeRun
from server.workflow.services import (
    Tool,
    ToolFailed,
    ToolOutput,
    WebFailed,
    WebRequest,
)

__all__ = ["Toolbox"]

MOST_PROVIDERS: Final = 128
"""Documents and sessions that are kept; those used longest ago go first."""

FRESH_S: Final = 600.0
"""How long a document counts as fresh."""

_ENDING_S: Final = 2.0
_NATIVE: Final = "server.tools.native"


class Toolbox:
    """`services.Tools`, for as long as its `async with` lasts."""

    def __init__(
        self,
        web: StreamingWeb,
        *,
        bindings: Mapping[str, Mapping[str, Any]] | None = None,
        workflows: Workflows | None = None,
        native: Mapping[str, str] = NATIVE,
        plugins: Plugins | None = None,
    ) -> None:
        """`bindings` are the configuration's, for all apps: those of an app count before them."""
        self._web = web
        self._bindings = bindings or {}
        self.workflows = workflows
        self._native = native
        self._plugins = plugins or Plugins()
        self._native_tools: dict[str, list[Tool]] = {}
        self._mcp: OrderedDict[tuple[str, McpServer, bool], McpProvider] = OrderedDict()
        self._documents: OrderedDict[tuple[str, str], _Read] = OrderedDict()
        self._loading = trio.Lock()

    async def __aenter__(self) -> Toolbox:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ends the sessions at MCP servers, if they take it at once."""
        providers = list(self._mcp.values())
        self._mcp.clear()
        with trio.move_on_after(_ENDING_S, shield=True):
            async with trio.open_nursery() as nursery:
                for provider in providers:
                    nursery.start_soon(provider.end)

    async def find(self, tool: ToolRef, run: NodeRun) -> Tool:
        """See `services.Tools`."""
        tools = await self._tools_of(tool, run)
        if tools is None:
            raise _unbound(tool)
        found = next((one for one in tools if one.name == tool.name), None)
        if found is None:
            offered = ", ".join(sorted(one.name for one in tools)[:20])
            raise ToolFailed(
                f"the provider {tool.provider_id!r} has no tool {tool.name!r}; it has {offered}",
                "ToolNotFound",
            )
        return found

    async def all_of(self, provider: ToolRef, run: NodeRun) -> list[Tool]:
        """See `services.Tools`."""
        tools = await self._tools_of(provider, run)
        if tools is None:
            raise _unbound(provider)
        return tools

    async def mcp_tools(self, config: Any, run: NodeRun, *, trusted: bool = False) -> list[Tool]:
        """The tools of servers that a graph names itself, in `mcp_server` or
        `mcp_servers_config` of an agent: under the guard like any URL of a file, unless the
        operator named them. Raises `ToolFailed`."""
        found: list[Tool] = []
        for server in mcp_servers(config):
            found += await self._mcp_provider(server, run, trusted=trusted).tools()
        return found

    async def _tools_of(self, tool: ToolRef, run: NodeRun) -> list[Tool] | None:
        settings = binding_of(tool, self._bindings, run.run.app.bindings.tools)
        tools = await self._bound(tool, settings, run)
        if tools is None:
            tools = await self._installed(tool)
        if tools is None:
            return None
        return [_Bound(one, settings) for one in tools] if settings else tools

    async def _bound(
        self, tool: ToolRef, settings: dict[str, Any], run: NodeRun
    ) -> list[Tool] | None:
        """What the bindings make of it."""
        if settings.get("openapi"):
            document, web = await self._document(settings, run)
            auth = read_auth(settings)
            return [OpenApiTool(one, auth, web) for one in document.operations.values()]
        if settings.get("mcp"):
            found: list[Tool] = []
            for server in mcp_servers(_mcp_config(settings)):
                found += await self._mcp_provider(server, run, trusted=True).tools()
            return found
        if settings.get("workflow") or tool.provider_type in ("workflow", "app"):
            return self._workflow(tool, str(settings.get("workflow") or ""))
        return None

    def _workflow(self, tool: ToolRef, bound_to: str) -> list[Tool] | None:
        if self.workflows is None:
            return None
        for id in (bound_to,) if bound_to else (tool.provider_id, tool.name):
            app = self.workflows.app(id)
            if app is not None:
                return [WorkflowTool(app, self.workflows, tool.name)]
        return None

    async def _installed(self, tool: ToolRef) -> list[Tool] | None:
        """Native tools, then those of plugins, by the whole id first."""
        if tool.provider_type in ("api", "mcp", "workflow", "app"):
            return None
        keys = dict.fromkeys((tool.provider_id, short_name(tool.provider_id)))
        for key in keys:
            if key in self._native:
                return await self._native_of(key)
        async with self._loading:
            for key in keys:
                found = await trio.to_thread.run_sync(self._plugins.tools, key)
                if found is not None:
                    return found
        return None

    async def _native_of(self, key: str) -> list[Tool]:
        async with self._loading:
            if key not in self._native_tools:
                module, _, name = self._native[key].partition(":")
                self._native_tools[key] = await trio.to_thread.run_sync(_load, module, name)
        return self._native_tools[key]

    def _mcp_provider(self, server: McpServer, run: NodeRun, trusted: bool) -> McpProvider:
        """A server's session, apart for each app: what a session remembers stays with the app."""
        key = (run.run.app.id, server, trusted)
        provider = self._mcp.get(key)
        if provider is None:
            web = self._trusting(server.url) if trusted else self._web
            provider = self._mcp[key] = McpProvider(server, web)
            while len(self._mcp) > MOST_PROVIDERS:
                self._mcp.popitem(last=False)
        self._mcp.move_to_end(key)
        return provider

    async def _document(
        self, settings: Mapping[str, Any], run: NodeRun
    ) -> tuple[Document, StreamingWeb]:
        """An OpenAPI document, and what its requests go through."""
        given, base_url = settings["openapi"], str(settings.get("base_url") or "").rstrip("/")
        found_at = given if isinstance(given, str) and _is_url(given) else ""
        web = self._trusting(found_at, base_url)
        key = (given if isinstance(given, str) else f"at {id(given)}", base_url)
        read = self._documents.get(key)
        if read is None or not read.is_of(given) or read.at < trio.current_time() - FRESH_S:
            text = await self._text(given, web)
            document = await _read(text, base_url, found_at)
            read = self._documents[key] = _Read(given, document, trio.current_time())
            while len(self._documents) > MOST_PROVIDERS:
                self._documents.popitem(last=False)
        document = read.document
        if not found_at and not base_url:
            # The operator wrote it down here: the servers that it names are the operator's word.
            web = self._trusting(*{one.server for one in document.operations.values()})
        return document, web

    async def _text(self, given: Any, web: StreamingWeb) -> Any:
        """The document's text, wherever it is; a mapping is the document itself."""
        if not isinstance(given, str):
            return given
        if _is_url(given):
            return await _fetched(given, web)
        if "\n" in given or given.lstrip()[:1] == "{":
            return given
        path = Path(given.removeprefix("file:").removeprefix("//"))
        try:
            return await trio.to_thread.run_sync(_read_file, path)
        except OSError as error:
            raise ToolFailed(f"the OpenAPI document: {error}", "ToolProviderError") from None

    def _trusting(self, *urls: str) -> StreamingWeb:
        try:
            return self._web.trusting(*(url for url in urls if _is_url(url)))
        except ValueError as error:
            raise ToolFailed(f"the tool's server: {error}", "ToolProviderError") from None


class _Read(NamedTuple):
    """A document that was read, what from, and when."""

    given: Any
    document: Document
    at: float

    def is_of(self, given: Any) -> bool:
        """Texts are the same by what they say, mappings only if they are one: the place of one
        that is gone may be another's."""
        return self.given is given or (isinstance(given, str) and given == self.given)


class _Bound:
    """A tool with the operator's settings, which count before the graph's."""

    def __init__(self, tool: Tool, settings: dict[str, Any]) -> None:
        self._tool = tool
        self._settings = settings

    @property
    def name(self) -> str:
        return self._tool.name

    @property
    def description(self) -> str:
        return self._tool.description

    @property
    def schema(self) -> dict[str, Any]:
        return self._tool.schema

    async def call(
        self, arguments: dict[str, Any], settings: dict[str, Any], run: NodeRun
    ) -> ToolOutput:
        return await self._tool.call(arguments, OperatorSettings(settings, self._settings), run)


def _load(module: str, name: str) -> list[Tool]:
    return list(getattr(importlib.import_module(f"{_NATIVE}.{module}"), name)())


def _is_url(text: str) -> bool:
    return text.lower().startswith(("http://", "https://"))


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MOST_BYTES + 1)


async def _read(given: Any, base_url: str, found_at: str) -> Document:
    """In a thread: large documents take a while."""

    def read() -> Document:
        data = parse(given) if isinstance(given, str | bytes) else given
        return read_document(data, base_url, found_at)

    try:
        return await trio.to_thread.run_sync(read, abandon_on_cancel=True)
    except DocumentError as error:
        raise ToolFailed(f"the OpenAPI document: {error}", "ToolProviderError") from None


async def _fetched(url: str, web: StreamingWeb) -> bytes:
    try:
        answer = await web.send(WebRequest(method="GET", url=url, most_bytes=MOST_BYTES))
    except WebFailed as error:
        raise ToolFailed(f"the OpenAPI document: {error.message}", "ToolProviderError") from None
    if answer.status != 200:
        raise ToolFailed(
            f"the OpenAPI document: its server answered {answer.status}", "ToolProviderError"
        )
    return answer.content


def _mcp_config(settings: Mapping[str, Any]) -> Any:
    """`mcp = "https://..."` with what goes with it, or a whole configuration."""
    given = settings["mcp"]
    if not isinstance(given, str) or not _is_url(given):
        return given
    config: dict[str, Any] = {"url": given, "headers": dict(_headers(settings))}
    return config | {key: settings[key] for key in ("timeout", "transport") if key in settings}


def _headers(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """`headers`, a mapping or the JSON text of one, and the credential that goes in a header."""
    headers = settings.get("headers")
    if isinstance(headers, str):
        try:
            headers = json.loads(headers)
        except ValueError as error:
            raise ToolFailed(f"headers of a tool: {error}", "ToolProviderError") from None
    if isinstance(headers, Mapping):
        yield from ((str(name), str(value)) for name, value in headers.items())
    auth = read_auth(settings)
    if auth.kind == "header":
        yield auth.name, auth.value


def _unbound(tool: ToolRef) -> ToolFailed:
    key = tool.provider_id
    needs = {
        "api": f"tool:{key}.openapi, the URL or the file of its OpenAPI document",
        "mcp": f"tool:{key}.mcp, the URL of the MCP server",
        "workflow": f"tool:{key}.workflow, the id or name of an imported app",
        "app": f"tool:{key}.workflow, the id or name of an imported app",
    }
    usual = f"tool:{key}.openapi, .mcp or .workflow, or a package that provides it"
    named = f"{key}:{tool.name}" if tool.name else key
    return ToolFailed(
        f"there is no tool {named!r} here; it needs the binding "
        f"{needs.get(tool.provider_type, usual)}",
        "ToolNotFound",
    )
