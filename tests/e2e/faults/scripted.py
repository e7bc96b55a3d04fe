"""A replica that does what a script says: a list of steps for each connection, on real sockets.

The first connection it gets is Triolet's health probe, which is always answered. From then on
connection n plays script n, and those after the last play the last one again.
"""

from __future__ import annotations

import math
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import trio

__all__ = [
    "CLOSE",
    "DONE",
    "END",
    "HANG",
    "HEALTHY",
    "REQUEST",
    "RESET",
    "STREAM",
    "STREAM_HEAD",
    "UNFRAMED_HEAD",
    "WHOLE",
    "FakeReplica",
    "Peer",
    "PeerGone",
    "Script",
    "Step",
    "chunk",
    "delta",
    "drip",
    "flood",
    "forever",
    "json_answer",
    "pause",
    "say",
    "until",
]


class PeerGone(Exception):
    """Triolet closed this connection."""


class Asked(NamedTuple):
    """A request as the replica got it."""

    line: str
    headers: dict[str, str]
    body: bytes


class Peer:
    """One connection from Triolet. `gone_at` is when Triolet was seen to close it."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self.sock = sock
        self.requests: list[Asked] = []
        self.gone = trio.Event()
        self.gone_at = math.inf
        self._unread = b""

    async def _receive(self) -> bytes:
        try:
            data = await self.sock.recv(65_536)
        except OSError:
            data = b""
        if not data:
            self._left()
            raise PeerGone
        return data

    def _left(self) -> None:
        self.gone_at = trio.current_time()
        self.gone.set()

    async def read_request(self) -> None:
        """Wait for a whole request."""
        while b"\r\n\r\n" not in self._unread:
            self._unread += await self._receive()
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        line, *fields = head.decode().split("\r\n")
        headers = dict(field.split(": ", 1) for field in fields)
        length = int(headers.get("content-length", "0"))
        while len(self._unread) < length:
            self._unread += await self._receive()
        body, self._unread = self._unread[:length], self._unread[length:]
        self.requests.append(Asked(line, headers, body))

    async def send(self, data: bytes) -> None:
        try:
            view = memoryview(data)
            while view:
                view = view[await self.sock.send(view) :]
        except OSError:
            self._left()
            raise PeerGone from None

    async def wait_gone(self) -> None:
        """Say nothing more, until Triolet closes the connection."""
        while True:
            await self._receive()

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()
        self.sock.close()

    async def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self.close()


Step = Callable[[Peer], Awaitable[None]]
Script = list[Step]

REQUEST: Final[Step] = Peer.read_request
HANG: Final[Step] = Peer.wait_gone
CLOSE: Final[Step] = Peer.close
RESET: Final[Step] = Peer.reset


def say(*parts: bytes) -> Step:
    """Send these bytes, in one write for each part."""

    async def step(peer: Peer) -> None:
        for part in parts:
            await peer.send(part)
            await trio.lowlevel.checkpoint()

    return step


def drip(data: bytes, every_s: float) -> Step:
    """Send byte after byte."""

    async def step(peer: Peer) -> None:
        for index in range(len(data)):
            await peer.send(data[index : index + 1])
            await trio.sleep(every_s)

    return step


def pause(seconds: float) -> Step:
    """Say nothing for a while."""

    async def step(_: Peer) -> None:
        await trio.sleep(seconds)

    return step


def flood(data: bytes) -> Step:
    """Send it again and again until Triolet closes the connection."""

    async def step(peer: Peer) -> None:
        while True:
            await peer.send(data)

    return step


def until(event: trio.Event) -> Step:
    """Wait for the test's word."""

    async def step(peer: Peer) -> None:
        await event.wait()

    return step


def forever(*steps: Step) -> Script:
    """The same again for each request on the connection."""

    async def step(peer: Peer) -> None:
        while True:
            for each in steps:
                await each(peer)

    return [step]


# What replicas say.


def json_answer(body: bytes, status: str = "200 OK", *headers: bytes) -> bytes:
    """A whole answer with a length."""
    own = [b"content-type: application/json", b"content-length: %d" % len(body), *headers]
    return b"\r\n".join((b"HTTP/1.1 " + status.encode(), *own, b"", body))


def delta(text: str) -> bytes:
    """One event of a chat stream."""
    return b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % text.encode()


def chunk(data: bytes) -> bytes:
    """In the chunked encoding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


END: Final = b"0\r\n\r\n"
DONE: Final = b"data: [DONE]\n\n"
STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
UNFRAMED_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
)
STREAM: Final = STREAM_HEAD + chunk(delta("Hel")) + chunk(delta("lo")) + chunk(DONE) + END
WHOLE: Final = json_answer(b'{"choices":[{"index":0,"message":{"content":"Hello"}}]}')


async def _answer_healthily(peer: Peer) -> None:
    streamed = b'"stream":true' in peer.requests[-1].body
    await peer.send(STREAM if streamed else WHOLE)


HEALTHY: Final[Script] = forever(REQUEST, _answer_healthily)
_PROBE: Final[Script] = [REQUEST, say(json_answer(b'{"object":"list","data":[]}')), HANG]


class FakeReplica:
    """Listens from the beginning; `run` plays the scripts. `peers` has all but the probe."""

    def __init__(self, *scripts: Script) -> None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener = trio.socket.from_stdlib_socket(listener)
        self._port: int = listener.getsockname()[1]
        self._scripts = scripts or (HEALTHY,)
        self._accepting = trio.CancelScope()
        self._probed = False
        self._callers: list[socket.socket] = []
        self.peers: list[Peer] = []
        self.open = 0
        """Connections now, a probe's too; each is one task."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def requests(self) -> list[Asked]:
        """All requests but the probe's."""
        return [asked for peer in self.peers for asked in peer.requests]

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                with self._accepting:
                    while True:
                        sock, _ = await self._listener.accept()
                        nursery.start_soon(self._play, sock)
                # It stays a task, so that the tasks of a test can be counted.
                await trio.sleep_forever()
        finally:
            self._listener.close()
            for caller in self._callers:
                caller.close()

    async def _play(self, sock: trio.socket.SocketType) -> None:
        peer = Peer(sock)
        script = _PROBE
        if self._probed:
            script = self._scripts[min(len(self.peers), len(self._scripts) - 1)]
            self.peers.append(peer)
        self._probed = True
        self.open += 1
        try:
            for step in script:
                await step(peer)
        except PeerGone:
            await trio.lowlevel.checkpoint()
        finally:
            self.open -= 1
            sock.close()

    def refuse(self) -> None:
        """Nothing listens any more."""
        self._accepting.cancel("the replica refuses connections")
        self._listener.close()

    def stop_accepting(self) -> None:
        """Connections are neither accepted nor refused: whoever connects waits."""
        self._accepting.cancel("the replica accepts no connections")
        self._listener.listen(0)
        for _ in range(4):
            caller = socket.socket()
            caller.setblocking(False)
            caller.connect_ex(("127.0.0.1", self._port))
            self._callers.append(caller)
