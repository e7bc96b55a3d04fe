"""How much of a conversation a model is shown. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from server.workflow.reading import Reader
from server.workflow.services import Message, ModelFacts
from server.workflow.template import Template
from server.workflow.tokens import estimate_messages

__all__ = ["Memory", "history_text", "read_memory"]

_ROUNDS_MOST: Final = 500
_UNKNOWN_CONTEXT_TOKENS: Final = 2000
"""For the history, where nobody knows how long the model's context is."""

USER_PREFIX: Final = "Human"
ASSISTANT_PREFIX: Final = "Assistant"


class Memory:
    """A node's memory. `query` is what the user message after the history says; none: sys.query."""

    __slots__ = ("assistant_prefix", "query", "rounds", "user_prefix")

    def __init__(
        self,
        rounds: int = _ROUNDS_MOST,
        query: Template | None = None,
        user_prefix: str = USER_PREFIX,
        assistant_prefix: str = ASSISTANT_PREFIX,
    ) -> None:
        self.rounds = rounds
        self.query = query
        self.user_prefix = user_prefix
        self.assistant_prefix = assistant_prefix

    def choose(
        self, history: Sequence[Message], facts: ModelFacts, parameters: Mapping[str, Any]
    ) -> list[Message]:
        """The latest rounds that fit: a round is a user's message and the answer to it."""
        limit = _token_limit(facts, parameters)
        chosen: list[Message] = []
        for number, turn in enumerate(_rounds_backwards(history)):
            limit -= estimate_messages(turn) * facts.tokens_per_estimate
            if number >= self.rounds or limit < 0:
                break
            chosen[:0] = turn
        return chosen


def _token_limit(facts: ModelFacts, parameters: Mapping[str, Any]) -> float:
    if not facts.context_tokens:
        return _UNKNOWN_CONTEXT_TOKENS
    answer = parameters.get("max_tokens")
    answer_tokens = answer if isinstance(answer, int) and answer > 0 else 0
    return max(0, facts.context_tokens - answer_tokens)


def _rounds_backwards(history: Sequence[Message]) -> list[list[Message]]:
    rounds: list[list[Message]] = []
    turn: list[Message] = []
    for message in reversed(history):
        turn.insert(0, message)
        if message.get("role") == "user":
            rounds.append(turn)
            turn = []
    return rounds


def read_memory(data: Reader) -> Memory | None:
    """The section `memory` of a node; None if it has none."""
    if not data.value("memory"):
        return None
    memory = data.table("memory")
    window = memory.table("window")
    rounds = _ROUNDS_MOST
    if window.flag("enabled"):
        size = window.whole("size", _ROUNDS_MOST)
        rounds = min(size, _ROUNDS_MOST) if size > 0 else _ROUNDS_MOST
    prefixes = memory.table("role_prefix")
    query = memory.text("query_prompt_template")
    return Memory(
        rounds,
        Template(query) if query else None,
        prefixes.text("user") or USER_PREFIX,
        prefixes.text("assistant") or ASSISTANT_PREFIX,
    )


def history_text(messages: Sequence[Message], memory: Memory) -> str:
    """A history as completion models and classifiers read it: a line for each message."""
    lines = []
    for message in messages:
        role = message.get("role")
        if role in ("user", "assistant"):
            prefix = memory.user_prefix if role == "user" else memory.assistant_prefix
            lines.append(f"{prefix}: {_content_text(message.get('content'))}")
    return "\n".join(lines)


def _content_text(content: Any) -> str:
    if not isinstance(content, list):
        return str(content or "")
    parts = []
    for part in content:
        text = part.get("text") if isinstance(part, dict) else None
        parts.append(text if isinstance(text, str) else "[image]")
    return "\n".join(parts)
