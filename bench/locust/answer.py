"""One streamed chat answer, event by event. Pure: lines and their times come in from outside."""

from __future__ import annotations

import json
from typing import Any, Final

__all__ = ["Answer", "AnswerFailed"]

_DATA: Final = b"data:"
_DONE: Final = b"[DONE]"
_TEXTS: Final = ("content", "reasoning_content", "reasoning")


class AnswerFailed(Exception):
    """The stream was not a whole answer; the message says what was wrong with it."""


class Answer:
    """What came of one request. Times are seconds on the caller's clock.

    A chunk counts from its first text on: a role, an empty delta or usage is no text, reasoning and
    a tool call are, as in GenAI-Perf and AIPerf.
    """

    def __init__(self) -> None:
        self.first_text_s: float | None = None
        self.last_text_s: float | None = None
        self.chunks = 0
        """How many held text."""
        self.text = ""
        """The answer itself, without reasoning and tool calls."""
        self._reported_tokens: int | None = None
        self._ended = False

    @property
    def tokens(self) -> int:
        """Output tokens as the server counts them; without its count, the chunks with text."""
        return self.chunks if self._reported_tokens is None else self._reported_tokens

    @property
    def itl_s(self) -> float | None:
        """Mean time between tokens after the first; None for an answer of one token."""
        if self.first_text_s is None or self.last_text_s is None or self.tokens < 2:
            return None
        return (self.last_text_s - self.first_text_s) / (self.tokens - 1)

    def line(self, line: bytes, now_s: float) -> None:
        """Read one line of the stream. Raises AnswerFailed for what is no chunk of a chat."""
        if not line.startswith(_DATA):
            return
        data = line[len(_DATA) :].strip()
        if data == _DONE:
            self._ended = True
        elif data:
            self._chunk(_decoded(data), now_s)

    def finish(self) -> None:
        """Call at the stream's end. Raises AnswerFailed if the answer is not whole."""
        if not self._ended:
            raise AnswerFailed("the stream ended before [DONE]")
        if self.first_text_s is None:
            raise AnswerFailed("the answer holds no text")

    def _chunk(self, chunk: dict[str, Any], now_s: float) -> None:
        if chunk.get("error"):
            raise AnswerFailed(f"an error under status 200: {chunk['error']}")
        usage = chunk.get("usage")
        if isinstance(usage, dict) and isinstance(usage.get("completion_tokens"), int):
            self._reported_tokens = usage["completion_tokens"]
        for delta in _deltas(chunk):
            if any(delta.get(name) for name in (*_TEXTS, "tool_calls")):
                self._text(delta.get("content") or "", now_s)

    def _text(self, content: str, now_s: float) -> None:
        if self.first_text_s is None:
            self.first_text_s = now_s
        self.last_text_s = now_s
        self.chunks += 1
        self.text += content


def _deltas(chunk: dict[str, Any]) -> list[dict[str, Any]]:
    try:
        deltas = [choice.get("delta") or {} for choice in chunk.get("choices") or ()]
    except (AttributeError, TypeError) as error:
        raise AnswerFailed(f"an event's choices are no choices: {chunk['choices']}") from error
    if not all(isinstance(delta, dict) for delta in deltas):
        raise AnswerFailed(f"an event's delta is no object: {deltas}")
    return deltas


def _decoded(data: bytes) -> dict[str, Any]:
    try:
        chunk = json.loads(data)
    except ValueError as error:
        raise AnswerFailed(f"an event is not JSON: {error}") from error
    if not isinstance(chunk, dict):
        raise AnswerFailed(f"an event is {type(chunk).__name__}: expected an object")
    return chunk
