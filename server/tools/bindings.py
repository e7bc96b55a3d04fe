"""What the operator says of a tool or of its provider: settings, credentials, where it is. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from server.workflow.app import ToolRef

__all__ = ["binding_of", "short_name"]


def short_name(provider_id: str) -> str:
    """The last part of a provider's id: "tavily" of "langgenius/tavily/tavily"."""
    return provider_id.rpartition("/")[2]


def binding_of(tool: ToolRef, *tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """All settings that the tables have for the tool, later tables over earlier ones.

    In one table the tool's own ("langgenius/tavily/tavily:tavily_search", "tavily:tavily_search")
    count before its provider's ("langgenius/tavily/tavily", "tavily").
    """
    settings: dict[str, Any] = {}
    for table in tables:
        for key in _keys(tool):
            settings |= table.get(key, {})
    return settings


def _keys(tool: ToolRef) -> Iterator[str]:
    """Least particular first."""
    names = [tool.provider_name, short_name(tool.provider_id), tool.provider_id]
    names = [name for name in dict.fromkeys(names) if name]
    yield from names
    if tool.name:
        yield from (f"{name}:{tool.name}" for name in names)
