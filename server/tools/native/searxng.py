"""searxng: a web search of one's own."""

from __future__ import annotations

from typing import Final

from server.tools.native.given import Given
from server.tools.native.native_tool import NativeTool, arguments
from server.tools.native.requests import ask_json
from server.workflow.services import Tool, ToolOutput

__all__ = ["tools"]

_KINDS: Final = ("general", "images", "videos", "news", "map", "music", "it", "science", "files")
_MOST: Final = 50


def tools() -> list[Tool]:
    schema = arguments({"query": "What to search for."}, ("query",))
    told = "Searches the web by several search engines at once."
    return [NativeTool("searxng", "searxng_search", told, schema, _search)]


async def _search(given: Given) -> ToolOutput:
    base = given.base_url("", "searxng_base_url")
    if not base:
        raise given.unbound("searxng_base_url")
    kind = given.text("search_type", "general").lower()
    query = {
        "q": given.text("query"),
        "format": "json",
        "categories": kind if kind in _KINDS else "general",
        "time_range": given.value("time_range"),
    }
    path = "" if base.endswith("/search") else "/search"
    found = await ask_json(given, "GET", base + path, query=query)
    results = [item for item in found.get("results") or [] if isinstance(item, dict)]
    if not results:
        return ToolOutput(text=f"No results found for {given.text('query')!r}.")
    return ToolOutput(json=results[:_MOST])
