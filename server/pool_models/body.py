"""The body of a model call. Written once; only the model's name differs from pool to pool."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from server.pool_models.parameters import request_fields
from server.workflow.services import ChatCall, ModelFailed

__all__ = ["Body", "make_body"]

_MOST_BYTES: Final = 64 * 1024 * 1024
"""Of one request, its images included."""


class Body:
    """What is asked. `dropped` are the parameters that no engine is told of."""

    __slots__ = ("_rest", "_written", "dropped", "target")

    def __init__(self, target: bytes, rest: bytes, dropped: list[str]) -> None:
        self.target = target
        self._rest = rest
        self._written = ("", b"")
        """The last name and its JSON: it is asked for twice, and may have many megabytes."""
        self.dropped = dropped

    def for_model(self, name: str) -> bytes:
        """The JSON as a replica that calls its model so gets it."""
        if self._written[0] != name:
            self._written = (name, b'{"model":%b,%b' % (msgspec.json.encode(name), self._rest))
        return self._written[1]


def make_body(call: ChatCall) -> Body:
    """Raises `ModelFailed`: too large, or with a parameter that is wrong."""
    fields, dropped = request_fields(call.parameters)
    asked: dict[str, Any] = {}
    if call.prompt is None:
        target = b"/v1/chat/completions"
        asked["messages"] = call.messages
    else:
        target = b"/v1/completions"
        asked["prompt"] = call.prompt
        fields.pop("response_format", None)
    if call.tools:
        asked["tools"] = call.tools
        if call.tool_choice is not None:
            asked["tool_choice"] = call.tool_choice
    else:
        fields.pop("parallel_tool_calls", None)
    asked.update(fields)
    if call.response_format is not None:
        asked["response_format"] = call.response_format
    asked["stream"] = call.stream
    if call.stream:
        asked["stream_options"] = {"include_usage": True}
    rest = _encoded(asked)[1:]
    if len(rest) > _MOST_BYTES:
        raise ModelFailed(
            f"the request has {len(rest):,} bytes, more than the {_MOST_BYTES:,} that a model is "
            "sent; shorten the prompt, or send fewer or smaller files",
            "InvokeBadRequestError",
        )
    return Body(target, rest, dropped)


def _encoded(asked: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(asked)
    except UnicodeEncodeError:  # half a character, out of an input's JSON
        return json.dumps(asked, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise ModelFailed(f"a parameter is no JSON: {exc}", "InvokeBadRequestError") from None
