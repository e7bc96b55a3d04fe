"""What holds for all native tools."""

from __future__ import annotations

import importlib
from typing import Any

import jsonschema_rs
import pytest

from server.tools.native import NATIVE
from server.workflow.services import Tool, ToolFailed
from tests.server.tools.native.outside import FakeWeb, answered, call


def all_tools() -> list[tuple[str, Tool]]:
    found = []
    for provider, where in NATIVE.items():
        module, _, name = where.partition(":")
        made = getattr(importlib.import_module(f"server.tools.native.{module}"), name)()
        found += [(provider, tool) for tool in made]
    return found


@pytest.mark.parametrize(
    ("provider", "tool"), all_tools(), ids=lambda one: str(getattr(one, "name", one))
)
def test_schema_is_one(provider: str, tool: Tool) -> None:
    """Each tool can be offered to a model: a name, words, and a valid schema of an object."""
    assert tool.name
    assert tool.description.endswith(".")
    jsonschema_rs.validator_for(tool.schema)
    assert set(tool.schema["required"]) <= set(tool.schema["properties"])


NEEDS = [
    ("tavily", "tavily_search", {"query": "q"}, "tool:tavily.tavily_api_key"),
    ("searxng", "searxng_search", {"query": "q"}, "tool:searxng.searxng_base_url"),
    ("google", "google_search", {"query": "q"}, "tool:google.serpapi_api_key"),
    ("firecrawl", "scrape", {"url": "https://x.example"}, "tool:firecrawl.firecrawl_api_key"),
    ("dalle", "dalle3", {"prompt": "a cat"}, "tool:dalle.openai_api_key"),
    ("audio", "tts", {"text": "hi"}, "tool:audio.base_url"),
    ("jina", "jina_search", {"query": "q"}, "tool:jina.api_key"),
    ("wecom", "wecom_group_bot", {"content": "hi"}, "tool:wecom.hook_key"),
    ("slack", "slack_webhook", {"content": "hi"}, "tool:slack.webhook_url"),
    ("mcp_sse", "mcp_sse_list_tools", {}, "tool:mcp_sse.servers_config"),
]


@pytest.mark.parametrize(("provider", "name", "arguments", "binding"), NEEDS)
async def test_missing_setting_is_named(
    provider: str, name: str, arguments: dict[str, Any], binding: str
) -> None:
    """The error says which binding would supply it, and nothing is sent."""
    web = FakeWeb({})
    with pytest.raises(ToolFailed, match=binding):
        await call(provider, name, arguments, web=web)
    assert web.requests == []


async def test_address_in_a_file_does_not_get_the_operators_key() -> None:
    """A graph's own base_url is not used: only the operator says where a credential is sent."""
    web = FakeWeb({"results": []})
    evil = {"base_url": "https://evil.example", "tavily_base_url": "https://evil.example"}
    bound = {"tavily_api_key": "k"}
    await call(
        "tavily", "tavily_search", {"query": "q"} | evil, settings=evil, bound=bound, web=web
    )
    assert web.requests[0].url == "https://api.tavily.com/search"


async def test_operators_address_may_be_inside() -> None:
    """A self-hosted service that is bound is trusted by the guard; nothing else is."""
    web = FakeWeb({"results": [{"title": "a", "url": "u", "content": "c"}]})
    bound = {"searxng_base_url": "http://searxng:8080/"}
    arguments = {"query": "a b", "search_type": "news"}
    result = await call("searxng", "searxng_search", arguments, bound=bound, web=web)
    assert web.trusted == ["http://searxng:8080/"]
    assert web.requests[0].url == "http://searxng:8080/search?q=a+b&format=json&categories=news"
    assert result.json == [{"title": "a", "url": "u", "content": "c"}]


async def test_refusal_is_told_without_the_key() -> None:
    """A status of 400 and above fails the tool; the message has the answer, not the address."""
    web = FakeWeb(answered(b"bad key", status=401))
    with pytest.raises(ToolFailed, match="status 401: bad key") as caught:
        await call(
            "google", "google_search", {"query": "q"}, bound={"serpapi_api_key": "se"}, web=web
        )
    assert "api_key" not in caught.value.message


async def test_answer_without_json_is_an_error() -> None:
    """A page where JSON was expected names the provider."""
    bound = {"tavily_api_key": "k"}
    with pytest.raises(ToolFailed, match="tavily did not answer with JSON"):
        await call("tavily", "tavily_search", {"query": "q"}, bound=bound, web=FakeWeb(b"<html>"))


@pytest.mark.parametrize(
    ("when", "source", "target"),
    [
        ("0001-01-01 00:00:00", "Asia/Tokyo", "America/New_York"),
        ("9999-12-31 23:59:59", "America/New_York", "Asia/Tokyo"),
    ],
)
async def test_times_beyond_the_calendar_are_refused(when: str, source: str, target: str) -> None:
    """By name, and not as a bug."""
    given = {"current_time": when, "current_timezone": source, "target_timezone": target}
    with pytest.raises(ToolFailed, match="'current_time' is out of range"):
        await call("time", "timezone_conversion", given)
    assert (
        await call("time", "localtime_to_timestamp", {"localtime": when, "timezone": source})
    ).text


class _Asked:
    """`services.Tools` that keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, bool]] = []

    async def mcp_tools(self, servers: Any, run: Any, *, trusted: bool = False) -> list[Any]:
        self.asked.append((servers, trusted))
        return []


@pytest.mark.parametrize("config", ['{"a": {"url": "http://x"}}', {"a": {"url": "http://x"}}])
async def test_servers_of_the_operator_are_trusted(config: Any) -> None:
    """As text or as a mapping; those that a file names are not."""
    tools = _Asked()
    for given in ({"bound": {"servers_config": config}}, {"settings": {"servers_config": config}}):
        await call("mcp_sse", "mcp_sse_list_tools", {}, tools=tools, **given)
    bound = {"servers_config": "http://mine"}
    arguments = {"servers_config": config}
    await call("mcp_sse", "mcp_sse_list_tools", arguments, bound=bound, tools=tools)
    assert tools.asked == [(config, True), (config, False), (config, False)]
