"""rookie_rss: the entries of an RSS or Atom feed."""

from __future__ import annotations

import html
import re
from typing import Any, Final
from xml.etree import ElementTree

import trio

from server.tools.native.given import Given
from server.tools.native.native_tool import NativeTool, arguments
from server.tools.native.requests import send
from server.workflow.services import Tool, ToolFailed, ToolOutput

__all__ = ["entries", "tools"]

_URL: Final = ("url", "rss_url", "feed_url", "rss", "rss_feed_url")
_MOST: Final = ("max_items", "limit", "count", "max_results", "num")
_MOST_BYTES: Final = 4 * 1024 * 1024
_TAG: Final = re.compile(r"<[^<>]{0,2000}>")


def tools() -> list[Tool]:
    schema = arguments({"url": "The address of the feed."}, ("url",))
    told = "Reads the entries of an RSS or Atom feed."
    return [NativeTool("rookie_rss", "rookie_rss", told, schema, _read)]


async def _read(given: Given) -> ToolOutput:
    url = next((given.text(name) for name in _URL if given.value(name)), None)
    if url is None:
        raise given.wrong("it needs 'url'")
    named = next((name for name in _MOST if given.value(name) is not None), "max_items")
    most = given.whole(named, 20, low=1, high=200)
    response = await send(given, "GET", url.strip(), most_bytes=_MOST_BYTES)
    found = (await trio.to_thread.run_sync(entries, response.content))[:most]
    lines = [f"{item['title']}\n{item['link']}\n{item['description']}" for item in found]
    return ToolOutput(text="\n\n".join(lines), json=found)


def entries(content: bytes) -> list[dict[str, Any]]:
    """title, link, description, published of each entry. Raises `ToolFailed`: no feed, or one that
    declares entities, which feeds have no need of."""
    if b"<!ENTITY" in content or b"<!DOCTYPE" in content[:4096]:
        raise ToolFailed(
            "rookie_rss: the feed declares entities; it is not read", "ToolInvokeError"
        )
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError):
        raise ToolFailed(
            "rookie_rss: there is no feed at this address", "ToolInvokeError"
        ) from None
    return [_entry(item) for item in root.iter() if _name(item) in ("item", "entry")]


def _entry(item: ElementTree.Element) -> dict[str, Any]:
    found = {"title": "", "link": "", "description": "", "published": ""}
    for child in item:
        name, text = _name(child), (child.text or "").strip()
        if name == "title":
            found["title"] = _plain(text)
        elif name == "link":
            found["link"] = found["link"] or text or child.get("href", "")
        elif name in ("description", "summary", "content", "encoded"):
            found["description"] = found["description"] or _plain(text)
        elif name in ("pubdate", "published", "updated", "date"):
            found["published"] = found["published"] or text
    return found


def _name(element: ElementTree.Element) -> str:
    return str(element.tag).rsplit("}", 1)[-1].lower()


def _plain(marked: str) -> str:
    return " ".join(html.unescape(_TAG.sub(" ", marked)).split())
