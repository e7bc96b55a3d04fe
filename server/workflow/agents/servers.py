"""The MCP servers of an agent's strategy: each brings all of its tools. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["SERVER_KEYS", "servers_of"]

SERVER_KEYS: Final = (
    "mcp_server",
    "mcp_servers",
    "mcp_servers_config",
    "servers_config",
    "mcp_config",
)
"""How the strategies of `hjlarry/agent` and `junjiem/mcp_see_agent` call the parameter. What it
holds may be a credential."""


def servers_of(inputs: Mapping[str, Any]) -> list[Any]:
    """What `Tools.mcp_tools` is asked for: URLs, or JSON of {name: {url, headers, ...}}."""
    return [inputs[key] for key in SERVER_KEYS if inputs.get(key)]
