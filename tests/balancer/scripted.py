"""What the balancer's tests share: replicas that follow a script, clients that note what comes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

import trio
import trio.testing

from balancer.dispatch import Trace
from balancer.errors import ConnectionLost
from balancer.wire.http1 import Head
from balancer.wire.pump import Sink
from balancer.wire.transport import Transport

T = TypeVar("T")

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
DONE = b"data: [DONE]\n\n"
LAST_CHUNK = b"0\r\n\r\n"
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}\n\n'


class Act(Enum):
    """What a scripted replica does besides sending and sleeping."""

    CLOSE = "close"
    RESET = "reset"
    HANG = "hang"


Step = bytes | float | Act
"""Bytes to send, seconds to sleep, or an act that ends the connection."""


def in_virtual_time(body: Callable[[], Awaitable[T]]) -> T:
    """Run `body` on a clock of its own that jumps over idle time: for hypothesis' sync tests."""
    return trio.run(body, clock=trio.testing.MockClock(autojump_threshold=0))


def event(text: str) -> bytes:
    """One token of a chat stream."""
    return b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % text.encode()


def chunk(data: bytes) -> bytes:
    """In the chunked transfer coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def answer(
    body: bytes,
    *,
    status: int = 200,
    content_type: bytes = b"application/json",
    headers: Sequence[bytes] = (),
) -> bytes:
    """A whole answer with its length."""
    lines = [b"HTTP/1.1 %d Whatever" % status, b"content-type: " + content_type, *headers]
    lines += [b"content-length: %d" % len(body), b"", body]
    return b"\r\n".join(lines)


def stream(*events: bytes) -> list[Step]:
    """A whole chunked stream, each event in a chunk of its own."""
    return [STREAM_HEAD, *map(chunk, events), LAST_CHUNK]


async def read_request(source: Transport) -> bytes | None:
    """One request with its body; None when the connection ends first."""
    request = b""
    while True:
        data = await source.receive()
        if not data:
            return None
        request += data
        head, separator, body = request.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        if separator and len(body) >= length:
            return request


class ScriptedReplica:
    """A handler for `MemoryDialer.serve`: plays the n-th script for the n-th request.

    The last script serves all further requests.
    """

    def __init__(self, *scripts: Sequence[Step]) -> None:
        self._scripts = scripts
        self.requests: list[bytes] = []
        self.connections = 0
        self.left_at: list[float] = []
        """When the other side closed a connection on which this one hung."""

    async def __call__(self, source: Transport) -> None:
        self.connections += 1
        while (request := await read_request(source)) is not None:
            self.requests.append(request)
            script = self._scripts[min(len(self.requests), len(self._scripts)) - 1]
            for step in script:
                if not await self._play(source, step):
                    return

    async def _play(self, source: Transport, step: Step) -> bool:
        """Whether to go on with the connection."""
        if isinstance(step, bytes):
            await source.send_all(step)
        elif isinstance(step, Act):
            if step is Act.HANG:
                await self._hang(source)
            source.close(reset=step is Act.RESET)
            return False
        else:
            await trio.sleep(step)
        return True

    async def _hang(self, source: Transport) -> None:
        try:
            while await source.receive():
                pass
        except ConnectionLost:
            pass
        finally:
            self.left_at.append(trio.current_time())


@dataclass
class NotingClient:
    """Who asked: notes what it is sent, and when."""

    fast: bool = True
    """Whether it has a sink, so that the pump serves it."""
    takes_bytes: float = float("inf")
    """How much the sink takes before it is full and must drain."""
    drain_s: float = 1.0
    start_s: float = 0.0
    finish_s: float = 0.0
    leaves_after: float = float("inf")
    """How many bytes of the body it lives to see."""
    head: Head | None = None
    trace: Trace | None = None
    ended: bool = False
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    _untaken: float = 0.0

    @property
    def body(self) -> bytes:
        return b"".join(data for _, data in self.pieces)

    @property
    def sink(self) -> Sink | None:
        return self if self.fast else None

    async def start(self, head: Head, trace: Trace, data: bytes, *, end: bool) -> None:
        assert self.head is None, "a second head"
        self.head, self.trace = head, trace
        await trio.sleep(self.start_s)
        self._note(data, end=end)

    async def send(self, data: bytes) -> None:
        await trio.sleep(self.drain_s if len(self.body) + len(data) > self.takes_bytes else 0)
        self._note(data)

    async def finish(self, data: bytes) -> None:
        await trio.sleep(self.finish_s)
        self._note(data, end=True)

    def write_nowait(self, data: bytes) -> bool:
        assert self._untaken < self.takes_bytes, "written to although full"
        self._note(data)
        self._untaken += len(data)
        return self._untaken < self.takes_bytes

    async def drain(self) -> None:
        await trio.sleep(self.drain_s)
        self._untaken = 0.0

    def _note(self, data: bytes, *, end: bool = False) -> None:
        assert self.head is not None, "a body before the head"
        assert not self.ended, "more after the end"
        if len(self.body) + len(data) > self.leaves_after:
            raise ConnectionLost("the client is gone")
        self.pieces.append((trio.current_time(), data))
        self.ended = end
