"""Exports for the drills: nodes in a row, of every kind that waits."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import msgspec
import yaml

from server.workflow.app import App
from tests.server.running.exports import MODEL, app_of, end, export, node, start, variable

__all__ = ["agent", "app", "around", "code", "http", "llm", "row", "template", "tool"]

_FILE = {
    "variable": "f",
    "label": "f",
    "type": "file",
    "required": False,
    "allowed_file_types": ["document"],
    "allowed_file_upload_methods": ["local_file"],
}


def row(*nodes: dict[str, Any], out: list[str] | None = None, handle: str = "source") -> str:
    """Start, these, end; the last of them is left by `handle`."""
    form = start(variable("q", required=False), _FILE)
    found = yaml.safe_load(export(form, *nodes, end(**({"out": out} if out else {}))))
    found["workflow"]["graph"]["edges"][-1]["sourceHandle"] = handle
    return _text(found)


def app(text: str, id: str = "app", tools: Mapping[str, dict[str, Any]] | None = None) -> App:
    """Imported, with these bindings of tools."""
    made = app_of(text)
    bindings = msgspec.structs.replace(made.bindings, tools=dict(tools or {}))
    return msgspec.structs.replace(made, id=id, digest="", bindings=bindings)


def around(container: str, *inner: dict[str, Any], **data: Any) -> str:
    """An iteration or a loop around a row."""
    begin = node("begin", f"{container}-start")
    for one in (begin, *inner):
        one["parentId"] = "around"
    items = {"variable": "items", "label": "items", "type": "json_object", "required": False}
    outer = node("around", container, start_node_id="begin", **data)
    found = yaml.safe_load(export(start(items), outer, end(out=["around", "output"])))
    graph = found["workflow"]["graph"]
    graph["nodes"] += [begin, *inner]
    ids = [one["id"] for one in (begin, *inner)]
    for one, other in pairwise(ids):
        graph["edges"].append({"source": one, "target": other, "sourceHandle": "source"})
    return _text(found)


def llm(prompt: str, **more: Any) -> dict[str, Any]:
    return node(
        "llm", "llm", model=MODEL, prompt_template=[{"role": "user", "text": prompt}], **more
    )


def http(url: str, id: str = "http", **more: Any) -> dict[str, Any]:
    return node(
        id, "http-request", method="get", url=url, headers="", params="",
        authorization={"type": "no-auth"}, body={"type": "none", "data": []}, **more,
    )  # fmt: skip


def code(source: str, language: str = "python3") -> dict[str, Any]:
    return node(
        "code", "code", code_language=language, code=source, variables=[],
        outputs={"result": {"type": "string"}},
    )  # fmt: skip


def template(source: str) -> dict[str, Any]:
    given = [{"variable": "q", "value_selector": ["start", "q"]}]
    return node("template", "template-transform", template=source, variables=given)


def tool(kind: str, provider: str, name: str, **parameters: Any) -> dict[str, Any]:
    given = {key: {"type": "mixed", "value": value} for key, value in parameters.items()}
    return node(
        "tool", "tool", provider_id=provider, provider_type=kind, tool_name=name,
        tool_parameters=given, tool_configurations={},
    )  # fmt: skip


def agent(query: str, *tools: tuple[str, str, dict[str, Any]]) -> dict[str, Any]:
    """`tools`: provider, name and what is fixed of each."""
    listed = [
        {"provider_name": provider, "tool_name": name, "type": "builtin", "enabled": True,
         "parameters": {key: {"auto": 0, "value": {"type": "constant", "value": value}}
                        for key, value in fixed.items()}}
        for provider, name, fixed in tools
    ]  # fmt: skip
    given = {"model": MODEL, "query": query, "instruction": "", "tools": listed}
    parameters = {key: {"type": "constant", "value": value} for key, value in given.items()}
    return node(
        "agent", "agent", agent_strategy_name="function_calling", agent_parameters=parameters
    )


def _text(found: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(found)
    return text
