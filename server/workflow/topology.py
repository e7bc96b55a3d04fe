"""A compiled graph: vertices and edges by their numbers, shared by all runs. Pure.

Numbers make what a run keeps of them a few small arrays. Which answers an edge may start is found
out here (`answers.activations`), not while a run goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from server.workflow.answers import SKIPPED, Script, activations
from server.workflow.app import NodeSpec
from server.workflow.failures import FailurePolicy, read_policy
from server.workflow.limits import MOST_ANSWERS
from server.workflow.node import FAIL_BRANCH, GraphError, Inline, Node, Task

__all__ = ["CONTAINERS", "Edge", "Graph", "Root", "Vertex"]

CONTAINERS: Final = {"iteration": "iteration-start", "loop": "loop-start"}
"""Nodes that have others inside, and the type of the one that theirs begin with."""


class Edge:
    """From one vertex to another. `starts` are the answers (numbers of scripts) that may begin to
    be shown once it is taken."""

    __slots__ = ("handle", "source", "starts", "target")

    def __init__(self, source: int, target: int, handle: str) -> None:
        self.source = source
        self.target = target
        self.handle = handle
        self.starts: tuple[int, ...] = ()


class Vertex:
    """A node where it stands in the graph."""

    __slots__ = (
        "branches",
        "contains",
        "ends_loop",
        "id",
        "incoming",
        "index",
        "inline",
        "node",
        "out",
        "policy",
        "quick",
        "script",
        "silent",
        "streams",
        "task",
        "title",
        "type",
        "writes",
    )

    def __init__(self, index: int, spec: NodeSpec, node: Node) -> None:
        self.index = index
        self.id = spec.id
        self.type = spec.type
        self.title = spec.title
        self.node = node
        self.inline: Inline | None = node if isinstance(node, Inline) else None
        self.task: Task | None = node if isinstance(node, Task) else None
        self.policy: FailurePolicy = _policy(spec, node)
        self.quick: Task | None = _quick(self.task, self.policy)
        """Itself, if it may be through without waiting."""
        self.writes = frozenset(tuple(selector[:2]) for selector in node.writes())
        """The variables that it sets, but for its outputs."""
        self.branches = node.branches or self.policy.strategy == FAIL_BRANCH
        self.contains = spec.type in CONTAINERS
        self.ends_loop = spec.type == "loop-end"
        self.silent = spec.type in CONTAINERS.values()
        """Starts of containers: they do nothing, and nobody hears of them."""
        self.out: tuple[Edge, ...] = ()
        self.incoming = 0
        """How many edges end here."""
        self.script: int | None = None
        """The number of its script, if it shows something."""
        self.streams: frozenset[str] = frozenset()
        """Those of its outputs that some answer here shows."""


def _policy(spec: NodeSpec, node: Node) -> FailurePolicy:
    """Default values choose no branch, so a branch that fails ends the run, as in Dify."""
    policy = read_policy(spec, node.retries)
    if node.branches and policy.strategy == "default-value":
        return msgspec.structs.replace(policy, strategy=None)
    return policy


def _quick(task: Task | None, policy: FailurePolicy) -> Task | None:
    """Tries that fail at once would not be counted, so nodes that try again are none of these."""
    if task is None or policy.retries or type(task).at_once is Task.at_once:
        return None
    return task


class Graph:
    """One level of a graph: the whole one, or the inside of a container."""

    __slots__ = (
        "_roots",
        "incoming",
        "index",
        "inner_ids",
        "owners",
        "root",
        "scripts",
        "starts",
        "vertices",
        "waits",
    )

    def __init__(
        self, vertices: list[Vertex], edges: list[Edge], root: int, roots: Iterable[int] = ()
    ) -> None:
        """`root` is where runs begin, `roots` are where else they may."""
        self.vertices = vertices
        self.index: dict[str, int] = {vertex.id: vertex.index for vertex in vertices}
        self.root = root
        self.owners: dict[str, int] = dict(self.index)
        """Which vertex each node belongs to: itself, or the container around it."""
        for vertex in vertices:
            for inner_id in _inner_ids(vertex.node):
                self.owners[inner_id] = vertex.index
        self.inner_ids = tuple(self.owners)
        """All nodes here and further inside."""
        self.waits = any(map(_waits, vertices))
        """Whether anything here waits for more than this process's own computing."""
        self._connect(edges)
        self.incoming = [vertex.incoming for vertex in vertices]
        self.scripts: tuple[Script, ...] = _scripts(vertices, self.owners)
        self.starts = activations(vertices, self.scripts, {root, *roots})
        """By root: the scripts that its runs show from the beginning."""
        self._roots: dict[int, Root] = {}

    def _connect(self, edges: list[Edge]) -> None:
        out: list[list[Edge]] = [[] for _ in self.vertices]
        for edge in edges:
            out[edge.source].append(edge)
            self.vertices[edge.target].incoming += 1
        for vertex in self.vertices:
            vertex.out = tuple(out[vertex.index])

    def root_of(self, start: str | None) -> Root:
        """Where a run begins. Raises `GraphError` for a node that none can begin with."""
        index = self.root if start is None else self.index.get(start, -1)
        if index not in self.starts:
            raise GraphError("", f"no run can start at {start!r}: it is no start node here")
        found = self._roots.get(index)
        if found is None:
            found = self._roots[index] = Root(self, index)
        return found


