"""In which order a run's text is shown: that of the templates, whatever finishes first. Pure.

Each answer (or end node) has a `Script`. It begins to be shown once its node is sure to be reached,
so far as text goes: all edges on some way to it are taken, or leave a node that does not hold text
back. Those that do are branches, containers, other answers, and assigners of what it shows. One
script is shown at a time; the others wait in the order in which they were reached.

Which edges make a script begin is found when the graph is compiled. A node that has finished was
reached over taken edges only, and nothing behind an undecided edge has run; so a script begins
exactly when an edge is taken that holds it back and from whose end nothing else does. There are
as many paths as a branchy graph can have, and none is ever listed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from server.workflow.template import Segment
from server.workflow.values import markdown_of
from server.workflow.variables import MISSING, Variables

if TYPE_CHECKING:
    from server.workflow.topology import Edge, Vertex

__all__ = [
    "DONE",
    "OPEN",
    "SKIPPED",
    "Answers",
    "Script",
    "Show",
    "TooMuchText",
    "activations",
]

OPEN: Final = 0
DONE: Final = 1
SKIPPED: Final = 2
"""What has become of a vertex, so far as those who wait for its outputs care."""


class TooMuchText(Exception):
    """More streamed text waits for earlier text than may be kept."""


class Script:
    """What one node shows: text as it is, and selectors."""

    __slots__ = ("id", "own", "owners", "segments", "vertex")

    def __init__(
        self, vertex: int, id: str, segments: Sequence[Segment], owners: Mapping[str, int]
    ) -> None:
        self.vertex = vertex
        self.id = id
        self.segments = tuple(segments)
        self.owners = tuple(
            -1 if isinstance(segment, str) else owners.get(segment[0], -1)
            for segment in self.segments
        )
        """By segment: the vertex that gives the variable out; -1 if it is none of this graph."""
        self.own = (id, "answer")
        """The selector of its own text."""

    def selectors(self) -> Iterable[tuple[str, ...]]:
        return (segment for segment in self.segments if not isinstance(segment, str))


# When the graph is compiled


def activations(
    vertices: Sequence[Vertex], scripts: Sequence[Script], roots: Iterable[int]
) -> dict[int, tuple[int, ...]]:
    """Tell each edge which scripts it may start; return which ones a run from each root shows from
    the beginning. Scripts are known by their numbers, and come in that order."""
    incoming = _incoming(vertices)
    starts: dict[Edge, list[int]] = {}
    initial: dict[int, list[int]] = {root: [] for root in roots}
    for number, script in enumerate(scripts):
        holds_back = _holding_back(vertices, script)
        free = _free_ways(script, incoming, holds_back)
        for index in free:
            for edge in incoming[index]:
                if holds_back[edge.source]:
                    starts.setdefault(edge, []).append(number)
        for root in initial.keys() & free:
            initial[root].append(number)
    for edge, numbers in starts.items():
        edge.starts = tuple(numbers)
    return {root: tuple(numbers) for root, numbers in initial.items()}


def _incoming(vertices: Sequence[Vertex]) -> list[list[Edge]]:
    incoming: list[list[Edge]] = [[] for _ in vertices]
    for vertex in vertices:
        for edge in vertex.out:
            incoming[edge.target].append(edge)
    return incoming


def _holding_back(vertices: Sequence[Vertex], script: Script) -> list[bool]:
    """By vertex: whether its edges hold this script's text back until they are taken."""
    shown = {selector[:2] for selector in script.selectors()}
    return [
        vertex.branches
        or vertex.contains
        or vertex.node.shows is not None
        or not shown.isdisjoint(vertex.writes)
        for vertex in vertices
    ]


def _free_ways(
    script: Script, incoming: Sequence[Sequence[Edge]], holds_back: Sequence[bool]
) -> set[int]:
    """The vertices from which some way to the script's node is not held back."""
    found = {script.vertex}
    ahead = [script.vertex]
    while ahead:
        for edge in incoming[ahead.pop()]:
            if edge.source not in found and not holds_back[edge.source]:
                found.add(edge.source)
                ahead.append(edge.source)
    return found


# While a run goes on

Show: TypeAlias = Callable[[Script, tuple[str, ...], str, int], None]
"""(script, selector, text, number of the vertex that the text is from)."""


