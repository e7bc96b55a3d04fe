"""Which events of a stream carry something, and which only say that it has begun. Pure.

TGI, llama.cpp, older vLLM and many gateways send a first chunk that holds nothing but the role
before any work is done; Anthropic's and the Responses API begin with events that only open things.
None of them is a first token, and after none of them is it too late to ask another replica.
An event of a shape that is not known carries something: what is not understood is not held back.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from balancer.wire.sse import data_of

__all__ = ["payload_of"]

_OPENING: Final = frozenset(
    {
        "response.created",
        "response.in_progress",
        "response.queued",
        "message_start",
        "content_block_start",
        "ping",
    }
)
"""Types of events that carry nothing, of the Responses API and of Anthropic's."""

_READ_BYTES: Final = 8_192
"""A larger event is not looked into: it is no mere beginning."""


class _Choice(msgspec.Struct, gc=False):
    delta: dict[str, Any] | None = None
    text: str | None = None
    finish_reason: Any = None


class _Event(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None
    type: str | None = None


_event: Final = msgspec.json.Decoder(_Event)
_BOUNDARY: Final = re.compile(rb"\r?\n\r?\n")


def payload_of(events: bytes) -> bytes | None:
    """The data of the first of these whole events that carries something; None if none does."""
    begin = 0
    while begin < len(events):
        data, begin = _next_data(events, begin)
        if data and _carries(data):
            return data
    return None


def _next_data(events: bytes, begin: int) -> tuple[bytes, int]:
    """The data of the event that begins there, and where the next one does."""
    end = events.find(b"\n", begin)
    # One line and LF alone, as nearly every engine writes them: a fifth of the other way's time.
    if end >= 0 and events.startswith(b"\n", end + 1) and events.startswith(b"data: ", begin):
        return events[begin + 6 : end], end + 2
    boundary = _BOUNDARY.search(events, begin)
    if boundary is None:
        return data_of(events[begin:]), len(events)
    return data_of(events[begin : boundary.start()]), boundary.end()


def _carries(data: bytes) -> bool:
    if len(data) > _READ_BYTES:
        return True
    try:
        event = _event.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True  # `[DONE]`, for one
    if event.error or event.usage:
        return True
    if event.choices is None:
        return event.type not in _OPENING
    return any(map(_says_something, event.choices))


def _says_something(choice: _Choice) -> bool:
    if choice.finish_reason or choice.text:
        return True
    if choice.delta is None:
        return choice.text is None  # neither of the two: some other shape
    return any(value for name, value in choice.delta.items() if name != "role")
