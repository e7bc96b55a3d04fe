"""wikipedia: the opening of articles."""

from __future__ import annotations

import re
from typing import Any, Final

from server.tools.native.given import Given
from server.tools.native.native_tool import NativeTool, arguments
from server.tools.native.requests import ask_json
from server.workflow.services import Tool, ToolOutput

__all__ = ["tools"]

_LANGUAGES: Final = {
    "english": "en",
    "german": "de",
    "french": "fr",
    "hindi": "hi",
    "japanese": "ja",
    "korean": "ko",
    "polish": "pl",
    "portuguese": "pt",
    "romanian": "ro",
    "ukrainian": "uk",
    "vietnamese": "vi",
    "chinese": "zh",
    "spanish": "es",
    "russian": "ru",
    "italian": "it",
}
_CODE: Final = re.compile(r"[a-z]{2,3}(?:-[a-z]{2,12})?")
_MOST: Final = 4_000
"""Characters in all, as Dify's tool gives."""


def tools() -> list[Tool]:
    schema = arguments(
        {"query": "What to look up.", "language": "Of the articles, such as en or ja."}, ("query",)
    )
    told = "Looks something up in Wikipedia and gives the opening of the articles found."
    return [NativeTool("wikipedia", "wikipedia_search", told, schema, _search)]


async def _search(given: Given) -> ToolOutput:
    base = given.base_url(f"https://{_language(given)}.wikipedia.org")
    query = {
        "action": "query",
        "format": "json",
        "formatversion": 2,
        "generator": "search",
        "gsrsearch": given.text("query")[:300],
        "gsrlimit": 3,
        "prop": "extracts",
        "exintro": 1,
        "explaintext": 1,
        "exlimit": 3,
    }
    headers = [("user-agent", "Triolet (a workflow's tool)")]
    found = await ask_json(given, "GET", f"{base}/w/api.php", query=query, headers=headers)
    parts = [
        f"Page: {page.get('title', '')}\nSummary: {page['extract']}"
        for page in sorted(_pages(found), key=_index)
        if page.get("extract")
    ]
    return ToolOutput(
        text="\n\n".join(parts)[:_MOST] or "No good Wikipedia Search Result was found"
    )


def _pages(found: dict[str, Any]) -> list[dict[str, Any]]:
    query = found.get("query")
    pages = query.get("pages") if isinstance(query, dict) else None
    return [page for page in pages if isinstance(page, dict)] if isinstance(pages, list) else []


def _index(page: dict[str, Any]) -> float:
    index = page.get("index")
    return index if isinstance(index, int | float) else 0


def _language(given: Given) -> str:
    written = given.text("language", "en").strip().lower()
    code = _LANGUAGES.get(written, written)
    return code if _CODE.fullmatch(code) else "en"
