"""Errors as clients see them: one tree, and its rendering for each API that is spoken.

    ApiError          knows its status, its words, and the headers that go with it
    └── RelayedError  a replica's own error answer, passed on as it is

Bodies are those that the official SDKs parse: OpenAI's `{"error": {...}}` (chat, completions and
everything else under /v1), and Anthropic's `{"type": "error", "error": {...}}` (/v1/messages).
In a stream that has begun an error is an event, and no `[DONE]` follows.
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal

import msgspec

from balancer.errors import (
    AnswerInvalid,
    AnswerLost,
    BalancerError,
    ConnectFailed,
    Overdue,
    PoolBusy,
    ReplicaRefused,
    StreamCut,
)

__all__ = ["ApiError", "Dialect", "RelayedError", "error_body", "error_event", "from_balancer"]

Headers = list[tuple[bytes, bytes]]
Dialect = Literal["openai", "responses", "anthropic"]


class ApiError(Exception):
    """An error with its HTTP answer.

    `type` and `code` are OpenAI's: clients switch on them. `param` names the faulty field.
    `kind` is the short name for metrics and logs.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: Headers | None = None,
        kind: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.code = code
        self.param = param
        self.headers: Headers = headers or []
        self.kind = kind or code or type


class RelayedError(ApiError):
    """A replica's error, to be passed on with its own status, headers and body."""

    def __init__(self, refused: ReplicaRefused) -> None:
        super().__init__(refused.status, refused.why, type="server_error", kind="status")
        self.replica_headers = refused.headers
        self.body = refused.body


# Engines that fail say so at once; an SDK that repeats a request that just took minutes, twice and
# unasked, only adds load to a replica that is too slow already.
_NO_RETRY: Final = (b"x-should-retry", b"false")


def from_balancer(error: BalancerError) -> ApiError:
    """What the client is told of a failure on the way to the replica."""
    if isinstance(error, ReplicaRefused):
        return RelayedError(error)
    if isinstance(error, PoolBusy):
        retry = (b"retry-after", b"%d" % math.ceil(error.retry_after_s))
        return _server_error(503, str(error), "overloaded", error, [retry])
    if isinstance(error, Overdue):
        message = f"the replica did not answer in time: {error}"
        if error.phase == "idle":
            message = f"the replica's stream stalled: {error}"
        return _server_error(504, message, "replica_timeout", error, [_NO_RETRY])
    if isinstance(error, ConnectFailed):
        return _server_error(502, str(error), "replica_unreachable", error)
    if isinstance(error, AnswerLost | AnswerInvalid | StreamCut):
        return _server_error(502, str(error), "replica_failed", error)
    return _server_error(500, str(error), "internal_error", error)


def _server_error(
    status: int, message: str, code: str, error: BalancerError, headers: Headers | None = None
) -> ApiError:
    kind = f"{error.kind}_{error.phase}" if isinstance(error, Overdue) else error.kind
    return ApiError(status, message, type="server_error", code=code, headers=headers, kind=kind)


_ANTHROPIC_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def _anthropic(error: ApiError) -> dict[str, Any]:
    default = "invalid_request_error" if error.status < 500 else "api_error"
    kind = _ANTHROPIC_TYPES.get(error.status, default)
    return {"type": "error", "error": {"type": kind, "message": error.message}}


def _openai(error: ApiError) -> dict[str, Any]:
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
        }
    }


def error_body(error: ApiError, dialect: Dialect = "openai") -> bytes:
    """The JSON body of an error answer."""
    return msgspec.json.encode(_anthropic(error) if dialect == "anthropic" else _openai(error))


def error_event(error: ApiError, dialect: Dialect = "openai") -> bytes:
    """The error as a server-sent event: the last one of a stream that failed."""
    if dialect == "anthropic":
        return b"event: error\ndata: %b\n\n" % msgspec.json.encode(_anthropic(error))
    if dialect == "responses":
        data = {"type": "error", "code": error.code, "message": error.message, "param": error.param}
        return b"event: error\ndata: %b\n\n" % msgspec.json.encode(data)
    return b"data: %b\n\n" % msgspec.json.encode(_openai(error))
