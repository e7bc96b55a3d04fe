"""mcp_sse and mcp_config: tools that list and call the tools of MCP servers, for agents that were
written before agents could have those tools themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.tools.native.given import Given
from server.tools.native.native_tool import NativeTool, arguments
from server.workflow.large_json import json_text
from server.workflow.services import Tool, ToolFailed, ToolOutput

__all__ = ["mcp_config_tools", "mcp_sse_tools"]


def mcp_sse_tools() -> list[Tool]:
    return _tools("mcp_sse", "mcp_sse_list_tools", "mcp_sse_call_tool")


def mcp_config_tools() -> list[Tool]:
    return _tools("mcp_config", "mcp_list_tools", "mcp_call_tool")


def _tools(provider: str, listing: str, calling: str) -> list[Tool]:
    called = arguments(
        {
            "tool_name": "The tool, by the name it was listed under.",
            "arguments": "Its arguments, as the text of a JSON object.",
        },
        ("tool_name", "arguments"),
    )
    return [
        NativeTool(
            provider, listing, "Lists the tools of the MCP servers.", arguments({}), _listed
        ),
        NativeTool(provider, calling, "Calls a tool of the MCP servers.", called, _called),
    ]


async def _all(given: Given) -> list[Tool]:
    servers, trusted = given.value("servers_config"), given.is_of_operator("servers_config")
    if not isinstance(servers, Mapping | list):
        servers = given.credential("servers_config")
    return await given.services.tools.mcp_tools(servers, given.run, trusted=trusted)


async def _listed(given: Given) -> ToolOutput:
    described = [
        {"name": tool.name, "description": tool.description, "parameters": tool.schema}
        for tool in await _all(given)
    ]
    try:
        return ToolOutput(text=json_text(described))
    except ValueError as error:
        raise ToolFailed(f"the MCP servers' tools: {error}", "ToolInvokeError") from None


async def _called(given: Given) -> ToolOutput:
    name = given.text("tool_name")
    for tool in await _all(given):
        if tool.name == name:
            told: dict[str, Any] = given.table("arguments")
            return await tool.call(told, {}, given.run)
    raise ToolFailed(f"no MCP server here has a tool named {name[:80]!r}", "ToolInvokeError")
