"""Questions that a model answers in JSON: what nodes ask that classify or extract.

The rules come first and are the same for every question, so that an engine reads them once; what
users wrote stands last, between tags, as something to look at and not to obey.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from server.workflow.history import Memory, history_text
from server.workflow.model_call import NodeModel
from server.workflow.node import NodeRun
from server.workflow.prompts import with_files
from server.workflow.services import ChatCall, Message, ModelFacts
from server.workflow.vision import Vision, load_files

__all__ = ["Question", "conversation_text", "section"]

_OPENINGS: Final = {"system": "", "user": "Input:\n", "assistant": "Output:\n"}


def section(name: str, text: str) -> str:
    """A part of a question between tags; nothing if it is empty."""
    return f"<{name}>\n{text}\n</{name}>\n" if text else ""


class Question(msgspec.Struct):
    """`rules`, then examples as (input, output), then what is asked now."""

    rules: str
    examples: Sequence[tuple[str, str]]
    asked: str

    def messages(self) -> list[Message]:
        messages: list[Message] = [{"role": "system", "content": self.rules}]
        for given, answer in self.examples:
            messages.append({"role": "user", "content": given})
            messages.append({"role": "assistant", "content": answer})
        content: list[Any] = [{"type": "text", "text": self.asked}]
        messages.append({"role": "user", "content": content})
        return messages

    async def call(
        self, model: NodeModel, vision: Vision, facts: ModelFacts, run: NodeRun
    ) -> ChatCall:
        """To a chat model with the files of `vision`, to a completion model as one text."""
        parameters = model.parameters(run.variables)
        if model.ref.mode == "completion":
            return ChatCall(model=model.ref, parameters=parameters, prompt=self._prompt())
        messages = with_files(self.messages(), vision.files(run.variables))
        loaded, _ = await load_files(messages, run.run.services.files, facts, vision.detail)
        return ChatCall(model=model.ref, parameters=parameters, messages=loaded)

    def _prompt(self) -> str:
        texts = [self.rules]
        for given, answer in self.examples:
            texts += (_OPENINGS["user"] + given, _OPENINGS["assistant"] + answer)
        texts += (_OPENINGS["user"] + self.asked, _OPENINGS["assistant"])
        return "\n\n".join(texts)


def conversation_text(
    memory: Memory | None, facts: ModelFacts, parameters: dict[str, Any], run: NodeRun
) -> str:
    """The conversation so far, as far as it fits; empty without a memory."""
    if memory is None:
        return ""
    return history_text(memory.choose(run.run.history, facts, parameters), memory)
