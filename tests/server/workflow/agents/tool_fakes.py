"""Tools that do what a test says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from server.workflow.app import ToolRef
from server.workflow.node import NodeRun
from server.workflow.services import Tool, ToolFailed, ToolOutput


class FakeTool:
    """Answers with `does`: a text, an output, a failure, or a function of its arguments."""

    def __init__(
        self,
        name: str,
        does: str
        | ToolOutput
        | Exception
        | Callable[[dict[str, Any]], Awaitable[ToolOutput]] = "done",
        *,
        schema: dict[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.description = f"It does {name}."
        self.schema = schema or {
            "type": "object",
            "properties": {"q": {"type": "string"}, "n": {"type": "integer"}},
            "required": ["q"],
        }
        self._does = does
        self.calls: list[tuple[dict[str, Any], dict[str, Any]]] = []

    async def call(
        self, arguments: dict[str, Any], settings: dict[str, Any], run: NodeRun
    ) -> ToolOutput:
        self.calls.append((arguments, settings))
        if isinstance(self._does, Exception):
            raise self._does
        if isinstance(self._does, ToolOutput):
            return self._does
        if isinstance(self._does, str):
            return ToolOutput(text=self._does)
        return await self._does(arguments)


class FakeTools:
    """`services.Tools` of some tools; `servers` are what MCP was asked for."""

    def __init__(self, *tools: FakeTool, mcp: tuple[FakeTool, ...] = ()) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._mcp = mcp
        self.found: list[ToolRef] = []
        self.servers: list[Any] = []

    async def find(self, tool: ToolRef, run: NodeRun) -> Tool:
        self.found.append(tool)
        if tool.name not in self._tools:
            raise ToolFailed(f"there is no tool {tool.key}", "ToolNotFound")
        return self._tools[tool.name]

    async def all_of(self, provider: ToolRef, run: NodeRun) -> list[Tool]:
        return list(self._tools.values())

    async def mcp_tools(self, servers: Any, run: NodeRun, *, trusted: bool = False) -> list[Tool]:
        self.servers.append(servers)
        return list(self._mcp)
