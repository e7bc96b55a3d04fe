"""Other ways to write the same export: as older and newer editors, scripts and people write them.

Each takes an export as it was read and gives it back changed; what it does stays the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import yaml

__all__ = ["VARIATIONS", "written"]

Export = dict[str, Any]

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

_LAYOUT = {
    *("desc", "position", "positionAbsolute", "sourcePosition", "targetPosition", "width"),
    *("height", "selected", "dragging", "zIndex", "viewport", "draggable", "selectable"),
}
_CHAT_BLOCKS = (
    *("speech_to_text", "text_to_speech", "retriever_resource", "sensitive_word_avoidance"),
    *("suggested_questions", "suggested_questions_after_answer", "external_data_tools"),
    *("annotation_reply", "more_like_this", "opening_statement"),
)


def written(export: Export, sort_keys: bool = False) -> bytes:
    """As YAML."""
    text: str = yaml.dump(
        export, Dumper=_Dumper, sort_keys=sort_keys, allow_unicode=True, width=200
    )
    return text.encode()


def _nodes(export: Export) -> list[dict[str, Any]]:
    graph = (export.get("workflow") or {}).get("graph") or {}
    return [node for node in graph.get("nodes", []) if node.get("data")]


def _tables(value: Any) -> Iterator[dict[str, Any]]:
    """All mappings in it."""
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from _tables(each)
    elif isinstance(value, list):
        for each in value:
            yield from _tables(each)


def without_layout(export: Export) -> None:
    """Nothing of how an editor draws it."""
    graph = (export.get("workflow") or {}).get("graph") or {}
    graph.pop("viewport", None)
    for node in _nodes(export):
        for table in (node, node["data"]):
            for name in _LAYOUT & set(table):
                del table[name]


def without_version(export: Export) -> None:
    """The first exports had neither version nor kind, nor anything but a name and a mode."""
    for name in ("version", "kind", "dependencies"):
        export.pop(name, None)
    export["app"] = {name: export["app"][name] for name in ("name", "mode")}


def short_providers(export: Export) -> None:
    """As they were before plugins: "openai" for "langgenius/openai/openai"."""
    for table in _tables(export):
        for name in ("provider", "provider_id", "provider_name"):
            value = table.get(name)
            if isinstance(value, str) and value.count("/") == 2:
                table[name] = value.rpartition("/")[2]


def nulls(export: Export) -> None:
    """Optional blocks that are there, and null."""
    workflow = export.get("workflow") or {}
    for name in ("features", "environment_variables", "conversation_variables"):
        if name == "features" or not workflow.get(name):
            workflow[name] = None
    export["dependencies"] = None
    for name in _CHAT_BLOCKS:
        if export.get("model_config"):
            export["model_config"][name] = None
    for node in _nodes(export):
        data = node["data"]
        data.update(dict.fromkeys(_optional(data)))
        if data.get("vision"):
            data["vision"]["configs"] = None


def _optional(data: dict[str, Any]) -> Iterator[str]:
    """Those of a node's blocks whose absence changes nothing of what the node gives out."""
    yield from ("memory", "retry_config", "desc")
    if data.get("error_strategy") != "default-value":
        yield "default_value"
    if data.get("error_strategy") is None:
        yield "error_strategy"
    for name in ("context", "vision"):
        if not (data.get(name) or {}).get("enabled"):
            yield name
    if not data.get("structured_output_enabled"):
        yield "structured_output"
    if not (data.get("prompt_config") or {}).get("jinja2_variables"):
        yield "prompt_config"
    for name in ("tool_configurations", "variables", "metadata_filtering_conditions"):
        if not data.get(name):
            yield name


def without_model_mode(export: Export) -> None:
    """The mode of a model is known from its prompt."""
    for node in _nodes(export):
        if isinstance(node["data"].get("model"), dict):
            node["data"]["model"].pop("mode", None)
    model = (export.get("model_config") or {}).get("model")
    if isinstance(model, dict):
        model.pop("mode", None)


def without_models(export: Export) -> None:
    """No model chosen, as in an app that waits for somebody to choose: it takes the one bound."""
    for table in _tables(export):
        if table.get("provider") and isinstance(table.get("completion_params"), dict):
            table["provider"] = ""
            table["name" if "name" in table else "model"] = ""


def numbers_as_ids(export: Export) -> None:
    """Ids without quotes, wherever they stand."""
    ids = {str(node["id"]) for node in _nodes(export) if str(node["id"]).isdigit()}
    if export.get("workflow"):
        export["workflow"]["graph"] = _numbered(export["workflow"]["graph"], ids)


def _numbered(value: Any, ids: set[str]) -> Any:
    if isinstance(value, dict):
        return {name: _numbered(each, ids) for name, each in value.items()}
    if isinstance(value, list):
        return [_numbered(each, ids) for each in value]
    return int(value) if isinstance(value, str) and value in ids else value


def bare_edges(export: Export) -> None:
    """Nothing but their ends, and the handle where there is a choice."""
    graph = (export.get("workflow") or {}).get("graph") or {}
    graph["edges"] = [_bare(edge) for edge in graph.get("edges", [])]
    for node in _nodes(export):
        if node.get("type") == "custom":
            del node["type"]


def _bare(edge: dict[str, Any]) -> dict[str, Any]:
    kept = {name: edge[name] for name in ("source", "target")}
    if edge.get("sourceHandle") not in (None, "source"):
        kept["sourceHandle"] = edge["sourceHandle"]
    return kept


def null_edges(export: Export) -> None:
    """All that edges have beside their ends is null."""
    graph = (export.get("workflow") or {}).get("graph") or {}
    for edge in graph.get("edges", []):
        kept = _bare(edge)
        edge.update({name: kept.get(name) for name in edge})


def from_the_end(export: Export) -> None:
    """Nodes and edges in another order; a version that is a number."""
    export["version"] = 0.3
    graph = (export.get("workflow") or {}).get("graph") or {}
    for name in ("nodes", "edges"):
        graph[name] = graph.get(name, [])[::-1]


def as_json(data: bytes) -> bytes:
    """YAML has JSON in it."""
    return json.dumps(yaml.load(data, Loader=_Loader), ensure_ascii=False, default=str).encode()


def of_windows(data: bytes) -> bytes:
    """With a byte order mark and the line ends of Windows."""
    return b"\xef\xbb\xbf" + data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def in_order(export: Export) -> None:
    """Sorted keys, as Dify writes them: see `written`."""


def _varied(change: Callable[[Export], None], sort_keys: bool = False) -> Callable[[bytes], bytes]:
    def vary(data: bytes) -> bytes:
        export = yaml.load(data, Loader=_Loader)
        change(export)
        return written(export, sort_keys)

    return vary


VARIATIONS: dict[str, Callable[[bytes], bytes]] = {
    "sorted keys": _varied(in_order, sort_keys=True),
    "no layout": _varied(without_layout),
    "no version": _varied(without_version),
    "short providers": _varied(short_providers),
    "nulls": _varied(nulls),
    "no model mode": _varied(without_model_mode),
    "no models": _varied(without_models),
    "numbers as ids": _varied(numbers_as_ids),
    "bare edges": _varied(bare_edges),
    "null edges": _varied(null_edges),
    "from the end": _varied(from_the_end),
    "JSON": as_json,
    "Windows": of_windows,
}
