"""What a failure says, and of whom: the replica, its load, the request, or nobody. Pure.

Breakers, retries and fallback chains all ask the same question, so it is answered once, here.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any, Final

import msgspec

from balancer.errors import (
    AttemptFailed,
    BalancerError,
    ConnectFailed,
    Overdue,
    PoolBusy,
    ReplicaRefused,
    StreamCut,
)

__all__ = ["RETRY_AFTER_MAX_S", "Fault", "fault_of", "is_context_too_long", "retry_after_s"]


class Fault(Enum):
    """What a failure says."""

    UNAVAILABLE = "unavailable"
    """The replica is broken or gone: no connection, a reset, no HTTP, a 5xx, silence."""
    OVERLOADED = "overloaded"
    """It is well and has no room: 429, 503, 529, or a pool whose line is full."""
    CONTEXT = "context"
    """The prompt, or the prompt and the answer asked for, does not fit into this model."""
    CALLER = "caller"
    """Something else is wrong with the request: every replica would say so."""
    NOBODY = "nobody"
    """It says nothing of any replica: the client left, the time for everything is over, this
    process is out of descriptors."""


_OVERLOADED: Final = frozenset({429, 503, 529})
"""TGI refuses with 429 (`overloaded`), SGLang and Ollama with 503 when their queues are full,
llama.cpp with 503 while it loads its model, Dynamo and Anthropic's API with 529."""

_FAILED: Final = frozenset({424})
"""TGI answers 424 when its model server failed in the middle of the work."""


def fault_of(failure: BaseException) -> Fault:
    """What `failure` says.

    A first-byte timeout and a silence in mid-stream are the replica's; the limit on the whole
    exchange says nothing, as an answer may just be long.
    """
    if isinstance(failure, ReplicaRefused):
        return _fault_of_answer(failure.status, failure.body)
    if isinstance(failure, PoolBusy):
        return Fault.OVERLOADED
    if isinstance(failure, Overdue):
        return Fault.NOBODY if failure.phase == "total" else Fault.UNAVAILABLE
    if isinstance(failure, ConnectFailed) and _is_own(failure.__cause__):
        return Fault.NOBODY
    if isinstance(failure, (AttemptFailed, StreamCut)):
        return Fault.UNAVAILABLE
    if isinstance(failure, BalancerError):
        return Fault.NOBODY
    raise failure


def _is_own(cause: BaseException | None) -> bool:
    return isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE)


def _fault_of_answer(status: int, body: bytes) -> Fault:
    if status in _OVERLOADED:
        return Fault.OVERLOADED
    # Any other status, 500 too: what TGI says in the first event of a stream has no status.
    if is_context_too_long(body):
        return Fault.CONTEXT
    return Fault.UNAVAILABLE if status >= 500 or status in _FAILED else Fault.CALLER


class _Message(msgspec.Struct, gc=False):
    error: Any = None
    message: Any = None
    detail: Any = None
    code: Any = None
    type: Any = None


_message: Final = msgspec.json.Decoder(_Message)
_BODY_BYTES: Final = 65_536
"""Errors are short. One larger than this repeats the request, and is not searched."""

_CODES: Final = frozenset(
    {
        "context_length_exceeded",  # OpenAI, and gateways that speak like it
        "context_window_exceeded",
        "exceed_context_size_error",  # llama.cpp, as `type` (server-task.cpp, server-common.cpp)
        "string_above_max_length",  # OpenAI, for an input beyond any model
    }
)

_CONTEXT: Final = re.compile(
    "|".join(
        (
            # vLLM (renderers/params.py, serving.py, its Rust frontend), OpenAI, and SGLang's
            # "Requested token count exceeds the model's maximum context length of"
            "maximum context length",
            # vLLM: "However, the model's context length is only 8192 tokens"
            "context length is only",
            # vLLM's engine: "The decoder prompt (length 9000) is longer than the maximum model
            # length of 8192", "... is too long to fit into the model"
            "maximum model length",
            "too long to fit into the model",
            # SGLang (tokenizer_manager.py): "The input (N tokens) is longer than the model's
            # context length"; its scheduler: "Input length (N tokens) exceeds the maximum allowed
            # length"
            "longer than the model's context length",
            r"input length \(.{1,24}\) exceeds the maximum allowed length",
            # llama.cpp: "request (N tokens) exceeds the available context size", older builds
            # "input is larger than the max context size"
            "exceeds the available context size",
            "larger than the max context size",
            # TGI (validation.rs)
            "`inputs` must have less than",
            r"`inputs` tokens \+ `max_new_tokens` must be <=",
            # Ollama (llama_server.go, routes.go, mlxrunner)
            "longer than the context length",
            "input length exceeds the context length",
            # TensorRT-LLM (llmapi/llm.py): "The sum of prompt length (...), query length (...)
            # should not exceed max_num_tokens", and its C++ executor
            "should not exceed max_",
            r"prompt length \(\d+\) exceeds maximum",
            # Anthropic's API and what imitates it
            r"prompt is too long: \d+ tokens",
        )
    ),
    re.IGNORECASE,
)


def is_context_too_long(body: bytes) -> bool:
    """Whether an error's body says that the request does not fit into the model's context."""
    if len(body) > _BODY_BYTES:
        return False
    try:
        said = _message.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return any(_says_so(part) for part in (said.error, said.detail)) or _says_so(
        {"message": said.message, "code": said.code, "type": said.type}
    )


def _says_so(part: object) -> bool:
    if isinstance(part, str):
        return _CONTEXT.search(part) is not None
    if not isinstance(part, dict):
        return False
    if any(
        isinstance(code, str) and code in _CODES for code in (part.get("code"), part.get("type"))
    ):
        return True
    message = part.get("message")
    return isinstance(message, str) and _CONTEXT.search(message) is not None


RETRY_AFTER_MAX_S: Final = 60.0
"""The longest `Retry-After` that is believed: hosted services answer with hours, and a replica
that came back earlier would stand idle. What is asked for beyond is found out by asking again."""


def retry_after_s(headers: Sequence[tuple[bytes, bytes]], *, wall_time_s: float) -> float | None:
    """Seconds that an answer asks to wait, at most `RETRY_AFTER_MAX_S`; None if it does not say.

    `retry-after-ms` (OpenAI's, Azure's) is the finer one and goes first. `Retry-After` is a number
    of seconds or a date (RFC 9110, 10.2.3), which needs `wall_time_s`, seconds since 1970.
    """
    wait_s: float | None = None
    for name, value in headers:
        if name == b"retry-after-ms" and (milliseconds := _number(value)) is not None:
            wait_s = milliseconds / 1000
            break
        if name == b"retry-after" and wait_s is None:
            wait_s = _number(value)
            if wait_s is None:
                wait_s = _until(value, wall_time_s)
    return None if wait_s is None else min(max(wait_s, 0.0), RETRY_AFTER_MAX_S)


_NUMBER: Final = re.compile(rb"\s*(\d{1,9}(?:\.\d{1,9})?)\s*")


def _number(value: bytes) -> float | None:
    match = _NUMBER.fullmatch(value)
    return float(match.group(1)) if match else None


def _until(value: bytes, wall_time_s: float) -> float | None:
    try:
        date = parsedate_to_datetime(value.decode("ascii"))
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        return date.timestamp() - wall_time_s
    except (ValueError, OverflowError):  # no date, or one outside of the calendar
        return None
