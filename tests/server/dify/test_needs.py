"""What a report says that an app needs, and which bindings and settings meet it."""

from __future__ import annotations

from typing import Any

import pytest

from server.dify.dsl import Offers, read_app
from server.dify.report import Findings, Report
from server.workflow.app import Bindings
from server.workflow.model_names import ModelNames
from tests.server.dify.exports import end, model, node, start, workflow, written


def report(
    *nodes: dict[str, Any],
    bindings: Bindings | None = None,
    offers: Offers | None = None,
    **more: Any,
) -> Report:
    export = workflow(start(), *nodes, end("start", "x"), **more)
    return read_app(written(export), bindings or Bindings(), offers or Offers())[1]


LLM = node("ask", "llm", model=model(), prompt_template=[{"role": "user", "text": "hi"}])


def test_models_are_found_wherever_nodes_have_them() -> None:
    """Each once, with all its places."""
    found = report(
        LLM,
        node("sort", "question-classifier", model=model(), classes=[]),
        node("take", "parameter-extractor", model=model("other", "x/y/z")),
        node(
            "act", "agent", agent_parameters={"model": {"value": {"provider": "p", "model": "m"}}}
        ),
        node(
            "look",
            "knowledge-retrieval",
            metadata_filtering_mode="automatic",
            metadata_model_config=model("filter"),
        ),
    )
    assert {need.key: len(need.places) for need in found.models} == {
        "model:openai:gpt-4o": 2,
        "model:x/y/z:other": 1,
        "model:p:m": 1,
        "model:openai:filter": 1,
    }
    assert found.models[0].places[0] == "workflow.graph.nodes[1].data.model"


@pytest.mark.parametrize(
    ("bindings", "offers", "bound", "by"),
    [
        (Bindings(), Offers(), None, ""),
        (Bindings(models={"openai:*": "q"}), Offers(), "q", "binding"),
        (Bindings(models={"langgenius/openai/*:*": "q"}), Offers(), "q", "binding"),
        (Bindings(), Offers(models=ModelNames({"*": "r"})), "r", "configured"),
        (Bindings(), Offers(served=frozenset({"gpt-4o", "b"})), "gpt-4o", "same name"),
    ],
)
def test_models_are_bound(bindings: Bindings, offers: Offers, bound: str | None, by: str) -> None:
    """By a binding, by the table, or by their own name."""
    found = report(LLM, bindings=bindings, offers=offers)
    assert (found.models[0].bound, found.models[0].by) == (bound, by)
    assert found.is_runnable == (bound is not None)
    if bound is None:
        finding = found.findings[0]
        assert (finding.severity, finding.code) == ("missing", "model")
        assert '--bind "model:openai:gpt-4o=MODEL"' in finding.fix


@pytest.mark.parametrize(
    ("name", "key"), [("qwen3-8b", "model:qwen3-8b"), ("qwen2.5:7b", "model:*:qwen2.5:7b")]
)
def test_models_without_a_provider(name: str, key: str) -> None:
    """Their key is one that binds them."""
    ask = node("ask", "llm", model={"name": name})
    assert report(ask).models[0].key == key
    bound = Bindings(models={key.removeprefix("model:"): "served"})
    assert report(ask, bindings=bound).models[0].bound == "served"


def test_a_node_without_a_model() -> None:
    """No model was chosen: it needs one bound by a name that all such nodes share."""
    ask = node("ask", "llm", model={"provider": "", "name": ""})
    found = report(ask)
    assert [each.place for each in found.of("warning")] == ["workflow.graph.nodes[1].data.model"]
    assert [need.key for need in found.models] == ["model:default"]
    bound = report(ask, bindings=Bindings(models={"default": "served"}))
    assert bound.models[0].bound == "served"
    assert bound.is_runnable


