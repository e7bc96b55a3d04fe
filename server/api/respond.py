"""Small ASGI pieces that every API uses: take a whole body, send a whole answer."""

from __future__ import annotations

import msgspec

from server.edge.exchange import Receive, Send
from server.errors import ApiError, Dialect, RelayedError, error_body
from server.observe.record import Record

__all__ = ["ClientLeft", "read_body", "respond", "respond_error", "respond_json"]

Headers = list[tuple[bytes, bytes]]

_JSON = (b"content-type", b"application/json")


class ClientLeft(Exception):
    """The client went away before its request was complete."""


async def read_body(receive: Receive, limit_bytes: int) -> bytes:
    """The request's body. Raises `ClientLeft`, or `ApiError` 413 over `limit_bytes`."""
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message.get("body", b"")
        _check_size(len(body), limit_bytes)
        return body
    pieces: list[bytes] = []
    size = 0
    while True:
        if message["type"] == "http.disconnect":
            raise ClientLeft
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        _check_size(size, limit_bytes)
        if not message.get("more_body", False):
            return b"".join(pieces)
        message = await receive()


def _check_size(size: int, limit_bytes: int) -> None:
    # The edge of plaintext has looked at this already; the one of TLS leaves it to us.
    if size > limit_bytes:
        raise ApiError(
            413,
            f"request body over the limit of {limit_bytes} bytes (limits.body_bytes)",
            code="request_too_large",
        )


async def respond(send: Send, record: Record, status: int, headers: Headers, body: bytes) -> None:
    """Send a whole answer."""
    record.status = status
    headers = [*headers, (b"x-request-id", record.request_id.encode())]
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def respond_json(send: Send, record: Record, status: int, answer: object) -> None:
    await respond(send, record, status, [_JSON], msgspec.json.encode(answer))


async def respond_error(
    send: Send,
    record: Record,
    error: ApiError,
    dialect: Dialect = "openai",
    headers: Headers | None = None,
) -> None:
    """Send an error in the API's own shape; a replica's error as the replica put it."""
    record.outcome = error.kind
    if isinstance(error, RelayedError):
        body, own = error.body, [*error.headers, *(headers or [])]
    else:
        body, own = error_body(error, dialect), [_JSON, *error.headers, *(headers or [])]
    await respond(send, record, error.status, own, body)