class Answers:
    """What is shown of one run of one graph, and what waits to be."""

    __slots__ = (
        "_at",
        "_begun",
        "_closed",
        "_cursor",
        "_held",
        "_held_chars",
        "_most",
        "_script",
        "_scripts",
        "_seen",
        "_show",
        "_states",
        "_told",
        "_variables",
        "_waiting",
        "full",
    )

    def __init__(
        self,
        scripts: Sequence[Script],
        variables: Variables,
        states: bytearray,
        show: Show,
        most_chars: int,
    ) -> None:
        """`states` is the caller's, by vertex: OPEN, DONE or SKIPPED."""
        self._scripts = scripts
        self._variables = variables
        self._states = states
        self._show = show
        self._most = most_chars
        self._begun = bytearray(len(scripts))
        self._script: Script | None = None
        self._at = 0
        self._cursor: tuple[str, ...] | None = None
        """The variable whose text is shown as it comes."""
        self._waiting: deque[Script] = deque()
        self._held: dict[tuple[str, ...], list[str]] = {}
        self._held_chars = 0
        self._seen: set[tuple[str, ...]] = set()
        self._closed: set[tuple[str, ...]] = set()
        self._told: set[tuple[str, ...]] = set()
        """Streams shown to their end: whoever shows them again shows the value, in one piece."""
        self.full = False
        """Set by who shows: it takes no more."""

    def reach(self, numbers: Iterable[int]) -> None:
        """These scripts may be shown, in this order; for those that were already, nothing."""
        for number in numbers:
            if not self._begun[number]:
                self._begun[number] = True
                self._waiting.append(self._scripts[number])
        if self._script is None:
            self.flush()

    def take(self, vertex: int, selector: tuple[str, ...], text: str) -> None:
        """A piece of a variable that some script shows. Raises `TooMuchText`."""
        self._seen.add(selector)
        if selector == self._cursor:
            assert self._script is not None
            self._show(self._script, selector, text, vertex)
            return
        self._held_chars += len(text)
        if self._held_chars > self._most:
            raise TooMuchText(f"more than {self._most} characters of text wait to be shown")
        self._held.setdefault(selector, []).append(text)

    def close(self, selector: tuple[str, ...]) -> None:
        """No more of it comes."""
        self.end(selector)
        if selector == self._cursor:
            self.flush()

    def end(self, selector: tuple[str, ...]) -> None:
        """The same, by a caller that flushes itself. For what was never streamed, nothing."""
        if selector in self._seen:
            self._closed.add(selector)

    def forget(self, selector: tuple[str, ...]) -> None:
        """Drop what waits of it: its node tries again, or gives out something else. Where nothing
        of it was shown, it counts as never streamed."""
        held = self._held.pop(selector, ())
        self._held_chars -= sum(map(len, held))
        self._closed.discard(selector)
        if selector != self._cursor:
            self._seen.discard(selector)

    def flush(self) -> None:
        """Show all that can be; called when a vertex is DONE or SKIPPED."""
        while self._script is not None or self._waiting:
            if self._script is None:
                self._script = self._waiting.popleft()
                self._at = 0
            if not self._whole(self._script):
                return
            self._script = None

    def _whole(self, script: Script) -> bool:
        """Show what there is of a script; whether that was the rest of it."""
        segments = script.segments
        self._cursor = None
        while self._at < len(segments):
            if self.full:
                return False
            segment = segments[self._at]
            if isinstance(segment, str):
                self._show(script, script.own, segment, script.vertex)
            elif not self._shown(script, segment, script.owners[self._at]):
                self._cursor = segment
                return False
            self._at += 1
        return True

    def _shown(self, script: Script, selector: tuple[str, ...], owner: int) -> bool:
        """Show what there is of a variable; whether that is all of it."""
        state = DONE if owner < 0 else self._states[owner]
        if state == SKIPPED:
            return True
        source = script.vertex if owner < 0 else owner
        if selector in self._seen and selector not in self._told:
            return self._stream(script, selector, source)
        value = self._variables.get(selector)
        if value is not MISSING:
            self._show(script, selector, markdown_of(value), source)
            return True
        return state == DONE

    def _stream(self, script: Script, selector: tuple[str, ...], source: int) -> bool:
        for text in self._held.pop(selector, ()):
            self._held_chars -= len(text)
            self._show(script, selector, text, source)
        if selector not in self._closed:
            return False
        self._told.add(selector)
        return True
