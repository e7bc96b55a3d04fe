"""google: Google's results by SerpAPI."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from server.tools.native.given import Given
from server.tools.native.native_tool import NativeTool, arguments
from server.tools.native.requests import ask_json
from server.workflow.services import Tool, ToolOutput

__all__ = ["tools"]


def tools() -> list[Tool]:
    words = {
        "query": "What to search for.",
        "language_code": "Of the results, such as en.",
        "country_code": "Where to search from, such as us.",
    }
    return [
        NativeTool(
            "google",
            "google_search",
            "Searches the web by Google.",
            arguments(words, ("query",)),
            _search,
        )
    ]


async def _search(given: Given) -> ToolOutput:
    base = given.base_url("https://serpapi.com", "serpapi_base_url")
    query = {
        "api_key": given.credential("serpapi_api_key"),
        "q": given.text("query"),
        "engine": "google",
        "google_domain": "google.com",
        "num": 10,
        "hl": given.value("language_code", given.value("hl")),
        "gl": given.value("country_code", given.value("gl")),
    }
    found = await ask_json(given, "GET", f"{base}/search", query=query)
    references = _references(found)
    if given.flag("as_agent_tool"):
        return ToolOutput(text="\n\n".join(map(_line, references)) or "No search results found")
    return ToolOutput(json=[{"search_results": references} | _older(found)])


def _references(found: dict[str, Any]) -> list[dict[str, str]]:
    references = []
    for name in ("news_results", "organic_results", "related_questions"):
        for item in found.get(name) or []:
            if isinstance(item, dict):
                references.append(_reference(item))
    return references


def _reference(item: dict[str, Any]) -> dict[str, str]:
    url = str(item.get("link") or "")
    source = item.get("source")
    return {
        "title": str(item.get("title") or item.get("question") or ""),
        "url": url,
        "content": str(item.get("snippet") or ""),
        "site_name": source if isinstance(source, str) else _host(url),
        "date": str(item.get("date") or ""),
    }


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


def _older(found: dict[str, Any]) -> dict[str, Any]:
    """What earlier versions of the tool gave, for apps that were written for them."""
    older: dict[str, Any] = {}
    card = found.get("knowledge_graph")
    if isinstance(card, dict):
        older = {"title": card.get("title", ""), "description": card.get("description", "")}
    results = found.get("organic_results")
    if isinstance(results, list):
        older["organic_results"] = [
            {name: item.get(name, "") for name in ("title", "link", "snippet")}
            for item in results
            if isinstance(item, dict)
        ]
    return older


def _line(reference: dict[str, str]) -> str:
    return f"{reference['title']} ({reference['url']})\n{reference['content']}"
