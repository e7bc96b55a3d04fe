"""The nodes and edges of an export, as a `GraphSpec`. Pure.

What only the editor needs (notes, positions, ids of edges) is left out; each node's data is kept
whole. Whether the graph can run is not asked here: compiling it says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from server.dify.report import Findings
from server.dify.upgrade import handle_name, upgraded
from server.dify.yaml_reading import DslError
from server.workflow.app import EdgeSpec, GraphSpec, NodeSpec
from server.workflow.limits import MOST_EDGES, MOST_NODES
from server.workflow.nodes import NODES
from server.workflow.reading import Reader

__all__ = ["FoundGraph", "read_graph"]

_MOST_OF_AN_ID: Final = 255
_STARTS: Final = {"iteration": "iteration-start", "loop": "loop-start"}
"""Containers, and where their rounds begin."""

_PLACEHOLDERS: Final = frozenset({"start-placeholder", "datasource-empty"})
"""What the editor shows where nothing has been put yet."""


class FoundGraph(msgspec.Struct):
    """A graph, and what was counted on the way."""

    spec: GraphSpec
    types: dict[str, int]
    edges: int
    notes: int


def read_graph(graph: Reader, findings: Findings) -> FoundGraph:
    """Raises `DslError` or `GraphError` for what is no graph."""
    raw_nodes, raw_edges = graph.items("nodes"), graph.items("edges")
    _bounded(graph, "nodes", len(raw_nodes), MOST_NODES)
    _bounded(graph, "edges", len(raw_edges), MOST_EDGES)
    nodes: list[NodeSpec] = []
    left_out: set[str] = set()
    notes = 0
    for raw in graph.tables("nodes"):
        if raw.data.get("type") == "custom-note" or _type(raw) in _PLACEHOLDERS:
            notes += 1
            left_out.add(_id(raw))
            continue
        nodes.append(_node(raw, findings))
    types = dict(sorted(Counter(node.type for node in nodes).items()))
    nodes = _with_parents(nodes, findings)
    edges = [
        edge
        for edge in _edges(graph, findings)
        if edge.source not in left_out and edge.target not in left_out
    ]
    spec = _with_starts(GraphSpec(tuple(nodes), tuple(edges)))
    return FoundGraph(spec, types, len(edges), notes)


def _bounded(graph: Reader, key: str, found: int, most: int) -> None:
    if found > most:
        raise graph.wrong(key, f"there are {found}; at most {most} are read")


def _node(raw: Reader, findings: Findings) -> NodeSpec:
    type = _type(raw)
    if not type:
        raise DslError(f"{raw.place}.data", "a node needs a `type` in its data, such as llm")
    type, data, old = upgraded(type, dict(raw.table("data").data))
    if old:
        findings.add("info", "old-form", f"{raw.place}.data", f"an older form was read: {old}")
    title = data.get("title")
    return NodeSpec(
        id=_id(raw),
        type=type,
        title=title if isinstance(title, str) else "" if title is None else str(title)[:200],
        data=data,
        parent=_parent(raw),
        place=raw.place,
    )


def _type(raw: Reader) -> str:
    """In the data; files written by hand may have it at the node itself."""
    data = raw.data.get("data")
    found = data.get("type") if isinstance(data, Mapping) else None
    if found:
        return found if isinstance(found, str) else str(found)[:100]
    outer = raw.data.get("type")
    return outer if isinstance(outer, str) and (outer in NODES or outer in _PLACEHOLDERS) else ""


def _id(raw: Reader) -> str:
    found = _name(raw.data.get("id"))
    if found is None:
        raise raw.wrong("id", "a node needs an id, such as ask_model")
    return found


def _name(value: Any) -> str | None:
    """An id: a text, or what YAML takes for a number."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        return None
    return str(value) if len(str(value)) <= _MOST_OF_AN_ID else None


def _parent(raw: Reader) -> str | None:
    data = raw.table("data").data
    for value in (raw.data.get("parentId"), data.get("iteration_id"), data.get("loop_id")):
        if value:
            return _name(value)
    return None


def _with_parents(nodes: list[NodeSpec], findings: Findings) -> list[NodeSpec]:
    """Container starts that do not say where they belong, and parents that are no containers."""
    containers = {node.id: node for node in nodes if node.type in _STARTS}
    starts = {_name(node.data.get("start_node_id")): node.id for node in containers.values()}
    made = []
    for node in nodes:
        parent = node.parent
        if parent is None and node.type in _STARTS.values():
            parent = starts.get(node.id) or node.id.removesuffix("start")
        if parent is not None and parent not in containers:
            findings.add(
                "warning",
                "parent",
                node.place,
                f"it stands in {parent!r}, which is no iteration or loop: read as if it did not",
            )
            parent = None
        made.append(node if parent == node.parent else msgspec.structs.replace(node, parent=parent))
    return made


def _edges(graph: Reader, findings: Findings) -> Iterator[EdgeSpec]:
    for raw in graph.tables("edges"):
        source, target = _name(raw.data.get("source")), _name(raw.data.get("target"))
        if source is None or target is None:
            message = "an edge needs a source and a target: left out"
            findings.add("warning", "edge", raw.place, message)
            continue
        handle = raw.data.get("sourceHandle")
        yield EdgeSpec(source, target, "source" if handle is None else handle_name(handle)[:255])


def _with_starts(graph: GraphSpec) -> GraphSpec:
    """Give each container that has none a start: early iterations began at their first node."""
    insides: dict[str, list[NodeSpec]] = {}
    for node in graph.nodes:
        if node.parent is not None:
            insides.setdefault(node.parent, []).append(node)
    nodes: list[NodeSpec] = []
    edges = list(graph.edges)
    taken = {node.id for node in graph.nodes}
    heads = {edge.target for edge in graph.edges}
    for node in graph.nodes:
        inside = insides.get(node.id, [])
        if node.type not in _STARTS or not inside:
            nodes.append(node)
            continue
        start = next((each for each in inside if each.type == _STARTS[node.type]), None)
        if start is None:
            start = _start_of(node, taken)
            nodes.append(start)
            edges.extend(EdgeSpec(start.id, first) for first in _firsts(node, inside, heads))
        nodes.append(_starting_at(node, start.id))
    return GraphSpec(tuple(nodes), tuple(edges))


def _start_of(container: NodeSpec, taken: set[str]) -> NodeSpec:
    name = f"{container.id}start"
    while name in taken:
        name += "_"
    taken.add(name)
    kind = _STARTS[container.type]
    return NodeSpec(
        id=name, type=kind, data={"type": kind}, parent=container.id, place=container.place
    )


def _firsts(container: NodeSpec, inside: list[NodeSpec], heads: set[str]) -> list[str]:
    named = _name(container.data.get("start_node_id"))
    if any(node.id == named for node in inside):
        return [named] if named else []
    return [node.id for node in inside if node.id not in heads]


def _starting_at(container: NodeSpec, start: str) -> NodeSpec:
    if container.data.get("start_node_id") == start:
        return container
    data = {**container.data, "start_node_id": start}
    return msgspec.structs.replace(container, data=data)
