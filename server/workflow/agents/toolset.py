"""The tools that an agent may call: read from its export, found anew for each run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from server.workflow.agents.parameters import Parameter
from server.workflow.app import ToolRef
from server.workflow.node import NodeRun
from server.workflow.reading import GraphError, Reader
from server.workflow.services import Tool
from server.workflow.variables import Variables

__all__ = ["Offered", "ToolEntry", "Toolset", "entries_of", "tools_for"]

MOST_TOOLS: Final = 128
"""OpenAI's API takes no more in one call."""

_NAME: Final = re.compile(r"[^a-zA-Z0-9_-]+")
_LONGEST_NAME: Final = 64


class ToolEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One tool of the export's list."""

    ref: ToolRef
    label: str = ""
    description: str = ""
    """What the app's author says of it; over the tool's own words."""
    settings: dict[str, Parameter] = {}
    fixed: dict[str, Parameter] = {}
    """Arguments that the author has set; the model is not asked for them."""
    hidden: frozenset[str] = frozenset()
    """Arguments that the model is not to know of, because a form asks the author for them."""

    def selectors(self) -> Iterator[tuple[str, ...]]:
        for parameter in (*self.settings.values(), *self.fixed.values()):
            yield from parameter.selectors()


_OF_SERVERS: Final = ToolEntry(ref=ToolRef("mcp", "mcp", ""))


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """A tool as this run's model is offered it."""

    name: str
    """Unique in the set, and as OpenAI's API allows it."""
    tool: Tool
    provider: str
    label: str
    description: str
    schema: dict[str, Any]
    settings: dict[str, Any]
    fixed: dict[str, Any]
    free: bool = False
    """Whether its schema lets the model give arguments that it does not name."""

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What the model gave, as far as it may, and what is fixed. What a form asks the author
        for is not the model's to change."""
        named = self.schema["properties"]
        return {name: given[name] for name in given if self.free or name in named} | self.fixed

    def definition(self) -> dict[str, Any]:
        """As OpenAI's API has it."""
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": self.schema,
            },
        }


class Toolset:
    """The tools of one run of an agent."""

    def __init__(self, offered: Iterable[Offered]) -> None:
        self._by_name = {tool.name: tool for tool in offered}

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Offered]:
        return iter(self._by_name.values())

    @property
    def names(self) -> list[str]:
        return list(self._by_name)

    def find(self, name: str) -> Offered | None:
        """By its offered name; models that write another case or blanks are understood."""
        found = self._by_name.get(name)
        if found is not None:
            return found
        wanted = _plain_name(name)
        return next((tool for tool in self if _plain_name(tool.name) == wanted), None)

    def definitions(self) -> list[dict[str, Any]]:
        return [tool.definition() for tool in self]


def entries_of(tools: Any, place: str) -> tuple[ToolEntry, ...]:
    """Read the list of an agent node (type, provider_name, parameters, settings, ...) or of an
    agent-chat app (provider_type, provider_id, tool_parameters). Those switched off are left out.
    Raises `GraphError`."""
    if not isinstance(tools, list | tuple):
        raise GraphError(place, f"expected a list of tools, got {tools!r}"[:200])
    entries = []
    for number, found in enumerate(tools):
        entry = Reader(
            found if isinstance(found, Mapping) else {"tool_name": found}, f"{place}[{number}]"
        )
        if entry.flag("enabled", True) and not entry.flag("isDeleted"):
            entries.append(_entry(entry))
    return tuple(entries)


def _entry(entry: Reader) -> ToolEntry:
    provider = entry.text("provider_id") or entry.text("provider_name")
    name = entry.text("tool_name")
    if not name:
        raise entry.wrong("tool_name", "this tool of the agent has no name")
    return ToolEntry(
        ref=ToolRef(
            provider_type=entry.text("provider_type") or entry.text("type", "builtin"),
            provider_id=provider,
            name=name,
            provider_name=entry.text("provider_name"),
        ),
        label=entry.text("tool_label"),
        description=entry.table("extra").text("description").strip(),
        settings=_settings(entry.table("settings")),
        fixed=_fixed(entry.table("parameters")) | _fixed(entry.table("tool_parameters")),
        hidden=frozenset(
            schema.text("name")
            for schema in entry.tables("schemas")
            if schema.value("form") == "form"
        ),
    )


def _settings(table: Reader) -> dict[str, Parameter]:
    """{name: {value}}, or {name: {value: {type, value}}}, or {name: value}."""
    found = {}
    for name, item in table.data.items():
        value = item["value"] if isinstance(item, Mapping) and "value" in item else item
        parameter = _parameter(value)
        if parameter is not None:
            found[str(name)] = parameter
    return found


def _fixed(table: Reader) -> dict[str, Parameter]:
    """{name: {auto: 0, value: {type, value}}}; `auto: 1` leaves it to the model, and so does an
    empty value. Older exports have plain values."""
    found = {}
    for name, item in table.data.items():
        if isinstance(item, Mapping) and "auto" in item:
            value = item.get("value") if item["auto"] in (0, False) else None
        else:
            value = item
        parameter = _parameter(value)
        if parameter is not None:
            found[str(name)] = parameter
    return found


def _parameter(value: Any) -> Parameter | None:
    if isinstance(value, Mapping) and "value" in value:
        if value.get("type") == "variable":
            return Parameter(None, Reader(value, "value").selector("value"))
        value = value["value"]
    return None if value is None or value == "" else Parameter(value)


async def tools_for(entries: Sequence[ToolEntry], servers: Sequence[Any], run: NodeRun) -> Toolset:
    """Find them all, and all of the MCP servers'. Raises `ToolFailed`, naming the binding that is
    missing."""
    tools = run.run.services.tools
    names: set[str] = set()
    offered = []
    for entry in entries:
        tool = await tools.find(entry.ref, run)
        offered.append(_offered(tool, entry, names, run.variables))
    for server in servers:
        for tool in await tools.mcp_tools(server, run):
            offered.append(_offered(tool, _OF_SERVERS, names, run.variables))
    return Toolset(offered[:MOST_TOOLS])


def _offered(tool: Tool, entry: ToolEntry, names: set[str], variables: Variables) -> Offered:
    fixed = {name: parameter.value(variables) for name, parameter in entry.fixed.items()}
    return Offered(
        name=_unique(tool.name, names),
        tool=tool,
        provider=entry.ref.provider_id,
        label=entry.label or tool.name,
        description=entry.description or tool.description,
        schema=_without(tool.schema, {*fixed, *entry.hidden}),
        settings={name: item.value(variables) for name, item in entry.settings.items()},
        fixed=fixed,
        free="properties" not in tool.schema or tool.schema.get("additionalProperties") is True,
    )


def _without(schema: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    properties = schema.get("properties")
    kept = dict(schema) | {
        "type": "object",
        "properties": {
            name: item
            for name, item in (properties if isinstance(properties, Mapping) else {}).items()
            if name not in names
        },
    }
    if "required" in schema:
        kept["required"] = [name for name in schema["required"] if name not in names]
    return kept


def _unique(name: str, taken: set[str]) -> str:
    """A name for the model: two providers' tools may share theirs, and not all letters pass."""
    plain = _NAME.sub("_", name).strip("_")[:_LONGEST_NAME] or "tool"
    candidate, number = plain, 1
    while candidate in taken:
        number += 1
        candidate = f"{plain[: _LONGEST_NAME - 5]}_{number}"
    taken.add(candidate)
    return candidate


def _plain_name(name: str) -> str:
    return _NAME.sub("_", name.strip()).strip("_").lower()
