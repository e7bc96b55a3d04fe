"""What an app needs that its file cannot carry, and what it asks for that Triolet does not do.

Pure. Data of the wrong shape is passed over here: compiling the graph says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from server.dify.agent_needs import agent_needs
from server.dify.features import feature_findings, features_on
from server.dify.graph_reading import FoundGraph
from server.dify.references import reference_findings
from server.dify.report import (
    CodeNeed,
    Dependency,
    Finding,
    Findings,
    KnowledgeNeed,
    ModelNeed,
    Report,
    VariableNeed,
)
from server.dify.shapes import at, items, mapping, model_key, model_ref, text
from server.dify.tool_needs import ToolsHere, ToolUse, tool_needs
from server.workflow.app import OPEN_MODEL, App, ModelRef, NodeSpec, ToolRef
from server.workflow.model_names import ModelNames
from server.workflow.nodes import NODES
from server.workflow.reading import Reader

__all__ = ["Offers", "report_of"]


class Offers(msgspec.Struct, frozen=True, kw_only=True):
    """What this server has to meet an app's needs. Nothing, unless told."""

    models: ModelNames = ModelNames()
    """The table `[models]`."""
    served: frozenset[str] = frozenset()
    """The models served here."""
    code: bool = False
    """Whether code nodes may run."""
    knowledge: frozenset[str] = frozenset()
    """The knowledge bases here."""
    tools: Mapping[str, Mapping[str, Any]] = {}
    """The table `[tools]`: settings by provider, or by provider and tool."""
    providers: frozenset[str] = frozenset()
    """Providers of tools that are installed beside the native ones."""
    apps: frozenset[str] = frozenset()
    """Names and ids of the apps here, which workflow tools may call."""


def report_of(
    app: App, found: FoundGraph, root: Reader, offers: Offers, findings: Findings
) -> Report:
    """Look through the app; `findings` has what reading it found already."""
    nodes = app.graph.nodes
    _unknown_types(nodes, findings)
    models = _models(app, offers, findings)
    agents = [agent_needs(node, findings) for node in nodes if node.type == "agent"]
    uses = [*_tool_nodes(nodes), *(use for agent in agents for use in agent.tools)]
    here = ToolsHere(offers.tools, offers.providers, offers.apps)
    tools = tool_needs(uses, app, here, findings)
    knowledge = _knowledge(app, offers, findings)
    environment = _environment(app, findings)
    code = _code(nodes, offers, findings)
    feature_findings(app, findings)
    reference_findings(app, findings)
    return Report(
        name=app.name,
        mode=app.mode,
        version=app.version,
        nodes=found.types,
        edges=found.edges,
        notes=found.notes,
        features=features_on(app.features),
        inputs=tuple(each.name for each in app.inputs),
        models=models,
        knowledge=knowledge,
        tools=tools,
        environment=environment,
        conversation=tuple(each.name for each in app.conversation),
        mcp_servers=tuple(server for agent in agents for server in agent.servers),
        code=code,
        dependencies=tuple(_dependencies(root)),
        findings=_ordered(findings),
    )


_ORDER: Final = ("unsupported", "missing", "warning", "info")


def _ordered(findings: Findings) -> tuple[Finding, ...]:
    return tuple(sorted(findings.all, key=lambda each: _ORDER.index(each.severity)))


def _unknown_types(nodes: tuple[NodeSpec, ...], findings: Findings) -> None:
    for node in nodes:
        if node.type not in NODES:
            message = f"there is no node of the type {node.type!r} here"
            findings.add("unsupported", "node-type", node.place, message)


# Models


def _models(app: App, offers: Offers, findings: Findings) -> tuple[ModelNeed, ...]:
    places: dict[ModelRef, list[str]] = {}
    for node in app.graph.nodes:
        for ref, place in _models_of(node, findings):
            places.setdefault(ref, []).append(place)
    return tuple(_model_need(ref, found, app, offers, findings) for ref, found in places.items())


def _models_of(node: NodeSpec, findings: Findings) -> Iterator[tuple[ModelRef, str]]:
    for path, value in _model_values(node):
        ref = model_ref(value)
        if ref is not None:
            yield ref, at(node, path)
        elif path == "model" or (path.startswith("agent") and isinstance(value, Mapping)):
            message = f"no model is chosen: it uses the one bound as model:{OPEN_MODEL}"
            findings.add("warning", "model", at(node, path), message)
            yield ModelRef("", OPEN_MODEL), at(node, path)


def _model_values(node: NodeSpec) -> Iterator[tuple[str, Any]]:
    data = node.data
    if node.type in ("llm", "question-classifier", "parameter-extractor"):
        yield "model", data.get("model")
    elif node.type == "agent":
        parameters = mapping(data.get("agent_parameters"))
        yield "agent_parameters.model.value", mapping(parameters.get("model")).get("value")
    elif data.get("metadata_filtering_mode") == "automatic":
        yield "metadata_model_config", data.get("metadata_model_config")


