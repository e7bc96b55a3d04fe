"""Models that answer as a test says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import trio

from server.workflow.app import ModelRef
from server.workflow.node import NodeRun
from server.workflow.services import (
    ChatCall,
    Completion,
    Message,
    ModelFacts,
    ModelFailed,
    Receiver,
    ToolCall,
    Usage,
)

__all__ = ["Says", "ScriptedModels", "json_says"]


class Says(msgspec.Struct, kw_only=True):
    """One answer: its pieces, "text" or ("reasoning", "text"), or a failure, after them if any."""

    pieces: Sequence[str | tuple[str, str]] = ()
    failure: ModelFailed | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    images: tuple[str, ...] = ()
    finish_reason: str = "stop"
    usage: Usage = Usage(10, 5)
    hangs: bool = False
    learned: dict[str, bool] = {}
    """What is known of the model from then on."""


class ScriptedModels:
    """The n-th call gets the n-th answer, and those after the last the last again.

    `calls` are copies of what was asked.
    """

    def __init__(self, *answers: str | Says, facts: ModelFacts = ModelFacts()) -> None:  # noqa: B008
        self._answers = [
            Says(pieces=[one]) if isinstance(one, str) else one for one in answers or ("",)
        ]
        self._facts = facts
        self.calls: list[ChatCall] = []

    @property
    def messages(self) -> list[Message]:
        """Of the latest call."""
        return list(self.calls[-1].messages)

    async def chat(
        self, call: ChatCall, run: NodeRun, receiver: Receiver | None = None
    ) -> Completion:
        said = self._answers[min(len(self.calls), len(self._answers) - 1)]
        self.calls.append(msgspec.structs.replace(call))
        texts: list[str] = []
        thoughts: list[str] = []
        for piece in said.pieces:
            kind, text = ("text", piece) if isinstance(piece, str) else piece
            (texts if kind == "text" else thoughts).append(text)
            if receiver is not None:
                (receiver.text if kind == "text" else receiver.reasoning)(text)
                await receiver.drain()
        await trio.lowlevel.checkpoint()
        if said.hangs:
            await trio.sleep_forever()
        self._facts = msgspec.structs.replace(self._facts, **said.learned)
        if said.failure is not None:
            raise said.failure
        return Completion(
            text="".join(texts),
            reasoning="".join(thoughts),
            tool_calls=said.tool_calls,
            images=said.images,
            finish_reason=said.finish_reason,
            usage=said.usage,
            model="small",
            ttft_s=0.25,
            elapsed_s=1.0,
        )

    def facts(self, model: ModelRef, run: NodeRun) -> ModelFacts:
        return self._facts


def json_says(value: Any) -> str:
    return msgspec.json.encode(value).decode()
