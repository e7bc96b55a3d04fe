"""What the fake replica says: requests read just far enough, answers made once, all as bytes."""

from __future__ import annotations

import functools
import json
import re
from typing import Final, NamedTuple

MODEL: Final = "fake"
_ID: Final = "chatcmpl-5f0c8a7be1d94c6f8e2b3a4d5c6e7f80"
_CREATED: Final = 1_750_000_000
_HEAD_END: Final = b"\r\n\r\n"
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_STREAM = re.compile(rb'"stream"\s*:\s*true')
_TOKENS = re.compile(rb'"max_(?:completion_)?tokens"\s*:\s*([0-9]+)')
_PACE = re.compile(rb"\bpace=([0-9]+)ms\b( staggered\b)?")


class Order(NamedTuple):
    """What a request asks for."""

    stream: bool
    tokens: int
    pace_ms: int
    """Between tokens; 0 sends them as fast as steps can follow each other."""
    staggered: bool
    """By a clock of the stream's own, not in step with the other streams of its pace."""


class Request(NamedTuple):
    """One request of a connection and how many bytes it took."""

    method: bytes
    path: bytes
    body: bytes
    size: int


class BadRequestBytes(Exception):
    """The bytes are no request the fake replica understands."""


def split_request(received: bytes) -> Request | None:
    """The first request in `received`, or None while it is not complete.

    Raises BadRequestBytes for a chunked body, which no proxy here needs to send.
    """
    end = received.find(_HEAD_END)
    if end < 0:
        return None
    head = received[:end]
    found = _CONTENT_LENGTH.search(head)
    if found is None and _CHUNKED.search(head):
        raise BadRequestBytes("a chunked request body; send content-length")
    body_at = end + len(_HEAD_END)
    size = body_at + (int(found[1]) if found else 0)
    if len(received) < size:
        return None
    line = head.split(b" ", 2)
    if len(line) != 3:
        raise BadRequestBytes(f"no request line: {head[:80]!r}")
    return Request(line[0], line[1].partition(b"?")[0], received[body_at:size], size)


@functools.lru_cache(maxsize=64)
def read_order(body: bytes) -> Order:
    """Find `stream`, `max_tokens` (default 32) and the pace in a request's JSON.

    The pace is `pace=20ms` or `pace=20ms staggered`. Searched for, not parsed. The pace stands in
    a message's text and tokens have two names because a router may decode a request and write it
    anew, without the fields it does not know.
    """
    tokens = _TOKENS.search(body)
    pace = _PACE.search(body)
    return Order(
        stream=_STREAM.search(body) is not None,
        tokens=max(1, int(tokens[1])) if tokens else 32,
        pace_ms=int(pace[1]) if pace else 0,
        staggered=pace is not None and pace[2] is not None,
    )


@functools.lru_cache(maxsize=64)
def stream_sends(tokens: int) -> tuple[bytes, ...]:
    """The sends of one stream: the head with the first token, each further token, the end."""
    head = (
        b"HTTP/1.1 200 OK\r\ndate: Mon, 01 Jan 2024 00:00:00 GMT\r\nserver: uvicorn\r\n"
        b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    events = [_framed(_event(index, last=index == tokens - 1)) for index in range(tokens)]
    return (head + events[0], *events[1:], _framed(b"data: [DONE]\n\n") + b"0\r\n\r\n")


def events_per_stream(tokens: int) -> int:
    """How many SSE events a stream has: its tokens and `[DONE]`."""
    return tokens + 1


def _event(index: int, *, last: bool) -> bytes:
    delta = {"role": "assistant", "content": "Once"} if index == 0 else {"content": " token"}
    chunk = {
        "id": _ID,
        "object": "chat.completion.chunk",
        "created": _CREATED,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "delta": delta,
                "logprobs": None,
                "finish_reason": "length" if last else None,
                "token_ids": None,
            }
        ],
    }
    return b"data: " + _compact(chunk) + b"\n\n"


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@functools.lru_cache(maxsize=64)
def whole_answer(tokens: int) -> bytes:
    """An answer that is not streamed: about 600 bytes of JSON at 32 tokens."""
    usage = {"prompt_tokens": 250, "completion_tokens": tokens, "total_tokens": 250 + tokens}
    message: dict[str, object] = {
        "role": "assistant",
        "content": "Once" + " token" * (tokens - 1),
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "tool_calls": [],
        "reasoning_content": None,
    }
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "length"}
    return json_response(
        {
            "id": _ID,
            "object": "chat.completion",
            "created": _CREATED,
            "model": MODEL,
            "choices": [choice],
            "usage": usage,
        }
    )


@functools.lru_cache(maxsize=64)
def small_answer(path: bytes) -> bytes:
    """The answer to a GET: what proxies ask of an engine before they send it work."""
    described = {
        "model_path": MODEL,
        "tokenizer_path": MODEL,
        "served_model_name": MODEL,
        "is_generation": True,
        "tp_size": 1,
        "dp_size": 1,
        "version": "0",
        "max_model_len": 32768,
    }
    model = {"id": MODEL, "object": "model", "created": _CREATED, "owned_by": "fake"}
    match path:
        case b"/v1/models":
            return json_response({"object": "list", "data": [model | {"root": MODEL}]})
        case b"/get_server_info" | b"/server_info" | b"/get_model_info" | b"/model_info":
            return json_response(described)
        case b"/health" | b"/health_generate" | b"/version" | b"/get_load" | b"/metrics":
            return json_response({"version": "0", "load": 0})
    return json_response({"error": {"message": f"no {path!r} here"}}, status=b"404 Not Found")


def json_response(content: object, *, status: bytes = b"200 OK") -> bytes:
    """A complete JSON response."""
    body = _compact(content)
    return (
        b"HTTP/1.1 %s\r\ndate: Mon, 01 Jan 2024 00:00:00 GMT\r\nserver: uvicorn\r\n"
        b"content-length: %d\r\ncontent-type: application/json\r\n\r\n%s"
    ) % (status, len(body), body)


def _compact(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()
