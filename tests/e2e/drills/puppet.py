"""A replica in the drill's own process, whose behaviour the drill changes while it serves."""

from __future__ import annotations

import contextlib
import json
import math
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from tests.e2e.drills.places import kept_port, listener_on
from tests.e2e.faults.client import MODEL

__all__ = ["Heard", "Puppet", "puppets"]

_MODELS: Final = b'{"object":"list","data":[{"id":"%b","object":"model"}]}' % MODEL.encode()
_BUSY: Final = b'{"error":{"message":"busy","type":"server_error","param":null,"code":"busy"}}'
_STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


class _PeerGone(Exception):
    """Triolet closed the connection."""


class Heard:
    """One model call as it reached a replica."""

    def __init__(self, id: str, tokens: int, text: str) -> None:
        self.id = id
        self.tokens = tokens
        self.text = text
        """Of the last message; each token repeats it."""
        self.at = trio.current_time()
        self.answered = False
        """Whether it was answered to the end, well or with an error."""
        self.gone_at = math.inf
        """When Triolet was seen to close the connection before the end."""


class Puppet:
    """Streams `tokens` tokens, the first after `first_s`, the others `gap_s` apart.

    `calls` is every model call that arrived here. While `silent` it accepts connections and says
    nothing, not even to probes; with a `status` it answers each model call with that error.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.first_s = 0.005
        self.gap_s = 0.005
        self.silent = False
        self.status: int | None = None
        self.retry_after: int | None = None
        self.go_on = trio.Event()
        self.go_on.set()
        """Streams wait for it before their first event."""
        self.calls: list[Heard] = []
        self.most_at_once = 0
        self._at_once = 0
        self._connections: set[trio.CancelScope] = set()
        self._accepting: trio.CancelScope | None = None
        self._nursery: trio.Nursery | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def in_flight(self) -> int:
        """Model calls here now."""
        return self._at_once

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as self._nursery:
            self.up()
            task_status.started()
            await trio.sleep_forever()

    def up(self) -> None:
        """Listen from now on."""
        assert self._nursery is not None
        assert self._accepting is None
        self._accepting = trio.CancelScope()
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(listener_on(self.port)))
        self._nursery.start_soon(self._accept, listener, self._accepting)

    def down(self) -> None:
        """As if killed: connections are reset, and new ones refused."""
        assert self._accepting is not None
        self._accepting.cancel("down")
        self._accepting = None
        for connection in tuple(self._connections):
            connection.cancel("down")

    async def _accept(self, listener: trio.SocketListener, accepting: trio.CancelScope) -> None:
        assert self._nursery is not None
        with accepting:
            try:
                while True:
                    self._nursery.start_soon(self._take, await listener.accept())
            finally:
                listener.socket.close()

    async def _take(self, stream: trio.SocketStream) -> None:
        scope = trio.CancelScope()
        self._connections.add(scope)
        try:
            with scope:
                await self._converse(stream)
        finally:
            self._connections.discard(scope)
            if scope.cancelled_caught:
                linger = struct.pack("ii", 1, 0)
                stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            stream.socket.close()

    async def _converse(self, stream: trio.SocketStream) -> None:
        reader = _Reader(stream)
        try:
            while True:
                path, id, body = await reader.request()
                if path.startswith("/v1/chat"):
                    await self._serve(stream, Heard(id, *_asked(body)))
                elif self.silent:
                    await _until_gone(stream)
                else:
                    known = path == "/v1/models"
                    await _send(stream, _whole(_MODELS, "200 OK" if known else "404 Not Found"))
        except _PeerGone:
            await trio.lowlevel.checkpoint()

    async def _serve(self, stream: trio.SocketStream, call: Heard) -> None:
        self.calls.append(call)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_note_leaving, stream, call, nursery.cancel_scope)
                await self._answer(stream, call)
                call.answered = True
                nursery.cancel_scope.cancel("answered")
        except* _PeerGone:
            call.gone_at = min(call.gone_at, trio.current_time())
            await trio.lowlevel.checkpoint()
        finally:
            self._at_once -= 1
        if not call.answered:
            raise _PeerGone

    async def _answer(self, stream: trio.SocketStream, call: Heard) -> None:
        await self._stop_if_silent()
        if self.status is not None:
            again = [] if self.retry_after is None else [f"retry-after: {self.retry_after}"]
            await _send(stream, _whole(_BUSY, f"{self.status} Busy", *again))
            return
        await self.go_on.wait()
        await trio.sleep(self.first_s)
        await _send(stream, _STREAM_HEAD)
        for number in range(call.tokens):
            if number:
                await trio.sleep(self.gap_s)
            await self._stop_if_silent()
            await _send(stream, _token(call, number))
        await _send(stream, _end(call))

    async def _stop_if_silent(self) -> None:
        if self.silent:
            await trio.sleep_forever()


async def _note_leaving(
    stream: trio.SocketStream, call: Heard, answering: trio.CancelScope
) -> None:
    """Nothing is pipelined: what comes while a call is answered is the connection's end."""
    await trio.lowlevel.wait_readable(stream.socket)
    try:
        data = await stream.socket.recv(1, socket.MSG_PEEK)
    except OSError:
        data = b""
    if not data:
        call.gone_at = trio.current_time()
        answering.cancel("gone")


