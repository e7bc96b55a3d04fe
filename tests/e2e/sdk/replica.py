"""A replica on a real socket: the test writes its answers, and it remembers what it was asked.

It shares no code with the product, so what it got is what was really sent.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, NamedTuple

import trio

__all__ = ["Asked", "Handler", "ScriptedReplica", "event", "hanging", "streamed", "whole"]


class Asked(NamedTuple):
    """One request as it came; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Handler = Callable[[Asked, trio.SocketStream], Awaitable[None]]

_MODELS: Final = b'{"object": "list", "data": [{"id": "scripted", "object": "model"}]}'


class ScriptedReplica:
    """Answers each path as `handlers` says, and `GET /v1/models` by itself if they do not.

    `asked` is every request but those for the models and for pages that it does not have; `left`
    counts connections that Triolet closed while they were being answered.
    """

    def __init__(self, handlers: dict[str, Handler]) -> None:
        self.asked: list[Asked] = []
        self.left = 0
        self.url = ""
        self._handlers = handlers
        self._models = handlers.get("/v1/models", whole(_MODELS))

    async def serve(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; started with its URL."""
        async with trio.open_nursery() as nursery:
            serve = partial(trio.serve_tcp, self._converse, 0, host="127.0.0.1")
            [listener] = await nursery.start(serve)
            self.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
            task_status.started(self.url)

    async def _converse(self, stream: trio.SocketStream) -> None:
        requests = _Requests(stream)
        async with stream:
            try:
                while (asked := await requests.next()) is not None:
                    await self._answer(asked, stream)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self.left += 1

    async def _answer(self, asked: Asked, stream: trio.SocketStream) -> None:
        path = asked.target.partition("?")[0]
        if path == "/v1/models":
            await self._models(asked, stream)
            return
        if asked.method == "GET" and path not in self._handlers:  # a probe for its load
            await _NOTHING(asked, stream)
            return
        self.asked.append(asked)
        await self._handlers[path](asked, stream)


class _Requests:
    """Cuts a connection's bytes into requests; bodies have a length."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = b""

    async def next(self) -> Asked | None:
        while b"\r\n\r\n" not in self._buffer:
            if not await self._more():
                return None
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        length = int(headers.get("content-length", 0))
        while len(self._buffer) < length:
            if not await self._more():
                return None
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        method, target, _ = first.split(" ")
        return Asked(method, target, headers, body)

    async def _more(self) -> bool:
        data = await self._stream.receive_some(65_536)
        self._buffer += data
        return bool(data)


def whole(
    answer: object,
    *,
    status: int = 200,
    content_type: str = "application/json",
    headers: dict[str, str] | None = None,
) -> Handler:
    """An answer with a length; what is not bytes is sent as JSON."""
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    lines = [
        f"HTTP/1.1 {status} Scripted",
        f"content-type: {content_type}",
        f"content-length: {len(body)}",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]

    async def handler(_: Asked, stream: trio.SocketStream) -> None:
        await stream.send_all("\r\n".join([*lines, "", ""]).encode() + body)

    return handler


_NOTHING: Final = whole({"detail": "Not Found"}, status=404)


_STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def event(data: object, name: str | None = None) -> bytes:
    """One server-sent event; what is not text is sent as JSON."""
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def streamed(*steps: bytes | trio.Event, cut: bool = False) -> Handler:
    """A stream of events, each in a chunk of its own; a `trio.Event` is waited for.

    With `cut` the connection is closed in place of the stream's end.
    """

    async def handler(_: Asked, stream: trio.SocketStream) -> None:
        await stream.send_all(_STREAM_HEAD)
        for step in steps:
            if isinstance(step, bytes):
                await stream.send_all(b"%x\r\n%b\r\n" % (len(step), step))
            else:
                await step.wait()
        if cut:
            await stream.aclose()
        else:
            await stream.send_all(b"0\r\n\r\n")

    return handler


def hanging(until_left: trio.Event | None = None) -> Handler:
    """No answer at all; `until_left` is set when Triolet closes the connection."""

    async def handler(_: Asked, stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        if until_left is not None:
            until_left.set()
        raise trio.BrokenResourceError

    return handler
