"""Searches and readers: what they ask, and what they make of the answer."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trio

from server.workflow.services import ToolFailed
from tests.server.tools.native.outside import FakeWeb, answered, call

FOUND = {
    "answer": "Yes.",
    "results": [{"title": "T", "url": "https://a.example", "content": "C", "score": 0.9}],
}


async def test_tavily_searches_as_its_form_says() -> None:
    """Flags, domains and limits reach the service; text and JSON come back."""
    web = FakeWeb(FOUND)
    settings = {"include_answer": 1, "include_images": 0, "max_results": "7", "topic": "news"}
    arguments = {"query": "q", "include_domains": "a.example, b.example", "time_range": "week"}
    bound = {"tavily_api_key": "k"}
    result = await call(
        "tavily", "tavily_search", arguments, settings=settings, bound=bound, web=web
    )
    assert web.sent == {
        "query": "q",
        "search_depth": "basic",
        "topic": "news",
        "max_results": 7,
        "include_answer": True,
        "time_range": "week",
        "days": 7,
        "include_domains": ["a.example", "b.example"],
    }
    assert ("authorization", "Bearer k") in web.requests[0].headers
    assert result.json == [FOUND]
    assert result.text.startswith("**Answer:** Yes.\n\n### Result 1: [T](https://a.example)")


async def test_tavily_without_results_says_so() -> None:
    """No result is a text, not an error."""
    web = FakeWeb({"results": []})
    result = await call(
        "tavily", "tavily_search", {"query": "q"}, bound={"tavily_api_key": "k"}, web=web
    )
    assert result.text == "No results found for 'q' in Tavily."


async def test_tavily_extracts_pages() -> None:
    """Addresses are split; failed ones are listed."""
    found = {
        "results": [{"url": "https://a.example", "raw_content": "Text"}],
        "failed_results": [{"url": "https://b.example", "error": "gone"}],
    }
    web = FakeWeb(found)
    arguments = {"urls": "https://a.example, https://b.example"}
    result = await call(
        "tavily", "tavily_extract", arguments, bound={"tavily_api_key": "k"}, web=web
    )
    assert web.sent["urls"] == ["https://a.example", "https://b.example"]
    assert "Text" in result.text
    assert "https://b.example: gone" in result.text


async def test_duckduckgo_reads_its_page() -> None:
    """Titles, passages and the addresses behind its own links; advertisements are left out."""
    page = """
    <a rel="nofollow" class="result__a" href="//duckduckgo.com/y.js?ad=1">Ad</a>
    <div><h2><a rel="nofollow" class="result__a"
      href="//duckduckgo.com/l/?uddg=https%3A%2F%2Fa.example%2Fx%3Fb%3D1&amp;rut=1">A
      <b>B</b></a></h2>
    <a class="result__snippet" href="x">It &amp; <b>more</b>
    text</a></div>
    <a class="result__a" href="https://c.example">C</a>
    <a class="result__a" href="https://[no-address">D</a>
    """
    web = FakeWeb(answered(page.encode(), "text/html"))
    result = await call("duckduckgo", "ddgo_search", {"query": "a b"}, web=web)
    assert web.requests[0].content == b"q=a+b&b="
    assert result.json == [
        {"title": "A B", "href": "https://a.example/x?b=1", "body": "It & more text"},
        {"title": "C", "href": "https://c.example", "body": ""},
    ]


async def test_duckduckgo_translates() -> None:
    """It asks for a token first."""
    web = FakeWeb(b'...vqd="4-123"...', {"translated": "Guten Tag"})
    result = await call(
        "duckduckgo", "ddgo_translate", {"query": "hi", "translate_to": "de"}, web=web
    )
    assert result.text == "Guten Tag"
    assert parse_qs(urlsplit(web.requests[1].url).query)["vqd"] == ["4-123"]
    assert web.requests[1].content == b"hi"


async def test_jina_reads_with_its_headers() -> None:
    """Settings become headers; the key is optional."""
    web = FakeWeb(answered(b"# Page", "text/plain"))
    settings = {"no_cache": 1, "image_caption": 0, "target_selector": "#a"}
    arguments = {"url": "https://a.example/?x=1"}
    result = await call("jina", "jina_reader", arguments, settings=settings, web=web)
    assert web.requests[0].url == "https://r.jina.ai/https://a.example/?x=1"
    headers = dict(web.requests[0].headers)
    assert headers == {
        "accept": "application/json",
        "x-no-cache": "true",
        "x-target-selector": "#a",
    }
    assert result.text == "# Page"


async def test_wikipedia_gives_openings() -> None:
    """By the language's name or code, in the order of the search."""
    pages = [
        {"title": "B", "extract": "bb", "index": 2},
        {"title": "A", "extract": "aa", "index": 1},
    ]
    web = FakeWeb({"query": {"pages": pages}})
    arguments = {"query": "x", "language": "German"}
    result = await call("wikipedia", "wikipedia_search", arguments, web=web)
    assert web.requests[0].url.startswith("https://de.wikipedia.org/w/api.php?")
    assert result.text == "Page: A\nSummary: aa\n\nPage: B\nSummary: bb"