class Root:
    """What a run that begins at this vertex finds: other roots, and what only they reach, are
    skipped up front."""

    __slots__ = ("incoming", "index", "skipped", "starts")

    def __init__(self, graph: Graph, index: int) -> None:
        self.index = index
        self.incoming, self.skipped = _without_others(graph, index)
        self.starts = graph.starts[index]


def _without_others(graph: Graph, root: int) -> tuple[list[int], bytes]:
    """How many edges each vertex waits for, and which are SKIPPED from the beginning."""
    incoming = list(graph.incoming)
    skipped = bytearray(len(incoming))
    others = deque(
        vertex.index for vertex in graph.vertices if not vertex.incoming and vertex.index != root
    )
    while others:
        index = others.popleft()
        skipped[index] = SKIPPED
        for edge in graph.vertices[index].out:
            incoming[edge.target] -= 1
            if not incoming[edge.target] and edge.target != root:
                others.append(edge.target)
    return incoming, bytes(skipped)


def _waits(vertex: Vertex) -> bool:
    body = getattr(vertex.node, "body", None)
    if isinstance(body, Graph):
        return body.waits
    return vertex.task is not None and vertex.quick is None


def _inner_ids(node: Node) -> tuple[str, ...]:
    body = getattr(node, "body", None)
    return body.inner_ids if isinstance(body, Graph) else ()


def _scripts(vertices: Sequence[Vertex], owners: Mapping[str, int]) -> tuple[Script, ...]:
    """In the order of their nodes' ids, which is the order in which Dify starts answers that one
    edge sets free together."""
    found = [(vertex, vertex.node.shows) for vertex in vertices if vertex.node.shows is not None]
    found.sort(key=lambda pair: pair[0].id)
    if len(found) > MOST_ANSWERS:
        place = found[-1][0].node.spec.place
        raise GraphError(place, f"more than {MOST_ANSWERS} nodes show something")
    scripts = tuple(Script(vertex.index, vertex.id, shown, owners) for vertex, shown in found)
    wanted: dict[str, set[str]] = {}
    for script in scripts:
        for selector in script.selectors():
            if len(selector) == 2:
                wanted.setdefault(selector[0], set()).add(selector[1])
    for number, script in enumerate(scripts):
        vertices[script.vertex].script = number
    for vertex in vertices:
        vertex.streams = frozenset(wanted.get(vertex.id, ()))
    return scripts
