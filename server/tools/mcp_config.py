"""Where MCP servers are, in all the ways in which exports and operators say it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import msgspec

from server.workflow.services import ToolFailed

__all__ = ["McpServer", "mcp_servers"]

MOST_SERVERS: Final = 20
_TIMEOUT_S: Final = 60.0
_MOST_TIMEOUT_S: Final = 600.0

_TRANSPORTS: Final[dict[str, Literal["http", "sse"]]] = {
    "sse": "sse",
    "http": "http",
    "streamable": "http",
    "streamablehttp": "http",
    "streamable_http": "http",
    "streamable-http": "http",
}


class McpServer(msgspec.Struct, frozen=True, kw_only=True):
    """One server."""

    name: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    transport: Literal["http", "sse", "unknown"] = "unknown"
    timeout_s: float = _TIMEOUT_S
    """For one call."""


def mcp_servers(config: Any) -> list[McpServer]:
    """The servers of a configuration: a URL, several of them in lines, `{"name": {"url": ...,
    "headers": {...}, "timeout": 60}}`, the same below "mcpServers", a list of such, or any of it
    as JSON text. Raises `ToolFailed`: not one of these, or a program to start."""
    found = list(_servers(config, "mcp"))
    if len(found) > MOST_SERVERS:
        raise ToolFailed(f"{len(found)} MCP servers; at most {MOST_SERVERS}", "ToolProviderError")
    return found


def _servers(config: Any, name: str) -> Iterator[McpServer]:
    if isinstance(config, str):
        yield from _from_text(config.strip(), name)
    elif isinstance(config, Mapping):
        yield from _from_mapping(config, name)
    elif isinstance(config, list):
        for number, item in enumerate(config):
            yield from _servers(item, f"{name}{number + 1}")
    elif config is not None:
        raise _wrong(name, config)


def _from_text(text: str, name: str) -> Iterator[McpServer]:
    if text[:1] in ("{", "["):
        try:
            found = json.loads(text, strict=False)
        except (ValueError, RecursionError) as error:
            raise ToolFailed(f"the MCP servers are no JSON: {error}", "ToolProviderError") from None
        yield from _servers(found, name)
        return
    urls = [part for part in text.replace(",", "\n").split() if part]
    for number, url in enumerate(urls):
        yield _server(url, {}, name if len(urls) == 1 else f"{name}{number + 1}")


def _from_mapping(config: Mapping[str, Any], name: str) -> Iterator[McpServer]:
    if isinstance(config.get("mcpServers"), Mapping):
        config = config["mcpServers"]
    if "url" in config:
        yield _server(str(config["url"]), config, str(config.get("name") or name))
        return
    if "command" in config:
        raise ToolFailed(
            f"the MCP server {name!r} is a program to start; only servers with a URL are used",
            "ToolProviderError",
        )
    for inner, value in config.items():
        if not isinstance(value, Mapping | str):
            raise _wrong(str(inner), value)
        yield from _servers(value, str(inner))


def _server(url: str, config: Mapping[str, Any], name: str) -> McpServer:
    if not url.lower().startswith(("http://", "https://")):
        raise _wrong(name, url)
    headers = config.get("headers")
    pairs = headers.items() if isinstance(headers, Mapping) else ()
    kind = str(config.get("transport") or config.get("type") or "").lower()
    return McpServer(
        name=name,
        url=url,
        headers=tuple((str(key), str(value)) for key, value in pairs),
        transport=_TRANSPORTS.get(kind, "unknown"),
        timeout_s=_timeout(config.get("timeout")),
    )


def _timeout(value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return _TIMEOUT_S
    return seconds if 0 < seconds <= _MOST_TIMEOUT_S else _TIMEOUT_S


def _wrong(name: str, value: Any) -> ToolFailed:
    return ToolFailed(
        f"the MCP server {name!r}: expected a URL or {{url, headers}}, got {value!r}"[:300],
        "ToolProviderError",
    )