def _model_need(
    ref: ModelRef, places: list[str], app: App, offers: Offers, findings: Findings
) -> ModelNeed:
    named = model_key(ref)
    key = f"model:{named}"
    choice = offers.models.choose(ref, app.bindings, offers.served)
    if choice is None:
        fix = f'--bind "{key}=MODEL", or name it in [models]'
        findings.add("missing", "model", places[0], f"the model {named} is not bound", fix)
    return ModelNeed(
        key=key,
        model=ref,
        places=tuple(places),
        bound=None if choice is None else choice.model,
        by="" if choice is None else choice.how,
    )


# Knowledge bases


def _knowledge(app: App, offers: Offers, findings: Findings) -> tuple[KnowledgeNeed, ...]:
    places: dict[str, list[str]] = {}
    for node in app.graph.nodes:
        if node.type != "knowledge-retrieval":
            continue
        ids = [text(one) for one in items(node.data.get("dataset_ids")) if text(one)]
        for number, id in enumerate(ids):
            places.setdefault(id, []).append(at(node, f"dataset_ids[{number}]"))
        if not ids:
            message = "it names no knowledge base: the export has left them out; nothing is found"
            fix = f'--bind "knowledge:{node.id}=NAME"'
            findings.add("warning", "knowledge", at(node, "dataset_ids"), message, fix)
    return tuple(_knowledge_need(id, found, app, offers, findings) for id, found in places.items())


def _knowledge_need(
    id: str, places: list[str], app: App, offers: Offers, findings: Findings
) -> KnowledgeNeed:
    key = f"knowledge:{id}"
    named = app.bindings.knowledge
    bound = named.get(id) or named.get("*") or (id if id in offers.knowledge else None)
    if bound is None:
        message = f"the knowledge base {id} is not bound"
        findings.add("missing", "knowledge", places[0], message, f'--bind "{key}=NAME"')
    return KnowledgeNeed(key=key, id=id, places=tuple(places), bound=bound)


# Tools


def _tool_nodes(nodes: tuple[NodeSpec, ...]) -> Iterator[ToolUse]:
    for node in nodes:
        if node.type == "tool":
            data = node.data
            ref = ToolRef(
                text(data.get("provider_type")) or "builtin",
                text(data.get("provider_id")),
                text(data.get("tool_name")),
                text(data.get("provider_name")),
            )
            yield ToolUse(ref, at(node, "provider_id"))


# The environment and code


def _environment(app: App, findings: Findings) -> tuple[VariableNeed, ...]:
    needs = []
    for number, each in enumerate(app.environment):
        place = f"workflow.environment_variables[{number}]"
        key = f"env:{each.name}"
        empty = each.value == "" and each.name not in app.bindings.environment
        if empty:
            secret = each.value_type == "secret"
            message = f"the {'secret' if secret else 'variable'} {each.name} is empty"
            severity: Any = "missing" if secret else "warning"
            findings.add(severity, "environment", place, message, f'--bind "{key}=VALUE"')
        needs.append(
            VariableNeed(
                key=key, name=each.name, value_type=each.value_type, place=place, empty=empty
            )
        )
    return tuple(needs)


def _code(nodes: tuple[NodeSpec, ...], offers: Offers, findings: Findings) -> CodeNeed:
    found = [node for node in nodes if node.type == "code"]
    if not found:
        return CodeNeed(allowed=offers.code)
    languages = sorted({text(node.data.get("code_language")) or "python3" for node in found})
    if not offers.code:
        said = "1 code node" if len(found) == 1 else f"{len(found)} code nodes"
        message = f"{said} ({', '.join(languages)}): code does not run unless it is allowed"
        fix = "[code] enabled = true, or --allow-code"
        findings.add("missing", "code", found[0].place, message, fix)
    places = tuple(node.place for node in found)
    return CodeNeed(languages=tuple(languages), places=places, allowed=offers.code)


def _dependencies(root: Reader) -> Iterator[Dependency]:
    for one in items(root.data.get("dependencies"))[:500]:
        value = mapping(mapping(one).get("value"))
        kind = text(mapping(one).get("type"))
        name = next((text(value[key]) for key in _NAMES if text(value.get(key))), "")
        plugin, _, version = name.partition("@")[0].partition(":")
        if plugin:
            yield Dependency(name=plugin, kind=kind, version=version or text(value.get("version")))


_NAMES: Final[tuple[str, ...]] = (
    *("marketplace_plugin_unique_identifier", "plugin_unique_identifier"),
    *("github_plugin_unique_identifier", "repo"),
)
