"""loop-end: no further round after this one."""

from __future__ import annotations

from typing import ClassVar

from server.workflow.node import Inline, NodeRun, Result

__all__ = ["LoopEnd"]


class LoopEnd(Inline):
    """Gives out nothing. The engine sees that it ran, and the loop around it ends with the round,
    from inside an iteration too."""

    type: ClassVar[str] = "loop-end"

    def evaluate(self, run: NodeRun) -> Result:
        return Result()
