"""What one run may use up at most. The defaults are Dify's where it has such a limit."""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["MOST_ANSWERS", "MOST_EDGES", "MOST_NESTED", "MOST_NODES", "Limits"]

MOST_NODES: Final = 2_000
"""Of a graph, containers' bodies included. Real exports have up to a few hundred."""

MOST_EDGES: Final = 8_000

MOST_ANSWERS: Final = 300
"""Answer and end nodes of one level. Compiling takes as long as these times the edges, 2.4 million
steps at worst: under a second."""

MOST_NESTED: Final = 10
"""Containers within containers."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Of one run; runs that it calls have their own."""

    steps: int = 500
    """Node runs, those inside containers too (WORKFLOW_MAX_EXECUTION_STEPS)."""
    time_s: float = 1200.0
    """Without the time in which only people are waited for (WORKFLOW_MAX_EXECUTION_TIME)."""
    depth: int = 5
    """Workflows that call one another (WORKFLOW_CALL_MAX_DEPTH)."""
    value_chars: int = 8 * 1024 * 1024
    """What one node gives out, in characters (a number or a name counts for eight)."""
    value_items: int = 50_000
    """Items of all lists and objects in what one node gives out, or a run is given, added up. To go
    over so many takes a few milliseconds, in which nothing else goes on."""
    total_chars: int = 64 * 1024 * 1024
    """What all nodes of a run give out together."""
    buffered_chars: int = 4 * 1024 * 1024
    """Streamed text that waits for earlier text to be shown."""
    shown_chars: int = 8 * 1024 * 1024
    """Text that it shows, in all: an answer may name one long text a thousand times."""
