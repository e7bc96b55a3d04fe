"""duckduckgo: a web search without a key. No API stands behind it; its pages are read leniently."""

from __future__ import annotations

import html
import json
import re
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

from server.tools.native.given import Given
from server.tools.native.native_tool import NativeTool, arguments
from server.tools.native.requests import ask_json, json_in, send
from server.workflow.services import Tool, ToolFailed, ToolOutput

__all__ = ["tools"]

_AGENT: Final = (
    "user-agent",
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
)
_RESULT: Final = 'class="result__a"'
_SNIPPET: Final = 'class="result__snippet"'
_HREF: Final = re.compile(r'\bhref="([^"]{1,2000})"')
_TAG: Final = re.compile(r"<[^<>]{0,500}>")
_MOST_TAG: Final = 3_000
_MOST_RESULTS: Final = 60
"""That are looked at; a page has about 30."""
_TOKEN: Final = re.compile(r"""vqd=["']?([0-9-]{4,80})""")
_MOST_READ: Final = 400_000


def tools() -> list[Tool]:
    query = {"query": "What to search for."}
    return [
        NativeTool(
            "duckduckgo",
            "ddgo_search",
            "Searches the web by DuckDuckGo.",
            arguments(query, ("query",)),
            _search,
        ),
        NativeTool(
            "duckduckgo",
            "ddgo_img",
            "Searches for images by DuckDuckGo.",
            arguments(query, ("query",)),
            _images,
        ),
        NativeTool(
            "duckduckgo",
            "ddgo_translate",
            "Translates a text.",
            arguments({"query": "The text to translate."}, ("query",)),
            _translate,
        ),
    ]


async def _search(given: Given) -> ToolOutput:
    base = given.base_url("https://html.duckduckgo.com")
    form = urlencode({"q": given.text("query"), "b": ""}).encode()
    headers = [_AGENT, ("content-type", "application/x-www-form-urlencoded")]
    response = await send(given, "POST", f"{base}/html/", headers=headers, content=form)
    page = response.content[:_MOST_READ].decode("utf-8", "replace")
    found = _results(page)[: given.whole("max_results", 5, low=1, high=30)]
    if not found and response.status == 202:
        raise ToolFailed("duckduckgo asks for a proof of being human; try later", "ToolInvokeError")
    if given.flag("require_summary"):
        return ToolOutput(text="\n".join(item["body"] for item in found), json=found)
    return ToolOutput(json=found)


def _results(page: str) -> list[dict[str, str]]:
    """Each result's title, address and passage; advertisements are left out. A page of any content
    is gone through once."""
    results = []
    _, *parts = page.split(_RESULT, _MOST_RESULTS)
    before = page.find(_RESULT)
    for part in parts:
        opening = page[max(0, before - _MOST_TAG) : before].rpartition("<")[2]
        link = _HREF.search(opening + " " + part[:_MOST_TAG].partition(">")[0])
        href = _target(html.unescape(link[1])) if link else ""
        if href:
            results.append({"title": _inside(part), "href": href, "body": _snippet(part)})
        before += len(_RESULT) + len(part)
    return results


def _inside(part: str) -> str:
    """The text of the link whose tag this is the rest of."""
    return _plain(part[:_MOST_READ].partition(">")[2].partition("</a>")[0][:_MOST_TAG])


def _snippet(part: str) -> str:
    _, found, rest = part.partition(_SNIPPET)
    return _inside(rest) if found else ""


def _target(link: str) -> str:
    """Where a result leads: its links go by way of DuckDuckGo. Empty for what is no link."""
    try:
        parts = urlsplit(link if "://" in link else "https:" + link)
    except ValueError:
        return ""
    if parts.path.endswith("/y.js"):
        return ""
    return parse_qs(parts.query).get("uddg", [link])[0]


def _plain(marked: str) -> str:
    return " ".join(html.unescape(_TAG.sub("", marked)).split())


async def _token(given: Given, base: str, query: str) -> str:
    page = await send(given, "GET", base, query={"q": query}, headers=[_AGENT])
    found = _TOKEN.search(page.content[:_MOST_READ].decode("utf-8", "replace"))
    if found is None:
        raise ToolFailed("duckduckgo did not let itself be asked; try later", "ToolInvokeError")
    return found[1]


async def _images(given: Given) -> ToolOutput:
    base = given.base_url("https://duckduckgo.com")
    text = given.text("query")
    query: dict[str, Any] = {"l": "wt-wt", "o": "json", "q": text, "p": "1"}
    query["vqd"] = await _token(given, base, text)
    kinds = [f"{kind}:{given.text(name)}" for kind, name in _FILTERS if given.value(name)]
    query["f"] = ",".join(kinds) or None
    found = await ask_json(given, "GET", f"{base}/i.js", query=query, headers=[_AGENT])
    results = [item for item in found.get("results") or [] if isinstance(item, dict)]
    results = results[: given.whole("max_results", 3, low=1, high=50)]
    lines = [f"![{item.get('title', '')}]({item.get('image', '')})" for item in results]
    return ToolOutput(text="\n".join(lines), json=results)


_FILTERS: Final = (("time", "timelimit"), ("size", "size"))


async def _translate(given: Given) -> ToolOutput:
    base = given.base_url("https://duckduckgo.com")
    query = {"query": "translate", "to": given.text("translate_to", "en")}
    query["vqd"] = await _token(given, base, "translate")
    content = given.text("query").encode()
    url = f"{base}/translation.js"
    found = json_in(
        given, await send(given, "POST", url, query=query, headers=[_AGENT], content=content)
    )
    if not isinstance(found, dict) or not isinstance(found.get("translated"), str):
        told = json.dumps(found)[:200]
        raise ToolFailed(f"duckduckgo gave no translation: {told}", "ToolInvokeError")
    return ToolOutput(text=found["translated"])
