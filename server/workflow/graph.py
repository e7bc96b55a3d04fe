"""Compiling a graph, once for all its runs. Pure.

All that can be wrong with a graph is said here, by its place in the file; a compiled graph runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from server.workflow.app import EdgeSpec, GraphSpec, Mode, NodeSpec
from server.workflow.limits import MOST_EDGES, MOST_NESTED, MOST_NODES
from server.workflow.node import SOURCE, GraphError, Node
from server.workflow.nodes import make_node
from server.workflow.topology import CONTAINERS, Edge, Graph, Vertex

__all__ = ["TRIGGERS", "Graph", "GraphError", "begins_with_an_event", "compile_graph"]

_START: Final = frozenset({"start"})
TRIGGERS: Final = frozenset({"trigger-webhook", "trigger-schedule", "trigger-plugin"})
"""Runs of workflows may begin with them, too; chats begin with what somebody writes."""
_SUCCESS_BRANCH: Final = "success-branch"
"""What Dify's enum also names the handle of success; seen as "source"."""


def begins_with_an_event(spec: GraphSpec) -> bool:
    """Whether its runs begin with a trigger, unless another start is named: the first root counts,
    as in a compiled graph."""
    first = next((n.type for n in spec.nodes if n.type in _START | TRIGGERS), "start")
    return first in TRIGGERS


def compile_graph(
    spec: GraphSpec, mode: Mode, make: Callable[[NodeSpec], Node] = make_node
) -> Graph:
    """Compile a graph and what is inside its containers.

    Raises `GraphError`, naming the place: a graph that is too large, nodes of unknown types or with
    wrong data, edges to nowhere, cycles, no start.
    """
    _check_size(spec)
    return _Compiler(spec, mode, make).level(None, 0)


def _check_size(spec: GraphSpec) -> None:
    if len(spec.nodes) > MOST_NODES:
        raise GraphError("", f"the graph has {len(spec.nodes)} nodes; {MOST_NODES} is the most")
    if len(spec.edges) > MOST_EDGES:
        raise GraphError("", f"the graph has {len(spec.edges)} edges; {MOST_EDGES} is the most")


class _Compiler:
    def __init__(self, spec: GraphSpec, mode: Mode, make: Callable[[NodeSpec], Node]) -> None:
        self._roots = _START | TRIGGERS if mode == "workflow" else _START
        self._make = make
        self._parents = _parents(spec.nodes)
        self._children: dict[str | None, list[NodeSpec]] = {}
        for node in spec.nodes:
            self._children.setdefault(node.parent, []).append(node)
        self._edges: dict[str | None, list[EdgeSpec]] = {}
        for edge in spec.edges:
            self._edges.setdefault(self._level_of(edge), []).append(edge)

    def _level_of(self, edge: EdgeSpec) -> str | None:
        for end in (edge.source, edge.target):
            if end not in self._parents:
                raise GraphError(_named(edge), f"there is no node {end!r}")
        parent = self._parents[edge.source]
        if parent != self._parents[edge.target]:
            raise GraphError(
                _named(edge), "its ends are not in the same container; no edge crosses a border"
            )
        return parent

    def level(self, container: NodeSpec | None, depth: int) -> Graph:
        """The top, or the inside of a container."""
        if depth > MOST_NESTED:
            place = container.place if container else ""
            raise GraphError(place, f"containers are nested more than {MOST_NESTED} deep")
        parent = container.id if container else None
        specs = self._children.get(parent, [])
        root = self._root(container, specs)
        vertices = [Vertex(at, spec, self._node(spec, depth)) for at, spec in enumerate(specs)]
        found = {vertex.id: vertex for vertex in vertices}
        edges = [
            _edge(edge, found[edge.source], found[edge.target])
            for edge in self._edges.get(parent, ())
        ]
        _refuse_cycles(vertices, edges, specs)
        others = () if container else _all(specs, self._roots)
        return Graph(vertices, edges, root, others)

    def _node(self, spec: NodeSpec, depth: int) -> Node:
        node = self._make(spec)
        if spec.type in CONTAINERS:
            node.body = self.level(spec, depth + 1)  # type: ignore[attr-defined]
        elif spec.id in self._children:
            inner = self._children[spec.id][0]
            raise GraphError(inner.place or inner.id, f"{spec.id!r} is no iteration and no loop")
        return node

    def _root(self, container: NodeSpec | None, specs: Sequence[NodeSpec]) -> int:
        if container is None:
            for found in _all(specs, self._roots):
                return found
            raise GraphError("", "the graph has no start node")
        named = container.data.get("start_node_id")
        for index, spec in enumerate(specs):
            if spec.id == named:
                return index
        for found in _all(specs, frozenset({CONTAINERS[container.type]})):
            return found
        raise GraphError(
            container.place or container.id,
            f"it has no start inside (start_node_id is {named!r})"[:200],
        )


def _all(specs: Sequence[NodeSpec], types: frozenset[str]) -> list[int]:
    return [index for index, spec in enumerate(specs) if spec.type in types]


def _parents(nodes: Sequence[NodeSpec]) -> Mapping[str, str | None]:
    """Each node's container; refuses ids that occur twice and containers that are not there."""
    parents: dict[str, str | None] = {}
    for node in nodes:
        if node.id in parents:
            raise GraphError(node.place or node.id, f"the id {node.id!r} occurs twice")
        parents[node.id] = node.parent
    for node in nodes:
        if node.parent is not None and node.parent not in parents:
            raise GraphError(node.place or node.id, f"there is no node {node.parent!r} around it")
        for depth, _ in enumerate(_around(node.id, parents)):
            if depth > MOST_NESTED:
                raise GraphError(
                    node.place or node.id, f"containers are nested more than {MOST_NESTED} deep"
                )
    return parents


def _around(node_id: str, parents: Mapping[str, str | None]) -> Iterator[str]:
    parent = parents[node_id]
    while parent is not None:
        yield parent
        parent = parents[parent]


def _named(edge: EdgeSpec) -> str:
    return f"edge {edge.source!r} -> {edge.target!r}"[:200]


def _edge(edge: EdgeSpec, source: Vertex, target: Vertex) -> Edge:
    """Edges of a node that does not branch are all taken, whatever their handle says."""
    plain = not source.branches or edge.handle == _SUCCESS_BRANCH
    return Edge(source.index, target.index, SOURCE if plain else edge.handle)


def _refuse_cycles(
    vertices: Sequence[Vertex], edges: Sequence[Edge], specs: Sequence[NodeSpec]
) -> None:
    waiting = [0] * len(vertices)
    out: list[list[int]] = [[] for _ in vertices]
    for edge in edges:
        waiting[edge.target] += 1
        out[edge.source].append(edge.target)
    free = [index for index, count in enumerate(waiting) if not count]
    for index in free:
        for target in out[index]:
            waiting[target] -= 1
            if not waiting[target]:
                free.append(target)
    if len(free) < len(vertices):
        spec = specs[next(index for index, count in enumerate(waiting) if count)]
        raise GraphError(spec.place or spec.id, f"{spec.id!r} is part of a cycle or behind one")
