"""iteration-start, loop-start: where the inside of a container begins."""

from __future__ import annotations

from typing import ClassVar

from server.workflow.node import Inline, NodeRun, Result

__all__ = ["ContainerStart"]


class ContainerStart(Inline):
    """Gives out nothing; the engine passes over it without a word, as Dify does."""

    type: ClassVar[str] = "iteration-start"

    def evaluate(self, run: NodeRun) -> Result:
        return Result()