def test_knowledge() -> None:
    """Bases are bound by their ids, or by the node where the export has lost them."""
    look = node("look", "knowledge-retrieval", dataset_ids=["a", "b"])
    lost = node("lost", "knowledge-retrieval", dataset_ids=[])
    found = report(look, lost, bindings=Bindings(knowledge={"a": "handbook"}))
    assert [(need.id, need.bound) for need in found.knowledge] == [("a", "handbook"), ("b", None)]
    assert [each.severity for each in found.findings] == ["missing", "warning"]
    app, found = read_app(
        written(workflow(start(), lost, end("lost", "result"))),
        Bindings(knowledge={"lost": "handbook"}),
    )
    assert app.graph.nodes[1].data["dataset_ids"] == ["lost"]
    assert found.is_runnable
    found = report(look, bindings=Bindings(knowledge={"*": "handbook", "b": "pets"}))
    assert [need.bound for need in found.knowledge] == ["handbook", "pets"]
    assert found.is_runnable


def tool(type: str, provider: str, name: str = "do") -> dict[str, Any]:
    return node(
        "call",
        "tool",
        provider_type=type,
        provider_id=provider,
        provider_name=provider,
        tool_name=name,
    )


@pytest.mark.parametrize(
    ("type", "provider", "kind", "settings", "fix"),
    [
        ("builtin", "nobody/has/this", "plugin", {"openapi": "x"}, "openapi=URL_OR_FILE"),
        ("api", "an-id", "api", {"openapi": "x"}, "openapi=URL_OR_FILE"),
        ("mcp", "server-1", "mcp", {"mcp": "http://h"}, "mcp=URL"),
        ("workflow", "an-id", "workflow", {"workflow": "Other"}, "workflow=NAME"),
    ],
)
def test_tools(type: str, provider: str, kind: str, settings: dict[str, Any], fix: str) -> None:
    """What is not here is missing, with the setting that would supply it."""
    found = report(tool(type, provider))
    assert (found.tools[0].kind, found.tools[0].bound) == (kind, False)
    assert found.findings[0].fix == f'--bind "tool:{provider}.{fix}"'
    for given in (
        {"bindings": Bindings(tools={provider: settings})},
        {"offers": Offers(tools={provider: settings})},
    ):
        found = report(tool(type, provider), **given)
        assert found.tools[0].bound
        assert found.is_runnable


def test_tools_that_are_here() -> None:
    """Native ones by long and short names; installed packages; apps of that name."""
    assert report(tool("builtin", "time", "current_time")).is_runnable
    assert report(tool("plugin", "langgenius/time/time", "current_time")).tools[0].kind == "native"
    assert report(
        tool("builtin", "o/p/mine"), offers=Offers(providers=frozenset({"mine"}))
    ).is_runnable
    assert report(tool("workflow", "id-1"), offers=Offers(apps=frozenset({"id-1"}))).is_runnable


def test_credentials_of_native_tools() -> None:
    """A native tool that needs a key says so until it is bound."""
    found = report(tool("builtin", "langgenius/tavily/tavily", "tavily_search"))
    assert found.findings[0].code == "credential"
    assert found.findings[0].fix == '--bind "tool:langgenius/tavily/tavily.tavily_api_key=VALUE"'
    bound = Bindings(tools={"tavily": {"tavily_api_key": "k"}})
    assert report(tool("builtin", "langgenius/tavily/tavily"), bindings=bound).is_runnable


@pytest.mark.parametrize(
    ("provider", "name", "setting"),
    [
        ("wecom", "wecom_group_bot", "hook_key"),
        ("slack", "slack_webhook", "webhook_url"),
        ("jina", "jina_search", "api_key"),
    ],
)
def test_keys_of_single_tools(provider: str, name: str, setting: str) -> None:
    """Each says what it needs; jina's reader needs none."""
    found = report(tool("builtin", provider, name))
    assert [each.fix for each in found.findings] == [f'--bind "tool:{provider}.{setting}=VALUE"']
    bound = Bindings(tools={provider: {setting: "k"}})
    assert report(tool("builtin", provider, name), bindings=bound).is_runnable
    assert report(tool("builtin", "jina", "jina_reader")).is_runnable