async def _until_gone(stream: trio.SocketStream) -> None:
    with contextlib.suppress(OSError):
        while await stream.socket.recv(65_536):
            pass
    raise _PeerGone


class _Reader:
    """Cuts a connection's bytes into requests; bodies have a length."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = b""

    async def request(self) -> tuple[str, str, bytes]:
        """Path, request id and body of the next one."""
        while b"\r\n\r\n" not in self._buffer:
            await self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        length = int(headers.get("content-length", "0"))
        while len(self._buffer) < length:
            await self._more()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return first.split(" ")[1], headers.get("x-request-id", ""), body

    async def _more(self) -> None:
        try:
            data = await self._stream.socket.recv(65_536)
        except OSError:
            raise _PeerGone from None
        if not data:
            raise _PeerGone
        self._buffer += data


def _asked(body: bytes) -> tuple[int, str]:
    fields = json.loads(body)
    return fields["max_tokens"], fields["messages"][-1]["content"]


async def _send(stream: trio.SocketStream, data: bytes) -> None:
    try:
        await stream.send_all(data)
    except trio.BrokenResourceError:
        raise _PeerGone from None


def _whole(body: bytes, status: str, *headers: str) -> bytes:
    own = ["content-type: application/json", f"content-length: {len(body)}", *headers]
    return "\r\n".join((f"HTTP/1.1 {status}", *own, "", "")).encode() + body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(call: Heard, choices: list[object], **fields: object) -> bytes:
    event = {"id": f"chatcmpl-{call.id}", "choices": choices, **fields}
    return b"data: %b\n\n" % json.dumps(event).encode()


def _token(call: Heard, number: int) -> bytes:
    return _chunk(_event(call, [{"index": 0, "delta": {"content": f" {number} {call.text}"}}]))


def _end(call: Heard) -> bytes:
    stop = _event(call, [{"index": 0, "delta": {}, "finish_reason": "length"}])
    usage = _event(call, [], usage={"prompt_tokens": 9, "completion_tokens": call.tokens})
    return _chunk(stop) + _chunk(usage) + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


@asynccontextmanager
async def puppets(number: int) -> AsyncIterator[list[Puppet]]:
    """So many, up and running."""
    with contextlib.ExitStack() as ports:
        made = [Puppet(ports.enter_context(kept_port())) for _ in range(number)]
        async with trio.open_nursery() as nursery:
            for puppet in made:
                await nursery.start(puppet.run)
            yield made
            nursery.cancel_scope.cancel("the drill is over")
