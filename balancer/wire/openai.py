"""The fields of OpenAI's API that a relay reads, and the one it writes: the model's name.

Everything else passes through unread: unknown fields survive, numbers keep their digits, and a
body is the same to the byte unless the model's name differs at the replica.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from balancer.wire.sse import data_of, events_of, latest_event

__all__ = [
    "Asked",
    "Usage",
    "answer_error",
    "answer_usage",
    "read_asked",
    "read_usage",
    "stream_done",
    "stream_error",
    "stream_usage",
    "with_model",
]


class Asked(msgspec.Struct, frozen=True, gc=False):
    """What a request body says that routing needs."""

    model: str | None = None
    stream: bool | None = None


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Token counts as the replica reports them, 0 to 2**53; None where it reports none."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None


class _PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class _UsageFields(msgspec.Struct, gc=False):
    # Chat and completions say prompt/completion, the Responses and Messages APIs input/output.
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    input_tokens_details: _PromptDetails | None = None


class _ResponseFields(msgspec.Struct, gc=False):
    usage: _UsageFields | None = None


class _AnswerFields(msgspec.Struct, gc=False):
    usage: _UsageFields | None = None
    response: _ResponseFields | None = None


class _ErrorFields(msgspec.Struct, gc=False):
    error: Any = None
    object: Any = None
    type: Any = None
    code: Any = None
    status: Any = None


_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that are no JSON, no UTF-8, or nested beyond reason."""

_asked: Final = msgspec.json.Decoder(Asked)
_answer: Final = msgspec.json.Decoder(_AnswerFields)
_error: Final = msgspec.json.Decoder(_ErrorFields)


def read_asked(body: bytes) -> Asked:
    """The routing fields of a JSON body.

    Raises `msgspec.DecodeError` (not JSON) or `msgspec.ValidationError` (a wrong type), whose text
    names the place, or `UnicodeDecodeError` (a routing field that is not UTF-8).
    """
    return _asked.decode(body)


# A string (with escapes), or a bracket: all one needs to find the keys of the outermost object.
_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]]', re.DOTALL)
_VALUE: Final = re.compile(rb'\s*:\s*("[^"\\]*(?:\\.[^"\\]*)*")', re.DOTALL)


def with_model(body: bytes, model: str) -> bytes:
    """`body`, valid JSON with a string at `model`, with that string replaced, all else untouched.

    Every top-level `model` is replaced (a repeated key is legal JSON, and parsers differ in which
    they believe); the same key deeper down is left alone.
    """
    pieces: list[bytes] = []
    depth, done, name = 0, 0, msgspec.json.encode(model)
    for token in _TOKEN.finditer(body):
        head = body[token.start()]
        if head in b"{[":
            depth += 1
        elif head in b"}]":
            depth -= 1
        elif depth == 1 and token.start() >= done and _is_model_key(token.group()):
            value = _VALUE.match(body, token.end())
            if value is not None:
                pieces += (body[done : value.start(1)], name)
                done = value.end(1)
    return b"".join((*pieces, body[done:]))


def _is_model_key(token: bytes) -> bool:
    if b"\\" not in token:
        return token == b'"model"'
    try:
        return bool(msgspec.json.decode(token) == "model")
    except UnicodeDecodeError:
        return False  # in a field nobody here reads


def read_usage(answer: bytes) -> Usage:
    """The usage of a JSON answer or of one event's data; empty if it has none or is not JSON."""
    try:
        fields = _answer.decode(answer)
    except _UNREADABLE:
        return Usage()
    usage = fields.usage or (fields.response and fields.response.usage)
    return _normalised(usage) if usage else Usage()


def answer_usage(body: bytes) -> Usage:
    """The same for a whole answer, or for what came last of one. Of a large one (embeddings) only
    the end is read: it is there that engines put their usage, and going through megabytes would
    hold the loop.
    """
    usage = read_usage(body) if len(body) <= _READ_WHOLE_BYTES else _NO_USAGE
    if usage == _NO_USAGE:
        at = body.rfind(b'"usage"', -_USAGE_TAIL_BYTES)
        usage = read_usage(b"{" + body[at:]) if at >= 0 else usage
    return usage


_READ_WHOLE_BYTES: Final = 262_144
_USAGE_TAIL_BYTES: Final = 2_048


def _normalised(usage: _UsageFields) -> Usage:
    details = usage.prompt_tokens_details or usage.input_tokens_details
    prompt = usage.prompt_tokens if usage.prompt_tokens is not None else usage.input_tokens
    output = usage.completion_tokens if usage.completion_tokens is not None else usage.output_tokens
    cached = details.cached_tokens if details else usage.cache_read_input_tokens
    return Usage(_count(prompt), _count(output), _count(cached))


def _count(tokens: int | None) -> int | None:
    """What is no count was not reported: sums with it would be wrong for ever, or unprintable."""
    return tokens if tokens is not None and 0 <= tokens <= _MOST_TOKENS else None


_MOST_TOKENS: Final = 2**53


def stream_usage(recent: bytes) -> Usage:
    """The usage in the last events of a stream: that of the latest that has one.

    With `stream_options.include_usage` engines say `"usage": null` in every chunk but one, so a
    few events are looked at.
    """
    before: int | None = None
    for _ in range(_USAGE_EVENTS):
        event, before = latest_event(recent, b'"usage"', before)
        if not event:
            break
        usage = read_usage(data_of(event))
        if usage != _NO_USAGE:
            return usage
    return _NO_USAGE


_USAGE_EVENTS: Final = 3
_NO_USAGE: Final = Usage()


_LAST_EVENTS: Final = (
    b"message_stop",
    b"response.completed",
    b"response.incomplete",
    b"response.failed",
    b"event: error",
)


def stream_done(recent: bytes) -> bool:
    """Whether a stream's last event is the one that ends it, in any of the APIs relayed."""
    last = b""
    for event in events_of(recent):
        if data_of(event):
            last = event
    return data_of(last).strip() == b"[DONE]" or any(mark in last for mark in _LAST_EVENTS)


def stream_error(events: bytes) -> int | None:
    """The status that the first event stands for if it is an error, else None.

    Engines answer 200 and then say that it went wrong: `data: {"error": {"code": 400, …}}`.
    """
    if b"error" not in events[:256]:
        return None
    for event in events_of(events):
        data = data_of(event)
        if data:
            return answer_error(data)
    return None


def answer_error(answer: bytes) -> int | None:
    """The status that a JSON answer stands for if it is an error under a 200, else None.

    Known forms: `{"error": {"code": 400, …}}`, `{"error": "…"}`, `{"object": "error", "code": …}`
    and `{"type": "error", "error": {…}}`.
    """
    if b"error" not in answer[:256]:
        return None
    try:
        fields = _error.decode(answer)
    except _UNREADABLE:
        return None
    if not fields.error and fields.object != "error":
        return None
    inner = fields.error if isinstance(fields.error, dict) else {}
    for code in (inner.get("code"), inner.get("status"), fields.code, fields.status):
        number = _status_of(code)
        if number is not None and 400 <= number <= 599:
            return number
    return 500


def _status_of(code: object) -> int | None:
    if isinstance(code, str) and len(code) == 3 and code.isdecimal():
        return int(code)
    return code if isinstance(code, int) else None