async def test_wikipedia_language_is_no_way_to_another_host() -> None:
    """What is no language is English."""
    web = FakeWeb({})
    result = await call(
        "wikipedia", "wikipedia_search", {"query": "x", "language": "evil.example/"}, web=web
    )
    assert web.requests[0].url.startswith("https://en.wikipedia.org/")
    assert result.text == "No good Wikipedia Search Result was found"


async def test_google_gives_both_its_old_and_its_new_form() -> None:
    """Apps read `search_results`, older ones `organic_results`."""
    item = {"title": "T", "link": "https://a.example/x", "snippet": "S", "position": 1}
    web = FakeWeb({"organic_results": [item], "knowledge_graph": {"title": "K"}})
    bound = {"serpapi_api_key": "k"}
    result = await call("google", "google_search", {"query": "q"}, bound=bound, web=web)
    (found,) = result.json
    assert found["search_results"][0]["site_name"] == "a.example"
    assert found["organic_results"] == [
        {"title": "T", "link": "https://a.example/x", "snippet": "S"}
    ]
    assert found["title"] == "K"


async def test_google_takes_any_link() -> None:
    """What is no address names no site, and what is no result is left out."""
    web = FakeWeb({"organic_results": [{"title": "T", "link": "https://[x"}, "odd"]})
    bound = {"serpapi_api_key": "k"}
    result = await call("google", "google_search", {"query": "q"}, bound=bound, web=web)
    (found,) = result.json
    assert [each["site_name"] for each in found["search_results"]] == [""]
    assert [each["title"] for each in found["organic_results"]] == ["T"]


async def test_firecrawl_scrapes() -> None:
    """Text is the markdown, JSON the whole answer; a schema asks for structured data."""
    web = FakeWeb({"success": True, "data": {"markdown": "# T"}})
    arguments = {"url": "https://a.example", "formats": "markdown,html", "schema": '{"a": 1}'}
    bound = {"firecrawl_api_key": "k"}
    result = await call("firecrawl", "scrape", arguments, bound=bound, web=web)
    assert web.requests[0].url == "https://api.firecrawl.dev/v2/scrape"
    assert web.sent["formats"] == ["markdown", "html", {"type": "json", "schema": {"a": 1}}]
    assert result.text == "# T"


async def test_firecrawl_waits_for_a_crawl(autojump_clock: trio.testing.MockClock) -> None:
    """It asks until the crawl is done, of a server of one's own without a key."""
    done = {"status": "completed", "data": [1]}
    web = FakeWeb({"id": "j1"}, {"status": "scraping"}, {"status": "scraping"}, done)
    bound = {"base_url": "http://crawler:3002", "api_version": "v1"}
    arguments = {"url": "https://a.example"}
    result = await call("firecrawl", "crawl", arguments, bound=bound, web=web)
    assert result.json == [done]
    assert web.requests[-1].url == "http://crawler:3002/v1/crawl/j1"
    assert trio.current_time() == pytest.approx(10, abs=0.1)


async def test_google_translates() -> None:
    """The parts of the answer are put together."""
    web = FakeWeb([[["Guten ", "x"], ["Tag", "y"]], None, "en"])
    result = await call(
        "google_translate", "translate", {"content": "hi"}, settings={"dest": "de"}, web=web
    )
    assert result.text == "Guten Tag"


