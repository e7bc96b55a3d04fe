"""What an agent works with in one run, and the voice in which it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import trio

from server.workflow.agents.steps import Step, Steps
from server.workflow.agents.toolset import Toolset
from server.workflow.app import ModelRef
from server.workflow.events import ReasoningChunk
from server.workflow.node import NodeRun
from server.workflow.services import (
    ChatCall,
    Completion,
    Message,
    Receiver,
    ServiceFailed,
    Usage,
)
from server.workflow.values import File

__all__ = ["Findings", "Hush", "Voice", "Work", "ask"]


class Work(msgspec.Struct, kw_only=True):
    """One run of an agent."""

    run: NodeRun
    model: ModelRef
    parameters: Mapping[str, Any]
    instruction: str
    context: str
    """What was found for the question, as text; empty if nothing was looked up."""
    history: Sequence[Message]
    question: Message
    tools: Toolset
    rounds: int
    """So many rounds may call tools; one more must do without."""
    steps: Steps
    voice: Voice


class Findings(msgspec.Struct, kw_only=True):
    """What the agent came to, apart from what its voice said."""

    usage: Usage = Usage()
    files: list[File] = []
    latency_s: float = 0.0


class Voice:
    """The answer as it is streamed: what rounds say, a line break between them."""

    def __init__(self, run: NodeRun) -> None:
        self._run = run
        self._said: list[str] = []
        self._new_round = False

    @property
    def text(self) -> str:
        return "".join(self._said)

    def begin_round(self) -> None:
        """What is said next is a new paragraph, if anything was said before."""
        self._new_round = bool(self._said)

    def say(self, piece: str) -> None:
        if not piece:
            return
        if self._new_round:
            self._new_round = False
            if not self._said[-1].endswith("\n"):
                piece = "\n" + piece
        self._said.append(piece)
        self._run.stream("text", piece)

    async def drain(self) -> None:
        await self._run.drain()


class Hush:
    """Receives an answer that says nothing to the client yet; its reasoning is passed on."""

    def __init__(self, run: NodeRun) -> None:
        self._run = run
        self._reasons = False

    def text(self, piece: str) -> None:
        """Nothing: who uses it reads the whole."""

    def reasoning(self, piece: str) -> None:
        self._reasons = True
        self._run.tell(ReasoningChunk, text=piece)

    async def drain(self) -> None:
        await self._run.drain()

    def close(self) -> None:
        """Say that the reasoning is whole, if there was any."""
        if self._reasons:
            self._run.tell(ReasoningChunk, text="", final=True)


async def ask(
    work: Work, call: ChatCall, receiver: Receiver, round_step: Step
) -> tuple[Completion, Step]:
    """Call the model; its step is left open. Raises `ModelFailed` after telling the log."""
    thought = round_step.step(f"{work.model.name} Thought", {}, provider=work.model.provider)
    started = trio.current_time()
    try:
        completion = await work.run.run.services.models.chat(call, work.run, receiver)
    except ServiceFailed as failure:
        thought.failed(failure.message)
        round_step.failed(failure.message)
        raise
    if not completion.elapsed_s:
        completion = msgspec.structs.replace(completion, elapsed_s=trio.current_time() - started)
    return completion, thought