def test_credentials_are_those_that_native_tools_ask_for() -> None:
    """Each setting of the table is one that the provider's module reads."""
    from importlib import import_module
    from pathlib import Path

    from server.dify.credentials import _ANY_OF, _OF_TOOLS
    from server.tools.native import NATIVE

    of_tools = {provider: names for (provider, _), names in _OF_TOOLS.items()}
    for provider, names in (*_ANY_OF.items(), *of_tools.items()):
        module = import_module(f"server.tools.native.{NATIVE[provider].partition(':')[0]}")
        source = Path(str(module.__file__)).read_text()
        assert all(name == "base_url" or f'"{name}"' in source for name in names), provider


def agent(**parameters: Any) -> dict[str, Any]:
    told = {name: {"type": "constant", "value": value} for name, value in parameters.items()}
    return node("act", "agent", agent_strategy_name="function_calling", agent_parameters=told)


def test_tools_of_agents() -> None:
    """Those that are switched on."""
    tools = [
        {"enabled": True, "type": "builtin", "provider_name": "time", "tool_name": "current_time"},
        {"enabled": False, "type": "builtin", "provider_name": "x/y/z", "tool_name": "off"},
        "broken",
    ]
    found = report(agent(tools=tools))
    assert [need.tool.name for need in found.tools] == ["current_time"]


def test_servers_of_agents() -> None:
    """MCP servers are named without what may be a key; programs are not started."""
    found = report(agent(mcp_server="https://user:pw@host.example/sse?key=secret"))
    assert [server.url for server in found.mcp_servers] == ["https://host.example/sse"]
    assert "secret" not in str(found)
    found = report(agent(mcp_servers_config='{"mcpServers": {"a": {"command": "rm"}}}'))
    assert [each.code for each in found.of("unsupported") if each.code == "mcp"] == ["mcp"]
    assert not report(agent(mcp_server="{{#env.URL#}}")).mcp_servers


def test_code() -> None:
    """Code nodes need leave; the report says so once for all of them."""
    nodes = [
        node(f"c{n}", "code", code_language=kind)
        for n, kind in enumerate(["python3", "javascript"])
    ]
    found = report(*nodes)
    assert found.code.languages == ("javascript", "python3")
    assert [each.fix for each in found.of("missing")] == ["[code] enabled = true, or --allow-code"]
    assert report(*nodes, offers=Offers(code=True)).is_runnable


def test_dependencies() -> None:
    """Plugins are named, whatever the kind of entry."""
    export = workflow(start(), end("start", "x")) | {
        "dependencies": [
            {"type": "marketplace", "value": {"marketplace_plugin_unique_identifier": "a/b:1.0@c"}},
            {"type": "package", "value": {"plugin_unique_identifier": "d/e:2.0@f"}},
            {"type": "github", "value": {"repo": "g/h", "version": "3"}},
            "broken",
        ]
    }
    found = read_app(written(export))[1].dependencies
    assert [(each.name, each.version) for each in found] == [
        ("a/b", "1.0"),
        ("d/e", "2.0"),
        ("g/h", "3"),
    ]


def test_references_to_nowhere() -> None:
    """Placeholders that name no node or no variable are warned of, once each."""
    text = "{{#gone.text#}} {{#gone.text#}} {{#env.NO#}} {{#start.x#}} {{#sys.query#}}"
    found = report(
        node("say", "llm", model=model(), prompt_template=[{"role": "user", "text": text}])
    )
    references = [each for each in found.findings if each.code == "reference"]
    assert [each.message.partition(" ")[0] for each in references] == [
        "{{#gone.text#}}",
        "{{#env.NO#}}",
    ]
    assert references[0].place == "workflow.graph.nodes[1].data.prompt_template[0].text"


def test_findings_are_bounded() -> None:
    """A file that gives cause for a thousand warnings gets a hundred, and loses nothing else."""
    findings = Findings()
    for number in range(1000):
        findings.add("warning", "reference", str(number), "m")
    findings.add("unsupported", "node-type", "x", "m")
    assert len(findings.all) == 101


def test_order_of_findings() -> None:
    """What stops the app comes first."""
    found = report(node("c", "code"), node("x", "hologram"), version="9.0")
    assert [each.severity for each in found.findings] == ["unsupported", "missing", "warning"]
