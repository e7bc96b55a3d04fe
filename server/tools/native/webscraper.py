"""webscraper: the text of a web page. Hostile pages are read where documents are, in a worker."""

from __future__ import annotations

import html
import re
from typing import Final

from server.tools.native.given import Given
from server.tools.native.native_tool import NativeTool, arguments
from server.tools.native.requests import send
from server.workflow.services import Tool, ToolOutput, WebResponse

__all__ = ["tools"]

_AGENT: Final = "Mozilla/5.0 (compatible; Triolet)"
_TITLE: Final = re.compile(rb"<title[^>]{0,200}>([^<]{0,1000})", re.IGNORECASE)
_PLAIN: Final = ("text/plain", "text/markdown", "application/json", "text/csv")
_SUMMARY: Final = 20_000
"""Characters that are kept if a summary was asked for."""


def tools() -> list[Tool]:
    schema = arguments({"url": "The address of the page, with https://."}, ("url",))
    told = "Reads a web page and gives its text."
    return [NativeTool("webscraper", "webscraper", told, schema, _scrape)]


async def _scrape(given: Given) -> ToolOutput:
    url = given.text("url").strip()
    if not url.startswith(("http://", "https://")):
        raise given.wrong("'url' must begin with http:// or https://")
    agent = ("user-agent", given.text("user_agent", _AGENT))
    response = await send(given, "GET", url, headers=[agent, ("accept", "text/html,*/*;q=0.8")])
    text = await _text(given, response)
    if given.flag("generate_summary") and len(text) > _SUMMARY:
        text = text[:_SUMMARY] + "\n(cut)"
    return ToolOutput(text=text)


async def _text(given: Given, response: WebResponse) -> str:
    kind = next((value for name, value in response.headers if name == "content-type"), "text/html")
    kind = kind.split(";")[0].strip().lower()
    if kind in _PLAIN:
        return response.content.decode("utf-8", "replace")
    name = response.url.split("?")[0].rsplit("/", 1)[-1] or "page.html"
    text = await given.services.documents.text_of(response.content, name, kind)
    if "html" not in kind:
        return text
    found = _TITLE.search(response.content[:65_536])
    title = html.unescape(found[1].decode("utf-8", "replace")).strip() if found else ""
    return f"TITLE: {title}\nAUTHOR: \nTEXT: {text}"
