"""Text with `{{#node.name#}}` in it, cut up once and rendered many times. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from server.workflow.sizes import Room
from server.workflow.values import markdown_of, text_of
from server.workflow.variables import MISSING, Variables

__all__ = ["Segment", "Template"]

_PLACEHOLDER: Final = re.compile(
    r"\{\{#([a-zA-Z0-9_]{1,50}(?:\.[a-zA-Z_][a-zA-Z0-9_]{0,29}){1,10})#\}\}"
)

Segment = str | tuple[str, ...]
"""Text as it is, or a selector."""


class Template:
    """A text whose placeholders were found once; immutable, shared by all runs."""

    __slots__ = ("segments", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self.segments: tuple[Segment, ...] = tuple(_segments(source))

    @property
    def selectors(self) -> list[tuple[str, ...]]:
        """Those that it names, in order, repeated if it repeats them."""
        return [segment for segment in self.segments if isinstance(segment, tuple)]

    def text(self, variables: Variables) -> str:
        """As prompts and requests read it. What is not there stays as its bare name, as in Dify.
        Raises `TooLarge`."""
        segments = self.segments
        if len(segments) == 1 and isinstance(segments[0], str):
            return segments[0]
        parts, room = [], Room()
        for segment in segments:
            if isinstance(segment, str):
                parts.append(segment)
                continue
            value = variables.get(segment)
            parts.append(".".join(segment) if value is MISSING else room.take(text_of(value)))
        return "".join(parts)

    def markdown(self, variables: Variables) -> str:
        """As an answer reads it. What is not there stays as its bare name, as in Dify. Raises
        `TooLarge`."""
        parts, room = [], Room()
        for segment in self.segments:
            if isinstance(segment, str):
                parts.append(segment)
                continue
            value = variables.get(segment)
            parts.append(".".join(segment) if value is MISSING else room.take(markdown_of(value)))
        return "".join(parts)


def _segments(source: str) -> Iterator[Segment]:
    at = 0
    for found in _PLACEHOLDER.finditer(source):
        if found.start() > at:
            yield source[at : found.start()]
        yield tuple(found.group(1).split("."))
        at = found.end()
    if at < len(source):
        yield source[at:]
