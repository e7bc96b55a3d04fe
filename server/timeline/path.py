"""The critical path: the node runs that the run's length is made of. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from server.timeline.reading import NodeSpan, RoundSpan, RunSpan, Within

__all__ = ["mark_critical"]

_SLACK_S = 1e-6
"""Two times that are so near are one."""


def mark_critical(run: RunSpan) -> None:
    """Set `critical` on what would shorten the run if it were shorter.

    From the node run that ended last one goes back to what it waited for (its predecessor: of
    several edges the one that was decided last), and inside containers from the round that ended
    last to the one that made room for it.
    """
    _Marking(run).mark(())


class _Marking:
    def __init__(self, run: RunSpan) -> None:
        self._nodes: dict[Within, list[NodeSpan]] = defaultdict(list)
        self._rounds: dict[tuple[str, Within], list[RoundSpan]] = defaultdict(list)
        for node in run.nodes:
            self._nodes[node.within].append(node)
        for one in run.rounds:
            self._rounds[one.container_id, one.within].append(one)

    def mark(self, within: Within) -> None:
        """The path through one graph, and through the containers that lie on it."""
        nodes = self._nodes[within]
        node = max(nodes, key=lambda one: (one.ended_at, one.started_at), default=None)
        while node is not None and not node.critical:
            node.critical = True
            for number in _chain(self._rounds[node.node_id, within]):
                self.mark((*within, (node.node_id, number)))
            node = _before(node, nodes)


def _before(node: NodeSpan, nodes: Sequence[NodeSpan]) -> NodeSpan | None:
    """The run of its predecessor; the latest one that had ended when it began."""
    found = [
        one
        for one in nodes
        if one.node_id == node.predecessor_id and one.ended_at <= node.started_at + _SLACK_S
    ]
    return max(found, key=lambda one: one.ended_at, default=None)


def _chain(rounds: Sequence[RoundSpan]) -> list[int]:
    """The rounds that one after another fill the container's time, last one first."""
    numbers: list[int] = []
    left = sorted(rounds, key=lambda one: (one.ended_at, one.started_at))
    while left:
        last = left.pop()
        numbers.append(last.number)
        left = [one for one in left if one.ended_at <= last.started_at + _SLACK_S]
    return numbers
