"""firecrawl: pages and whole sites as markdown."""

from __future__ import annotations

from typing import Any, Final

import trio

from server.tools.native.given import Given
from server.tools.native.native_tool import NativeTool, arguments
from server.tools.native.requests import ask_json
from server.workflow.services import Tool, ToolFailed, ToolOutput

__all__ = ["tools"]

POLL_S: Final = 5.0
CRAWL_S: Final = 540.0
"""A crawl that takes longer is given up."""


def tools() -> list[Tool]:
    url = {"url": "The address, with https://."}
    return [
        NativeTool(
            "firecrawl",
            "scrape",
            "Reads a web page and gives it as markdown.",
            arguments(url, ("url",)),
            _scrape,
        ),
        NativeTool(
            "firecrawl",
            "crawl",
            "Reads a web site page by page.",
            arguments(url, ("url",)),
            _crawl,
        ),
        NativeTool(
            "firecrawl",
            "map",
            "Lists the addresses of a web site's pages.",
            arguments(url | {"search": "Only those that have to do with this."}, ("url",)),
            _map,
        ),
        NativeTool(
            "firecrawl",
            "search",
            "Searches the web.",
            arguments({"query": "What to search for."}, ("query",)),
            _search,
        ),
        NativeTool(
            "firecrawl",
            "crawl_job",
            "Looks after a crawl that was begun, or cancels it.",
            arguments(
                {"job_id": "Of the crawl.", "operation": "What to do."},
                ("job_id", "operation"),
                {"operation": ("get", "cancel")},
            ),
            _job,
        ),
    ]


async def _ask(
    given: Given, method: str, path: str, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    base = given.base_url("https://api.firecrawl.dev")
    key = given.value("firecrawl_api_key", "")
    if not key and base == "https://api.firecrawl.dev":
        given.credential("firecrawl_api_key")
    version = given.text("api_version", "v2").strip("/")
    return await ask_json(
        given,
        method,
        f"{base}/{version}{path}",
        headers=[("authorization", f"Bearer {key}")] if key else [],
        body=_without_empty(body) if body is not None else None,
        read_s=120.0,
    )


def _without_empty(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value not in (None, "", [], {})}


async def _scrape(given: Given) -> ToolOutput:
    extraction: dict[str, Any] = {
        "type": "json",
        "schema": given.table("schema"),
        "prompt": "\n\n".join(
            filter(None, (given.text("systemPrompt", ""), given.text("prompt", "")))
        ),
    }
    formats: list[Any] = [form for form in given.words("formats") if form != "extract"]
    if extraction["schema"] or extraction["prompt"]:
        formats.append(_without_empty(extraction))
    body = {
        "url": given.text("url"),
        "formats": formats,
        "onlyMainContent": given.flag("onlyMainContent", True),
        "includeTags": given.words("includeTags"),
        "excludeTags": given.words("excludeTags"),
        "headers": given.table("headers"),
        "waitFor": given.whole("waitFor", 0, low=0, high=60_000),
        "timeout": given.whole("timeout", 30_000, low=1_000, high=300_000),
    }
    found = await _ask(given, "POST", "/scrape", body)
    data = found.get("data")
    text = str(data.get("markdown") or "") if isinstance(data, dict) else ""
    return ToolOutput(text=text, json=[found])


async def _crawl(given: Given) -> ToolOutput:
    scraping = {
        "formats": given.words("formats"),
        "headers": given.table("headers"),
        "includeTags": given.words("includeTags"),
        "excludeTags": given.words("excludeTags"),
        "onlyMainContent": given.flag("onlyMainContent"),
        "waitFor": given.whole("waitFor", 0, low=0, high=60_000),
    }
    body = {
        "url": given.text("url"),
        "excludePaths": given.words("excludePaths"),
        "includePaths": given.words("includePaths"),
        "maxDiscoveryDepth": given.whole("maxDepth", 2, low=0, high=20),
        "sitemap": "skip" if given.flag("ignoreSitemap", True) else None,
        "limit": given.whole("limit", 5, low=1, high=1_000),
        "crawlEntireDomain": given.flag("allowBackwardLinks"),
        "allowExternalLinks": given.flag("allowExternalLinks"),
        "webhook": given.value("webhook"),
        "scrapeOptions": _without_empty(scraping),
    }
    begun = await _ask(given, "POST", "/crawl", body)
    if not given.flag("wait_for_results", True):
        return ToolOutput(json=[begun])
    job = str(begun.get("id") or "")
    if not job:
        raise ToolFailed("firecrawl did not say which crawl it began", "ToolInvokeError")
    return ToolOutput(json=[await _finished(given, job)])


async def _finished(given: Given, job: str) -> dict[str, Any]:
    with trio.move_on_after(CRAWL_S):
        while True:
            found = await _ask(given, "GET", f"/crawl/{_id(given, job)}")
            if found.get("status") == "completed":
                return found
            if found.get("status") in ("failed", "cancelled"):
                raise ToolFailed(f"firecrawl: the crawl {found['status']}", "ToolInvokeError")
            await trio.sleep(POLL_S)
    raise ToolFailed(f"firecrawl: the crawl took more than {CRAWL_S:g} s", "ToolInvokeError")


async def _map(given: Given) -> ToolOutput:
    body = {
        "url": given.text("url"),
        "search": given.value("search"),
        "sitemap": "skip" if given.flag("ignoreSitemap") else None,
        "includeSubdomains": given.flag("includeSubdomains"),
        "limit": given.whole("limit", 5_000, low=1, high=100_000),
    }
    return ToolOutput(json=[await _ask(given, "POST", "/map", body)])


async def _search(given: Given) -> ToolOutput:
    body = {
        "query": given.text("query"),
        "limit": given.whole("limit", 10, low=1, high=100),
        "tbs": given.value("tbs"),
        "location": given.value("location"),
        "country": given.value("country"),
    }
    return ToolOutput(json=[await _ask(given, "POST", "/search", body)])


async def _job(given: Given) -> ToolOutput:
    method = "DELETE" if given.text("operation") == "cancel" else "GET"
    job = _id(given, given.text("job_id"))
    return ToolOutput(json=[await _ask(given, method, f"/crawl/{job}")])


def _id(given: Given, job: str) -> str:
    if not job.replace("-", "").replace("_", "").isalnum():
        raise given.wrong("'job_id' is not the id of a crawl")
    return job
