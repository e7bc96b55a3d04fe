"""Which vertices of a graph may run: edges taken and skipped. Pure.

A vertex is ready when all its edges are decided and one of them was taken; when all were skipped,
so is it, and what it leads to. Each edge is decided once.
"""

from __future__ import annotations

from collections import deque

from server.workflow.answers import SKIPPED, Answers
from server.workflow.topology import Edge, Graph, Root, Vertex

__all__ = ["Readiness"]


class Readiness:
    """Of one run of one graph. `queue` has the vertices that are ready, first in, first out."""

    __slots__ = ("_vertices", "_waiting", "predecessors", "queue", "states")

    def __init__(self, graph: Graph, root: Root) -> None:
        self._vertices = graph.vertices
        self._waiting = root.incoming.copy()
        """How many edges of each vertex are not decided."""
        self.predecessors: list[str | None] = [None] * len(graph.vertices)
        """The node whose edge was the last to be taken."""
        self.states = bytearray(root.skipped)
        """OPEN, DONE or SKIPPED, by vertex."""
        self.queue: deque[Vertex] = deque((graph.vertices[root.index],))

    def follow(self, vertex: Vertex, handle: str | None, answers: Answers | None) -> None:
        """Take the edges of this handle, or all of them; before that, skip the others, as in Dify.
        `answers` may begin to be shown by edges that are taken."""
        if handle is not None:
            for edge in vertex.out:
                if edge.handle != handle:
                    self._skip(edge)
        for edge in vertex.out:
            if handle is None or edge.handle == handle:
                self._take(edge, vertex.id)
                if edge.starts and answers is not None:
                    answers.reach(edge.starts)

    def _take(self, edge: Edge, source_id: str) -> None:
        target = edge.target
        self.predecessors[target] = source_id
        self._waiting[target] -= 1
        if not self._waiting[target]:
            self.queue.append(self._vertices[target])

    def _skip(self, edge: Edge) -> None:
        """Depth first, in the order of the edges."""
        ahead = [edge]
        while ahead:
            target = ahead.pop().target
            self._waiting[target] -= 1
            if self._waiting[target]:
                continue
            if self.predecessors[target] is not None:
                self.queue.append(self._vertices[target])
                continue
            self.states[target] = SKIPPED
            ahead.extend(reversed(self._vertices[target].out))
