"""Failures of model calls, in the words and types that nodes show. Pure.

The types are the ones that Dify's nodes report, for workflows branch on them.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from balancer.errors import (
    AnswerInvalid,
    BalancerError,
    Overdue,
    PoolBusy,
    ReplicaRefused,
    StreamCut,
)
from balancer.faults import Fault, fault_of, is_context_too_long
from balancer.wire.openai import answer_error
from server.workflow.services import ModelFailed

__all__ = ["broken_answer", "error_event", "model_failed", "words_of"]

CONNECTION: Final = "InvokeConnectionError"
UNAVAILABLE: Final = "InvokeServerUnavailableError"
RATE_LIMIT: Final = "InvokeRateLimitError"
AUTHORIZATION: Final = "InvokeAuthorizationError"
BAD_REQUEST: Final = "InvokeBadRequestError"

_WORDS_MOST: Final = 500
_BODY_BYTES: Final = 65_536


def model_failed(error: BalancerError, model: str) -> ModelFailed:
    """What a run is told of a failure on the way to a replica of `model`."""
    if isinstance(error, ReplicaRefused):
        return _refused(error, model)
    if isinstance(error, PoolBusy):
        return ModelFailed(
            f"model {model!r} is overloaded: {error}; it may be tried again in "
            f"{error.retry_after_s:.0f} s",
            UNAVAILABLE,
        )
    if isinstance(error, StreamCut):
        return ModelFailed(f"the answer of model {model!r} broke off: {error}", CONNECTION)
    if isinstance(error, Overdue):
        return ModelFailed(f"model {model!r} did not answer in time: {error}", CONNECTION)
    kind = UNAVAILABLE if isinstance(error, AnswerInvalid) else CONNECTION
    return ModelFailed(f"model {model!r} could not be reached: {error}", kind)


def _refused(error: ReplicaRefused, model: str) -> ModelFailed:
    words = words_of(error.body) or error.why
    if fault_of(error) is Fault.CONTEXT:
        return _too_long(model, words)
    message = f"model {model!r} refused the request ({error.status}): {words}"
    return ModelFailed(message, _type_of(error.status))


def _too_long(model: str, words: str) -> ModelFailed:
    return ModelFailed(
        f"the prompt is too long for model {model!r}: {words}; shorten it or its memory window, "
        "or lower max_tokens",
        BAD_REQUEST,
    )


def _type_of(status: int) -> str:
    if status in (401, 403):
        return AUTHORIZATION
    if status == 429:
        return RATE_LIMIT
    return UNAVAILABLE if status >= 500 else BAD_REQUEST


def error_event(data: bytes) -> ModelFailed:
    """For an error in the middle of a stream, or under a 200."""
    words = words_of(data) or "it said no more"
    if is_context_too_long(data):
        return _too_long("this", words)
    status = answer_error(data) or 500
    return ModelFailed(f"the model failed while it answered ({status}): {words}", _type_of(status))


def broken_answer(data: bytes, why: str) -> ModelFailed:
    """For what is no answer of this API."""
    shown = data[:120].decode("utf-8", "replace")
    return ModelFailed(f"what the model's replica sent is no answer: {why}: {shown!r}", UNAVAILABLE)


class _Body(msgspec.Struct, gc=False):
    error: Any = None
    message: Any = None
    detail: Any = None


_body: Final = msgspec.json.Decoder(_Body)


def words_of(body: bytes) -> str:
    """An engine's own words in an error's body, cut to what a person reads; empty if none."""
    try:
        said = _body.decode(body[:_BODY_BYTES])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body[:_WORDS_MOST].decode("utf-8", "replace").strip()
    for part in (said.error, said.message, said.detail):
        if isinstance(part, dict):
            part = part.get("message")
        if part:
            return str(part)[:_WORDS_MOST]
    return ""
