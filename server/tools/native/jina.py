"""jina: pages as text by r.jina.ai, and a search."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from server.tools.native.given import Given
from server.tools.native.native_tool import NativeTool, arguments
from server.tools.native.requests import send
from server.workflow.services import Tool, ToolOutput

__all__ = ["tools"]

_FLAGS: Final = {
    "image_caption": ("x-with-generated-alt", "true"),
    "gather_all_links_at_the_end": ("x-with-links-summary", "true"),
    "gather_all_images_at_the_end": ("x-with-images-summary", "true"),
    "no_cache": ("x-no-cache", "true"),
    "no_cache_track": ("dnt", "1"),
    "remove_images": ("x-retain-images", "none"),
}
_TEXTS: Final = {
    "target_selector": "x-target-selector",
    "wait_for_selector": "x-wait-for-selector",
    "proxy_server": "x-proxy-url",
}


def tools() -> list[Tool]:
    return [
        NativeTool(
            "jina",
            "jina_reader",
            "Reads a web page or a PDF at an address and gives its text.",
            arguments({"url": "The address, with https://."}, ("url",)),
            _read,
        ),
        NativeTool(
            "jina",
            "jina_search",
            "Searches the web and gives the text of the first pages.",
            arguments({"query": "What to search for."}, ("query",)),
            _search,
        ),
    ]


async def _read(given: Given) -> ToolOutput:
    base = given.base_url("https://r.jina.ai", "reader_base_url")
    url = quote(given.text("url").strip(), safe=":/?&=%#@+,;~!$'()*[]")
    query = given.table("request_params")
    response = await send(given, "GET", f"{base}/{url}", query=query, headers=_headers(given))
    return ToolOutput(text=response.content.decode("utf-8", "replace"))


async def _search(given: Given) -> ToolOutput:
    base = given.base_url("https://s.jina.ai", "search_base_url")
    given.credential("api_key")
    url = f"{base}/{quote(given.text('query'), safe='')}"
    response = await send(given, "GET", url, headers=_headers(given))
    return ToolOutput(text=response.content.decode("utf-8", "replace"))


def _headers(given: Given) -> list[tuple[str, str]]:
    found = [("accept", "application/json")]
    key = given.value("api_key")
    if key:
        found.append(("authorization", f"Bearer {key}"))
    found += [header for name, header in _FLAGS.items() if given.flag(name)]
    for name, header in _TEXTS.items():
        value = given.text(name, "")
        if value:
            found.append((header, " ".join(value.split())))
    form = given.text("content_format", "default")
    return found if form == "default" else [*found, ("x-return-format", form)]
