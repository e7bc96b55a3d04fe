"""What an answer says: the few fields of a chunk or a whole answer that are measured.

Pure. The path of a chunk is short on purpose: one decode into structs, one append.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from balancer.wire.sse import EventTap, TapOverflow, data_of, events_of
from bench.load.record import Record
from bench.workload.text import count_tokens

__all__ = ["BadAnswer", "Count", "StreamNotes", "error_text", "read_whole"]

_MESSAGE_CHARS: Final = 300
_MOST_TOKENS: Final = 1_000_000_000
"""More than this, or less than none, is no count of tokens."""

Count = Callable[[str], int]
"""Tokens of a text."""


class BadAnswer(Exception):
    """An answer that is not one. `kind` as `Record.error` has it."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind
        self.why = why


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct, gc=False):
    function: _Function | None = None


class _Delta(msgspec.Struct, gc=False):
    """Of a chunk; a whole answer's `message` has the same fields."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    message: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class _CompletionDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None
    object: Any = None
    message: Any = None


_decode: Final = msgspec.json.Decoder(_Chunk).decode
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class StreamNotes:
    """Takes a stream's bytes as they come and writes down in its record what they say."""

    __slots__ = ("_answer", "_count", "_hidden", "_record", "_tap", "done", "finished")

    def __init__(self, record: Record, count: Count = count_tokens) -> None:
        self._record = record
        self._count = count
        self._tap = EventTap()
        self._answer: list[str] = []
        self._hidden: list[str] = []
        self.done = False
        """Whether `[DONE]` came."""
        self.finished = False
        """Whether a choice gave its `finish_reason`."""

    def feed(self, data: bytes, at_s: float) -> None:
        """Bytes of the body that came at `at_s`. Raises `BadAnswer`."""
        try:
            whole = self._tap.feed(data)
        except TapOverflow as exc:
            raise BadAnswer("invalid", str(exc)) from exc
        if b"\r" in whole:
            for text in map(data_of, events_of(whole)):
                self._event(text, at_s)
            return
        for event in whole.split(b"\n\n"):
            if event.startswith(b"data: ") and b"\n" not in event:
                self._event(event[6:], at_s)
            elif event:
                self._event(data_of(event), at_s)

    def _event(self, data: bytes, at_s: float) -> None:
        if not data:  # a comment, or an event's name alone
            return
        if data == b"[DONE]":
            self.done = True
            return
        chunk = _read(data)
        if chunk.choices:
            self._choices(chunk, chunk.choices, at_s)
        if chunk.usage is not None:
            _note_usage(self._record, chunk.usage)

    def _choices(self, chunk: _Chunk, choices: list[_Choice], at_s: float) -> None:
        record = self._record
        text = hidden = ""
        for choice in choices:
            if choice.finish_reason is not None:
                self.finished = True
            delta = choice.delta
            if delta is None:
                text += choice.text or ""
            else:
                text += delta.content or _other_text(delta)
                hidden += delta.reasoning_content or delta.reasoning or ""
        if not text and not hidden:
            return
        if not record.content_s:
            record.first_chunk_tokens = self._first_tokens(chunk, hidden + text)
        record.content_s.append(at_s)
        if hidden:
            self._hidden.append(hidden)
        if text:
            if record.first_answer_s is None:
                record.first_answer_s = at_s
            self._answer.append(text)

    def _first_tokens(self, chunk: _Chunk, text: str) -> int:
        said = chunk.usage and _plausible(chunk.usage.completion_tokens)
        return said or max(1, self._count(text))

    def end(self) -> str:
        """The answer's text, once the body has ended.

        Raises `BadAnswer` if the stream did not say that it was over, or said nothing.
        """
        if not self.done and not self.finished:
            raise BadAnswer("cut", "the stream ended without a finish_reason and without [DONE]")
        if not self._record.content_s:
            raise BadAnswer("empty", "the stream held no text")
        return "".join(self._answer) or "".join(self._hidden)

    def count(self) -> None:
        """Count the tokens of what came, be it whole or not.

        A chunk with text has one token at least, and so has a piece of text: of two counts that
        can only be too small the larger is taken.
        """
        pieces = self._count("".join(self._hidden)) + self._count("".join(self._answer))
        self._record.counted_output_tokens = max(len(self._record.content_s), pieces)


def read_whole(body: bytes, record: Record, at_s: float, count: Count = count_tokens) -> str:
    """The text of an answer that was not streamed, its usage noted in `record`.

    Raises `BadAnswer`.
    """
    answer = _read(body)
    if not answer.choices:
        raise BadAnswer("invalid", f"an answer without choices: {_shortened(body)}")
    text, hidden = _said(answer.choices)
    if not text and not hidden:
        raise BadAnswer("empty", "the answer held no text")
    if answer.usage is not None:
        _note_usage(record, answer.usage)
    record.content_s.append(at_s)
    record.first_answer_s = at_s if text else None
    record.counted_output_tokens = count(hidden) + count(text)
    return text or hidden


def _said(choices: list[_Choice]) -> tuple[str, str]:
    text = hidden = ""
    for choice in choices:
        message = choice.message
        if message is None:
            text += choice.text or ""
        else:
            text += (message.content or "") + _other_text(message)
            hidden += message.reasoning_content or message.reasoning or ""
    return text, hidden


def _read(data: bytes) -> _Chunk:
    try:
        chunk = _decode(data)
    except _UNREADABLE as exc:
        raise BadAnswer("invalid", f"{exc}: {_shortened(data)}") from exc
    if chunk.error is not None or chunk.object == "error":
        raise BadAnswer("in_band", error_text(data))
    return chunk


def _other_text(delta: _Delta) -> str:
    """Refusal and tool calls: text for whoever waits for it, if not for people."""
    if delta.tool_calls is None and delta.refusal is None and delta.function_call is None:
        return ""
    calls = [call.function for call in delta.tool_calls or ()]
    called = [call for call in (*calls, delta.function_call) if call is not None]
    parts = (f"{call.name or ''}{call.arguments or ''}" for call in called)
    return (delta.refusal or "") + "".join(parts)


def _note_usage(record: Record, usage: _Usage) -> None:
    record.input_tokens = _plausible(usage.prompt_tokens)
    record.output_tokens = _plausible(usage.completion_tokens)
    if usage.prompt_tokens_details is not None:
        record.cached_tokens = _plausible(usage.prompt_tokens_details.cached_tokens)
    if usage.completion_tokens_details is not None:
        record.reasoning_tokens = _plausible(usage.completion_tokens_details.reasoning_tokens)


def _plausible(tokens: int | None) -> int | None:
    """A count as the server says it; None, as if it said nothing, for what cannot be one."""
    return tokens if tokens is not None and 0 <= tokens <= _MOST_TOKENS else None


def error_text(body: bytes) -> str:
    """What an error's body says, in one line of at most 300 characters."""
    return next(_messages(body), "")[:_MESSAGE_CHARS] or _shortened(body)


def _messages(body: bytes) -> Iterator[str]:
    try:
        answer = _decode(body)
    except _UNREADABLE:
        return
    inner = answer.error.get("message") if isinstance(answer.error, dict) else answer.error
    for text in (inner, answer.message):
        if isinstance(text, str) and text:
            yield " ".join(text.split())


def _shortened(data: bytes) -> str:
    return " ".join(data[: 4 * _MESSAGE_CHARS].decode("utf-8", "replace").split())[:_MESSAGE_CHARS]