FEED = b"""<?xml version="1.0"?><rss><channel><title>F</title>
<item><title>One &amp; two</title><link>https://a.example/1</link>
<description>&lt;p&gt;Text&lt;/p&gt;</description><pubDate>Mon</pubDate></item></channel></rss>"""
ATOM = b"""<feed xmlns="http://www.w3.org/2005/Atom"><entry><title>E</title>
<link href="https://a.example/2"/><summary>S</summary></entry></feed>"""


async def test_feeds_are_read() -> None:
    """RSS and Atom, the markup of descriptions taken off."""
    result = await call("rookie_rss", "rookie_rss", {"url": "https://a.example"}, web=FakeWeb(FEED))
    assert result.json[0] == {
        "title": "One & two",
        "link": "https://a.example/1",
        "description": "Text",
        "published": "Mon",
    }
    result = await call("rookie_rss", "rookie_rss", {"url": "https://a.example"}, web=FakeWeb(ATOM))
    assert result.text == "E\nhttps://a.example/2\nS"


async def test_feed_with_entities_is_refused() -> None:
    """An alias bomb is not unfolded."""
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa">]><rss>&a;</rss>'
    with pytest.raises(ToolFailed, match="entities"):
        await call("rookie_rss", "rookie_rss", {"url": "https://a.example"}, web=FakeWeb(bomb))


class Documents:
    async def text_of(self, content: bytes, name: str, mime_type: str | None) -> str:
        return f"{mime_type} {name}"


async def test_webscraper_reads_pages_where_documents_are_read() -> None:
    """HTML goes to the workers; plain text is taken as it is."""
    page = answered(
        b"<title>A &amp; B</title>x", "text/html; charset=utf-8", url="https://a.example/p"
    )
    arguments = {"url": "https://a.example/p"}
    settings: dict[str, Any] = {"generate_summary": None, "user_agent": "Mine"}
    web = FakeWeb(page)
    result = await call(
        "webscraper", "webscraper", arguments, settings=settings, web=web, documents=Documents()
    )
    assert result.text == "TITLE: A & B\nAUTHOR: \nTEXT: text/html p"
    assert ("user-agent", "Mine") in web.requests[0].headers
    plain = FakeWeb(answered("\u00e9".encode(), "text/plain"))
    assert (await call("webscraper", "webscraper", arguments, web=plain)).text == "\u00e9"


async def test_webscraper_takes_addresses_only() -> None:
    """A file's path is no page."""
    with pytest.raises(ToolFailed, match="https://"):
        await call("webscraper", "webscraper", {"url": "file:///etc/passwd"}, web=FakeWeb(b""))


@pytest.mark.parametrize(
    "page",
    [
        b"<a" * 150_000,
        b'class="result__a"' * 20_000,
        b"<" * 300_000,
        b'<a class="result__a" href="',
    ],
)
async def test_hostile_page_is_read_at_once(page: bytes) -> None:
    """No page makes the search take long."""
    started = time.process_time()
    result = await call("duckduckgo", "ddgo_search", {"query": "a"}, web=FakeWeb(page))
    assert result.json == []
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    ("tool", "arguments", "found"),
    [
        ("tavily_search", {"query": "q"}, {"results": ["x", {"title": "T"}]}),
        ("tavily_search", {"query": "q"}, {"results": "x"}),
        ("tavily_extract", {"urls": "https://a.example"}, {"results": [1], "failed_results": [2]}),
        ("wikipedia_search", {"query": "q"}, {"query": ["x"]}),
        ("wikipedia_search", {"query": "q"}, {"query": {"pages": ["x", {"extract": "a"}]}}),
        (
            "wikipedia_search",
            {"query": "q"},
            {"query": {"pages": [{"index": "x", "extract": "a"}, {"index": 1, "extract": "b"}]}},
        ),
    ],
)
async def test_items_of_another_shape_are_left_out(
    tool: str, arguments: dict[str, Any], found: dict[str, Any]
) -> None:
    """What a service answers with may be anything."""
    provider = tool.partition("_")[0]
    bound = {"tavily_api_key": "k"}
    result = await call(provider, tool, arguments, bound=bound, web=FakeWeb(found))
    assert isinstance(result.text, str)
