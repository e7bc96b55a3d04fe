"""A session turn by turn: prompts as messages, with the answers that really came."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from bench.workload.model import Prompt, Role, Segment, Session

__all__ = ["Conversation", "Message", "Render"]

Render = Callable[[int, int], str]
"""Text of a segment that has none of its own, by its key and its tokens."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message of a chat, as the request's JSON has it."""

    role: Role
    content: str


class Conversation:
    """What has been said in one session. Pure: sending is done elsewhere."""

    def __init__(self, session: Session, render: Render) -> None:
        self.session = session
        self._render = render
        self._answers: dict[int, str] = {}

    def heard(self, turn: int, text: str) -> None:
        """Remember the answer to a turn, for the turns that repeat it."""
        self._answers[self.session.turns[turn].answer] = text

    def messages(self, turn: int) -> list[Message]:
        """The turn's prompt: one message for each stretch of segments of one role."""
        prompt = self.session.turns[turn].prompt
        return [Message(role, " ".join(texts)) for role, texts in self._stretches(prompt)]

    def text(self, turn: int) -> str:
        """The turn's prompt as one text, for the completions endpoint."""
        return " ".join(self._said(segment)[1] for segment in self.session.turns[turn].prompt)

    def _stretches(self, prompt: Prompt) -> Iterable[tuple[Role, list[str]]]:
        stretches: list[tuple[Role, list[str]]] = []
        for segment in prompt:
            role, text = self._said(segment)
            if not stretches or stretches[-1][0] != role:
                stretches.append((role, []))
            stretches[-1][1].append(text)
        return stretches

    def _said(self, segment: Segment) -> tuple[Role, str]:
        answer = self._answers.get(segment.key)
        if answer is not None:
            return "assistant", answer
        text = self.session.texts.get(segment.key)
        if text is None:
            text = self._render(segment.key, segment.tokens)
        return segment.role, text
