"""What the replica needs of ASGI: read a body, answer, notice that the client left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

import trio

from bench.replica.core import EngineDiedError
from bench.replica.errors import RequestError

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]

MARK: Headers = ((b"x-triolet-simulation", b"demo-replica"),)
"""On every answer, whatever it holds."""


class ClientGoneError(Exception):
    """The client left before its request was complete."""


def header(scope: Scope, name: bytes) -> str:
    """The first header of that (lower-case) name, or an empty string."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value).decode("latin-1").strip()
    return ""


async def read_body(receive: Receive, at_most: int) -> bytes:
    """The request body.

    Raises:
        ClientGoneError: if it never became complete.
        RequestError: 413, once more than `at_most` bytes have come.
    """
    pieces: list[bytes] = []
    size = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ClientGoneError
        pieces.append(event.get("body", b""))
        size += len(pieces[-1])
        if size > at_most:
            message = (
                f"The request body is larger than {at_most} bytes, the most this replica reads."
            )
            raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message, param="body")
        if not event.get("more_body", False):
            return b"".join(pieces)


async def send_head(send: Send, status: int, content_type: bytes, headers: Headers = ()) -> None:
    """The response head."""
    names = ((b"content-type", content_type), *MARK, *headers)
    await send({"type": "http.response.start", "status": status, "headers": names})


async def send_whole(
    send: Send,
    body: bytes,
    *,
    status: int = 200,
    content_type: bytes = b"application/json",
    headers: Headers = (),
    head_only: bool = False,
) -> None:
    """A whole response; with `head_only` the same without its body."""
    length = (b"content-length", str(len(body)).encode())
    await send_head(send, status, content_type, (length, *headers))
    await send({"type": "http.response.body", "body": b"" if head_only else body})


async def until_disconnect(receive: Receive, work: Callable[[], Awaitable[None]]) -> None:
    """Runs `work`, and cancels it at once when the client leaves.

    Raises EngineDiedError if `work` does.
    """
    died: EngineDiedError | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_when_gone, receive, nursery.cancel_scope)
        try:
            await work()
        except* EngineDiedError as group:
            died = EngineDiedError(str(group.exceptions[0]))
        except* OSError:
            pass  # A server may also report a client that left by failing the send.
        nursery.cancel_scope.cancel("the response is complete")
    if died is not None:
        raise died


async def _cancel_when_gone(receive: Receive, scope: trio.CancelScope) -> None:
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            scope.cancel("the client left")
            return
        # A server that repeats empty body events must not keep this loop from yielding.
        await trio.lowlevel.checkpoint()
