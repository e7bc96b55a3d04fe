"""A conversation as it goes from run to run. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from server.workflow.events import Event, Sink, VariableSet
from server.workflow.services import Message
from server.workflow.values import Value

__all__ = ["MOST_MESSAGES", "Assignments", "Conversation"]

MOST_MESSAGES: Final = 1_000
"""Messages that are kept, the newest ones; more than any window of memory shows a model."""


class Conversation(msgspec.Struct, kw_only=True):
    """What was said and what conversation variables hold. One run at a time changes it."""

    id: str
    history: tuple[Message, ...] = ()
    """User and assistant in turn, oldest first."""
    variables: dict[str, Value] | None = None
    """None before the first run: each is then as the app declares it."""
    turns: int = 0

    def said(self, query: str, answer: str, variables: dict[str, Value]) -> None:
        """A turn is over."""
        turn: tuple[Message, ...] = (
            {"role": "user", "content": query},
            {"role": "assistant", "content": answer},
        )
        self.history = (*self.history, *turn)[-MOST_MESSAGES:]
        self.variables = variables
        self.turns += 1


class Assignments:
    """A sink before another one, which keeps what a run assigns to conversation variables: at once,
    as Dify does. So a run that fails later, or is stopped, does not lose it."""

    __slots__ = ("_conversation", "_sink", "drain")

    def __init__(self, conversation: Conversation, sink: Sink) -> None:
        self._conversation = conversation
        self._sink = sink
        self.drain = sink.drain

    def put(self, event: Event) -> None:
        if type(event) is VariableSet:
            name = event.selector[1]
            self._conversation.variables = {
                **(self._conversation.variables or {}),
                name: event.value,
            }
        self._sink.put(event)
