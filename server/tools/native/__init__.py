"""The tools that Triolet brings itself, one module per provider.

A module is imported when an app first uses its provider. A provider's key is the last part of the
id that exports give ("time", and "tavily" for "langgenius/tavily/tavily") or the whole id, which is
looked up first. The function takes nothing and returns the provider's tools; they are asked for
once.
"""

from __future__ import annotations

from typing import Final

__all__ = ["NATIVE"]

NATIVE: Final[dict[str, str]] = {
    "audio": "audio:tools",
    "dalle": "images:dalle_tools",
    "duckduckgo": "duckduckgo:tools",
    "file_tools": "small_tools:file_tools",
    "firecrawl": "firecrawl:tools",
    "google": "google:tools",
    "google_translate": "google_translate:tools",
    "jina": "jina:tools",
    "jina_tool": "jina:tools",
    "json_process": "json_process:tools",
    "maths": "maths:tools",
    "mcp_config": "mcp_meta:mcp_config_tools",
    "mcp_sse": "mcp_meta:mcp_sse_tools",
    "md_exporter": "markdown_files:tools",
    "openai": "images:openai_tools",
    "openai_tool": "images:openai_tools",
    "regex": "regex:tools",
    "rookie_rss": "feeds:tools",
    "searxng": "searxng:tools",
    "slack": "messengers:slack_tools",
    "tavily": "tavily:tools",
    "think": "small_tools:think_tools",
    "time": "clock:tools",
    "webscraper": "webscraper:tools",
    "wecom": "messengers:wecom_tools",
    "wikipedia": "wikipedia:tools",
}
"""Provider key to "module:function", the module's name below this package."""
