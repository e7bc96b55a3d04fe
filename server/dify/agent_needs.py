"""What an agent node calls: its tools, its MCP servers, and whether its strategy is known. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

from server.dify.report import Findings, McpNeed
from server.dify.shapes import at, items, mapping, text
from server.dify.tool_needs import ToolUse
from server.tools.mcp_config import mcp_servers
from server.workflow.agents.servers import servers_of
from server.workflow.app import NodeSpec, ToolRef
from server.workflow.services import ToolFailed

__all__ = ["AgentNeeds", "agent_needs"]


class AgentNeeds(msgspec.Struct):
    tools: list[ToolUse]
    servers: list[McpNeed]


def agent_needs(node: NodeSpec, findings: Findings) -> AgentNeeds:
    """Look through an agent node; its model is found where all models are."""
    if node.data.get("agent_node_kind") or node.data.get("agent_binding"):
        message = "agents of Dify's own runtime (version 2 of the node) do not run here"
        findings.add("unsupported", "agent", node.place, message)
        return AgentNeeds([], [])
    name = text(node.data.get("agent_strategy_name"))
    if not _is_known(name):
        place = at(node, "agent_strategy_name")
        message = f"the strategy {name!r} is a plugin's; function_calling and ReAct are known here"
        findings.add("unsupported", "strategy", place, message)
    parameters = mapping(node.data.get("agent_parameters"))
    return AgentNeeds(list(_tools(node, parameters)), list(_servers(node, parameters, findings)))


def _tools(node: NodeSpec, parameters: Any) -> Iterator[ToolUse]:
    path = "agent_parameters.tools.value"
    for number, tool in enumerate(items(mapping(parameters.get("tools")).get("value"))):
        found = mapping(tool)
        if not found.get("enabled", True) or not text(found.get("tool_name")):
            continue
        name = text(found.get("provider_name"))
        kind = text(found.get("provider_type")) or text(found.get("type")) or "builtin"
        provider = text(found.get("provider_id")) or name
        ref = ToolRef(kind, provider, text(found.get("tool_name")), name)
        yield ToolUse(ref, at(node, f"{path}[{number}]"))


def _is_known(strategy: str) -> bool:
    """Whether agent nodes here have a strategy of this name, whoever's plugin it was."""
    plain = strategy.lower()
    return plain in ("", "auto", "router") or any(
        word in plain for word in ("function", "react", "cot")
    )


def _servers(node: NodeSpec, parameters: Any, findings: Findings) -> Iterator[McpNeed]:
    told = {name: mapping(parameter).get("value") for name, parameter in parameters.items()}
    for name, value in told.items():
        place = at(node, f"agent_parameters.{name}.value")
        for config in servers_of({name: value}):
            if "{{#" in str(config):
                continue
            try:
                found = mcp_servers(config)
            except ToolFailed as exc:
                findings.add("unsupported", "mcp", place, exc.message)
                continue
            for server in found:
                yield McpNeed(url=_without_query(server.url), place=place)


def _without_query(url: str) -> str:
    """Keys of MCP servers stand in their queries."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, host, parts.path, "", ""))[:500]
    except ValueError:
        return ""
