"""The tools that an app calls, and which of them there is something here to call. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from server.dify.credentials import missing_credential
from server.dify.report import Findings, ToolNeed
from server.tools.bindings import binding_of, short_name
from server.workflow.app import App, ToolRef

__all__ = ["ToolUse", "ToolsHere", "native_key", "tool_needs"]

ToolKind: TypeAlias = Literal["native", "plugin", "api", "mcp", "workflow"]


class ToolsHere(NamedTuple):
    """What this server has beside the native tools."""

    settings: Mapping[str, Mapping[str, Any]]
    """By provider, or by provider and tool."""
    providers: frozenset[str]
    apps: frozenset[str]
    """Names and ids of the apps, which workflow tools may call."""


class ToolUse(NamedTuple):
    """A tool, and the place that names it."""

    tool: ToolRef
    place: str


_MISSING: Final[dict[str, tuple[str, str]]] = {
    "api": ("openapi=URL_OR_FILE", "the OpenAPI document of an API is not bound"),
    "mcp": ("mcp=URL", "an MCP server is not bound"),
    "workflow": ("workflow=NAME", "an app that is a tool here is not bound"),
    "plugin": ("openapi=URL_OR_FILE", "no tool of this name is here"),
}
"""What to bind, and what is missing."""


def tool_needs(
    uses: Iterable[ToolUse],
    app: App,
    here: ToolsHere,
    findings: Findings,
) -> tuple[ToolNeed, ...]:
    """One for each tool, with all places that name it."""
    places: dict[tuple[str, str, str], list[str]] = {}
    refs: dict[tuple[str, str, str], ToolRef] = {}
    for ref, place in uses:
        known = (ref.provider_type, ref.provider_id, ref.name)
        refs.setdefault(known, ref)
        places.setdefault(known, []).append(place)
    return tuple(
        _need(refs[known], tuple(found), app, here, findings) for known, found in places.items()
    )


def native_key(provider_id: str) -> str | None:
    """The key of the native provider that stands for it; None if none does."""
    from server.tools.native import NATIVE

    for key in (provider_id, short_name(provider_id)):
        if key in NATIVE:
            return key
    return None


def _need(
    ref: ToolRef,
    places: tuple[str, ...],
    app: App,
    here: ToolsHere,
    findings: Findings,
) -> ToolNeed:
    provider = ref.provider_id or ref.provider_name
    settings = binding_of(ref, here.settings, app.bindings.tools)
    kind = _kind(ref, provider)
    bound = bool(settings.keys() & _SOURCES) or _is_here(kind, ref, provider, here)
    key = f"tool:{provider}"
    named = f"{ref.name} of {_provider(ref, provider)}"
    if not bound:
        setting, message = _MISSING[kind]
        findings.add(
            "missing", "tool", places[0], f"{message}: {named}", f'--bind "{key}.{setting}"'
        )
    elif kind == "native":
        credential = missing_credential(native_key(provider) or "", ref.name, settings)
        if credential and not settings.keys() & _SOURCES:
            message = f"the tool {named} needs {credential}"
            fix = f'--bind "{key}.{credential}=VALUE"'
            findings.add("missing", "credential", places[0], message, fix)
    return ToolNeed(
        key=key, tool=ref, kind=kind, places=places, settings=tuple(sorted(settings)), bound=bound
    )


_SOURCES: Final = frozenset({"openapi", "mcp", "workflow"})
"""Settings that say where a tool is; they count before all else."""


def _is_here(kind: ToolKind, ref: ToolRef, provider: str, here: ToolsHere) -> bool:
    if kind == "workflow":
        return bool(here.apps & {provider, ref.name})
    if kind == "plugin":
        return bool(here.providers & {provider, short_name(provider)})
    return kind == "native"


def _kind(ref: ToolRef, provider: str) -> ToolKind:
    if ref.provider_type == "api":
        return "api"
    if ref.provider_type == "mcp":
        return "mcp"
    if ref.provider_type in ("workflow", "app"):
        return "workflow"
    return "native" if native_key(provider) else "plugin"


def _provider(ref: ToolRef, provider: str) -> str:
    name = ref.provider_name
    return f"{name} ({provider})" if name and name != provider else provider
