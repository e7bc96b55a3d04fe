"""tavily: a web search made for models."""

from __future__ import annotations

from typing import Any, Final

from server.tools.native.given import Given
from server.tools.native.native_tool import NativeTool, arguments
from server.tools.native.requests import ask_json
from server.workflow.services import Tool, ToolOutput

__all__ = ["tools"]

_FLAGS: Final = ("include_images", "include_image_descriptions", "include_favicon")
_LEVELS: Final = ("include_answer", "include_raw_content")


def tools() -> list[Tool]:
    return [
        NativeTool(
            "tavily",
            "tavily_search",
            "Searches the web and gives the passages that bear on the question.",
            arguments(
                {
                    "query": "What to search for.",
                    "search_depth": "How thorough the search is.",
                    "topic": "What kind of pages to search.",
                    "time_range": "How old a page may be.",
                    "include_domains": "Search only these domains; commas between them.",
                    "exclude_domains": "Leave out these domains; commas between them.",
                },
                ("query",),
                {
                    "search_depth": ("basic", "advanced"),
                    "topic": ("general", "news", "finance"),
                    "time_range": ("not_specified", "day", "week", "month", "year"),
                },
            ),
            _search,
        ),
        NativeTool(
            "tavily",
            "tavily_extract",
            "Reads web pages and gives their text.",
            arguments({"urls": "Addresses of pages, commas between them; 20 at most."}, ("urls",)),
            _extract,
        ),
    ]


async def _ask(given: Given, path: str, body: dict[str, Any]) -> dict[str, Any]:
    base = given.base_url("https://api.tavily.com", "tavily_base_url")
    key = given.credential("tavily_api_key")
    return await ask_json(
        given, "POST", base + path, headers=[("authorization", f"Bearer {key}")], body=body
    )


def _items(found: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The objects of a list; what is none is left out."""
    items = found.get(name)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


async def _search(given: Given) -> ToolOutput:
    found = await _ask(given, "/search", _search_body(given))
    results = _items(found, "results")
    if not results:
        return ToolOutput(text=f"No results found for '{given.text('query')}' in Tavily.")
    lines = [f"**Answer:** {found['answer']}\n"] if found.get("answer") else []
    lines += [_result(number, item) for number, item in enumerate(results, 1)]
    return ToolOutput(text="\n".join(lines), json=[found])


def _search_body(given: Given) -> dict[str, Any]:
    body: dict[str, Any] = {
        "query": given.text("query"),
        "search_depth": given.text("search_depth", "basic"),
        "topic": given.text("topic", "general"),
        "max_results": given.whole("max_results", 5, low=1, high=20),
    }
    body |= {name: True for name in _FLAGS if given.flag(name)}
    for name in _LEVELS:
        level = str(given.value(name, "false")).lower()
        if level not in ("false", "0", "none"):
            body[name] = True if level in ("true", "1") else level
    for name in ("time_range", "country", "start_date", "end_date"):
        value = given.text(name, "not_specified")
        if value.lower() not in ("not_specified", "none"):
            body[name] = value
    if body["topic"] == "news":
        body["days"] = given.whole("days", 7, low=1, high=365)
    if body["search_depth"] == "advanced":
        body["chunks_per_source"] = given.whole("chunks_per_source", 3, low=1, high=3)
    for name in ("include_domains", "exclude_domains"):
        if given.words(name):
            body[name] = given.words(name)
    return body


def _result(number: int, item: dict[str, Any]) -> str:
    lines = [
        f"### Result {number}: [{item.get('title') or 'No Title'}]({item.get('url', '')})\n",
        f"**URL:** {item.get('url', '')}\n",
    ]
    if item.get("published_date"):
        lines.append(f"**Published Date:** {item['published_date']}\n")
    if item.get("score"):
        lines.append(f"**Relevance Score:** {item['score']}\n")
    if item.get("content"):
        lines.append(f"**Content:**\n{item['content']}\n")
    if item.get("raw_content"):
        lines.append(f"**Raw Content:**\n{item['raw_content']}\n")
    return "\n".join([*lines, "---\n"])


async def _extract(given: Given) -> ToolOutput:
    urls = given.words("urls")[:20]
    if not urls:
        raise given.wrong("it needs 'urls'")
    body: dict[str, Any] = {
        "urls": urls,
        "extract_depth": given.text("extract_depth", "basic"),
        "format": given.text("format", "markdown"),
        "include_images": given.flag("include_images"),
    }
    found = await _ask(given, "/extract", body)
    lines = []
    for number, item in enumerate(_items(found, "results"), 1):
        lines.append(f"# Extracted Content {number}: {item.get('url', '')}\n")
        lines.append(f"**Raw Content:**\n{item.get('raw_content', '')}\n\n---\n")
    for item in _items(found, "failed_results"):
        lines.append(f"- {item.get('url', '')}: {item.get('error', 'Unknown error')}\n")
    return ToolOutput(text="\n".join(lines), json=[found])
