"""answer: text to the user, with variables in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from server.workflow.node import Inline, NodeRun, Result
from server.workflow.reading import Reader
from server.workflow.sizes import Room
from server.workflow.template import Segment, Template
from server.workflow.values import File, Value, markdown_of
from server.workflow.variables import MISSING, Selector

__all__ = ["Answer"]


class Answer(Inline):
    """Gives out its text as `answer` and the files that it shows as `files`."""

    type: ClassVar[str] = "answer"

    shows: tuple[Segment, ...]
    """What of it is streamed: its template."""

    def read(self, data: Reader) -> None:
        self._template = Template(data.text("answer"))
        self.shows = self._template.segments

    def reads(self) -> Iterable[Selector]:
        return self._template.selectors

    def evaluate(self, run: NodeRun) -> Result:
        find = run.variables.get
        parts: list[str] = []
        files: list[File] = []
        room = Room()
        for segment in self.shows:
            if isinstance(segment, str):
                parts.append(segment)
                continue
            value = find(segment)
            if value is MISSING:
                parts.append(".".join(segment))
                continue
            parts.append(room.take(markdown_of(value)))
            files += _files(value)
        return Result(outputs={"answer": "".join(parts), "files": files})


def _files(value: Value) -> list[File]:
    if isinstance(value, File):
        return [value]
    if isinstance(value, list) and all(isinstance(item, File) for item in value):
        return value
    return []
