"""What native tools need of the operator before they work, by the key of their provider. Pure data.

The tools themselves refuse to run without; this says so when an app is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["missing_credential"]

_ANY_OF: Final[dict[str, tuple[str, ...]]] = {
    "audio": ("base_url", "openai_base_url"),
    "dalle": ("openai_api_key", "api_key", "openai_base_url", "base_url"),
    "firecrawl": ("firecrawl_api_key", "base_url"),
    "google": ("serpapi_api_key",),
    "mcp_config": ("servers_config",),
    "mcp_sse": ("servers_config",),
    "openai": ("openai_api_key", "api_key", "openai_base_url", "base_url"),
    "openai_tool": ("openai_api_key", "api_key", "openai_base_url", "base_url"),
    "slack": ("webhook_url",),
    "searxng": ("searxng_base_url", "base_url"),
    "tavily": ("tavily_api_key",),
    "wecom": ("hook_key",),
}
"""One of these settings is enough; the first is the one to suggest."""


_OF_TOOLS: Final[dict[tuple[str, str], tuple[str, ...]]] = {("jina", "jina_search"): ("api_key",)}
"""What only this tool of a provider needs."""


def missing_credential(native_key: str, tool: str, settings: Mapping[str, Any]) -> str | None:
    """The setting to bind for a tool of a provider; None if there is nothing to bind."""
    names = _OF_TOOLS.get((native_key, tool)) or _ANY_OF.get(native_key, ())
    if not names or any(settings.get(name) for name in names):
        return None
    return names[0]
