"""A session while it is played: which turn it is at, and that turn's prompt."""

from __future__ import annotations

from bench.load.conversation import Conversation, Message, Render
from bench.load.supply import Numbered
from bench.workload.model import Turn

__all__ = ["Talk"]


class Talk:
    """A session while it is played."""

    __slots__ = ("conversation", "id", "number", "prompt", "sent", "session", "target", "turn")

    def __init__(self, numbered: Numbered, id: str, target: int, render: Render) -> None:
        self.number, self.session = numbered
        self.id = id
        self.target = target
        self.conversation = Conversation(self.session, render)
        self.turn = -1
        self.sent = 0
        self.prompt: list[Message] | str = ""

    def next_turn(self, *, chat: bool) -> Turn | None:
        """Go to the next turn and make its prompt; before it is due, since that takes time."""
        self.turn += 1
        if self.turn >= len(self.session.turns):
            return None
        said = self.conversation
        self.prompt = said.messages(self.turn) if chat else said.text(self.turn)
        return self.session.turns[self.turn]
