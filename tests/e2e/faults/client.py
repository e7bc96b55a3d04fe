"""A client that writes raw bytes and can misbehave at any point."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httptools
import trio

__all__ = ["MODEL", "Answer", "RawClient", "connected", "post"]

MODEL = "m"


def post(path: str = "/v1/chat/completions", *, headers: bytes = b"", **fields: Any) -> bytes:
    """A request for a stream, unless `fields` say otherwise; `headers` are whole lines."""
    asked = {"model": MODEL, "stream": True, **fields}
    return post_body(json.dumps(asked, separators=(",", ":")).encode(), path, headers=headers)


def post_body(
    body: bytes, path: str = "/v1/chat/completions", *, headers: bytes = b"", kind: bytes = b"json"
) -> bytes:
    """A request with exactly this body."""
    head = b"POST %b HTTP/1.1\r\nhost: triolet\r\ncontent-type: application/%b\r\n" % (
        path.encode(),
        kind,
    )
    return head + headers + b"content-length: %d\r\n\r\n" % len(body) + body


class Answer:
    """An answer as it comes in. `whole` once its framing says that it has ended."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.whole = False

    # What llhttp calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode()

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.whole = True

    # What tests ask.

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object of a JSON answer."""
        error: dict[str, Any] = self.json()["error"]
        return error

    @property
    def events(self) -> list[bytes]:
        """The stream's events without their final empty line; there is no half one."""
        assert self.body.endswith(b"\n\n"), self.body
        return self.body.removesuffix(b"\n\n").split(b"\n\n")

    @property
    def last_event(self) -> Any:
        """The JSON data of the last event."""
        return json.loads(self.events[-1].rpartition(b"data: ")[2])

    @property
    def text(self) -> str:
        """The text of a chat stream up to `[DONE]` or an error."""
        data = [json.loads(e[6:]) for e in self.events if e.startswith(b'data: {"choices"')]
        return "".join(event["choices"][0]["delta"]["content"] for event in data)


class RawClient:
    """One connection to Triolet."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self.sock = sock
        self._answer = Answer()
        self._parser = httptools.HttpResponseParser(self._answer)

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[await self.sock.send(view) :]

    async def _more(self) -> bool:
        try:
            data = await self.sock.recv(65_536)
        except ConnectionResetError:
            return False
        if data:
            self._parser.feed_data(data)
            self._answer.status = self._parser.get_status_code()
        return bool(data)

    async def answer(self) -> Answer:
        """The next answer, or what there is of it when the connection ends."""
        while not self._answer.whole and await self._more():
            pass
        answer, self._answer = self._answer, Answer()
        self._parser = httptools.HttpResponseParser(self._answer)
        return answer

    async def body_so_far(self, wanted: bytes) -> Answer:
        """Read until `wanted` stands in the body."""
        while wanted not in self._answer.body:
            assert await self._more(), f"the connection ended after {self._answer.body!r}"
        return self._answer

    async def closed(self) -> bool:
        """Wait for Triolet to close the connection. False if it says something instead."""
        try:
            return await self.sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def leave(self, *, reset: bool = False) -> float:
        """Close the connection, politely or not. Returns the time."""
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
        return trio.current_time()


@asynccontextmanager
async def connected(port: int, *, receive_bytes: int | None = None) -> AsyncIterator[RawClient]:
    """A client that is gone at the end; `receive_bytes` is its socket's receive buffer."""
    with trio.socket.socket() as sock:
        if receive_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        await sock.connect(("127.0.0.1", port))
        yield RawClient(sock)
