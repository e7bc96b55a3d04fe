"""A network without sockets, for tests in virtual time: connected pairs, a poller, a dialer.

The sockets behave as non-blocking TCP sockets on Linux do where the relay can tell the difference:
bounded buffers and partial sends, an end behind the last byte, a reset that discards what was not
read, the one send that a closed peer still swallows. Nothing here sleeps, so a clock that jumps
over idle time (`trio.testing.MockClock`) may be used with it.
"""

from __future__ import annotations

import errno
import itertools
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, cast

import trio

from balancer.errors import ConnectFailed, ConnectionLost
from balancer.wire.connect import Dialer, Origin
from balancer.wire.poller import HUNG_UP, READABLE, WRITABLE, Callback, Poller
from balancer.wire.transport import Transport

__all__ = ["Handler", "MemoryDialer", "MemoryPoller", "MemorySocket", "memory_network"]

CAPACITY_BYTES: Final = 65_536
"""How much one side may send before the other reads."""

Handler = Callable[[Transport], Awaitable[None]]
"""The other end of a connection: serves one, which is closed when it returns."""

_filenos: Final = itertools.count(1_000_000)


class MemorySocket:
    """One end of a connection, as far as a `Transport` uses a socket."""

    def __init__(self, capacity_bytes: int = CAPACITY_BYTES) -> None:
        self._capacity = capacity_bytes
        self._inbox = bytearray()
        self._peer = self
        self._fileno = next(_filenos)
        self._finished = False
        self._broken = False
        self._reset_on_close = False
        self._wants_write = False
        self.on_event: Callback | None = None
        """Called at every change of readiness, in the midst of it: for a poller to note."""

    @classmethod
    def pair(cls, capacity_bytes: int = CAPACITY_BYTES) -> tuple[MemorySocket, MemorySocket]:
        """Two connected sockets, each of which holds `capacity_bytes` of what the other sent."""
        one, other = cls(capacity_bytes), cls(capacity_bytes)
        one._peer, other._peer = other, one
        return one, other

    @property
    def closed(self) -> bool:
        return self._fileno < 0

    def fileno(self) -> int:
        """A number no other memory socket has and no real one should; -1 once closed."""
        return self._fileno

    def readiness(self) -> int:
        """What holds now; `WRITABLE` is told only to who waits for it."""
        ended = self._broken or self._peer._finished
        return (READABLE if ended or self._inbox else 0) | (HUNG_UP if ended else 0)

    def recv(self, limit: int) -> bytes:
        """Up to `limit` bytes; `b""` at the end. Raises OSErrors as sockets do."""
        self._check_open()
        if self._broken:
            raise ConnectionResetError(errno.ECONNRESET, "connection reset by peer")
        if not self._inbox and not self._peer._finished:
            raise BlockingIOError(errno.EAGAIN, "nothing to read")
        data = bytes(self._inbox[:limit])
        del self._inbox[:limit]
        if data:
            self._peer._made_room()
        return data

    def send(self, data: bytes | memoryview) -> int:
        """Send as much as the peer has room for. Raises OSErrors as sockets do."""
        self._check_open()
        if self._broken or self._finished:
            raise BrokenPipeError(errno.EPIPE, "broken pipe")
        if self._peer.closed:
            self._break()
            return len(data)
        room = self._capacity - len(self._peer._inbox)
        if data and room <= 0:
            raise BlockingIOError(errno.EAGAIN, "the peer's buffer is full")
        taken = bytes(data[:room])
        if taken:
            self._peer._inbox += taken
            self._peer._tell(READABLE)
        return len(taken)

    def shutdown(self, how: int) -> None:
        """End the sending side (`SHUT_WR`, `SHUT_RDWR`)."""
        self._check_open()
        if self._broken:
            raise OSError(errno.ENOTCONN, "not connected")
        if how != socket.SHUT_RD:
            self._finish()

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """Understands SO_LINGER of no time: a reset on close. All else is accepted and ignored."""
        if (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER) and isinstance(value, bytes):
            self._reset_on_close = struct.unpack("ii", value) == (1, 0)

    def close(self) -> None:
        """Close: the peer reads to the end, or is reset if something sent here was not read."""
        if self.closed:
            return
        self._fileno = -1
        if self._reset_on_close or self._inbox:
            self._finished = True
            self._peer._break()
        elif not self._broken:
            self._finish()

    def want_write(self) -> None:
        """Tell `WRITABLE` once, as soon as there is room."""
        self._wants_write = True
        if self._broken or self._peer.closed or len(self._peer._inbox) < self._capacity:
            self._made_room()

    def _finish(self) -> None:
        if not self._finished:
            self._finished = True
            self._peer._tell(READABLE | HUNG_UP)

    def _break(self) -> None:
        if not self.closed and not self._broken:
            self._broken = True
            self._inbox.clear()
            self._tell(READABLE | HUNG_UP)
            self._made_room()

    def _made_room(self) -> None:
        if self._wants_write:
            self._wants_write = False
            self._tell(WRITABLE)

    def _tell(self, events: int) -> None:
        if self.on_event is not None:
            self.on_event(events)

    def _check_open(self) -> None:
        if self.closed:
            raise OSError(errno.EBADF, "bad file descriptor")


class MemoryPoller:
    """The `Poller` of memory sockets. Edge-triggered, like epoll.

    Callbacks are called by `run` alone, never from inside a send or a close. One that raises stops
    `run`, and with it the test: the real pollers log it.
    """

    def __init__(self) -> None:
        self._callbacks: dict[MemorySocket, Callback] = {}
        self._due: dict[MemorySocket, int] = {}
        self._stirred = trio.Event()

    @property
    def watched(self) -> int:
        """How many sockets are registered."""
        return len(self._callbacks)

    def register(self, sock: socket.socket, callback: Callback) -> None:
        ours = _ours(sock)
        self._callbacks[ours] = callback
        ours.on_event = lambda events: self._note(ours, events)
        if ours.readiness():
            self._note(ours, ours.readiness())

    def want_read(self, sock: socket.socket) -> None:
        """Nothing to do: edges keep coming."""

    def want_write(self, sock: socket.socket) -> None:
        _ours(sock).want_write()

    def forget(self, sock: socket.socket) -> None:
        ours = _ours(sock)
        ours.on_event = None
        self._callbacks.pop(ours, None)
        self._due.pop(ours, None)

    def _note(self, sock: MemorySocket, events: int) -> None:
        self._due[sock] = self._due.get(sock, 0) | events
        self._stirred.set()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        while True:
            await self._stirred.wait()
            self._stirred = trio.Event()
            due, self._due = self._due, {}
            for sock, events in due.items():
                callback = self._callbacks.get(sock)
                if callback is not None:
                    callback(events)


class MemoryDialer(Dialer):
    """Connects to handlers that were registered under a URL; nobody else listens.

    Handlers run in `nursery`. One that meets `ConnectionLost` just ends, as a server's would; any
    other exception of one is the test's failure.
    """

    def __init__(
        self, poller: Poller, nursery: trio.Nursery, *, capacity_bytes: int = CAPACITY_BYTES
    ) -> None:
        self.poller = poller
        self.dialed = 0
        """How many connections were asked for, refused ones included."""
        self._nursery = nursery
        self._capacity_bytes = capacity_bytes
        self._served: dict[tuple[str, int], tuple[Handler, float]] = {}
        self._sockets: list[MemorySocket] = []

    def serve(self, url: str, handler: Handler, *, connect_s: float = 0.0) -> None:
        """Listen at `url` from now on; a connection is there after `connect_s` (or never: inf)."""
        origin = Origin.parse(url)
        self._served[origin.host, origin.port] = handler, connect_s

    def refuse(self, url: str) -> None:
        """Listen there no longer. Connections that exist go on."""
        origin = Origin.parse(url)
        self._served.pop((origin.host, origin.port), None)

    @property
    def open(self) -> int:
        """How many of the connections made are not closed on the dialing side."""
        self._sockets = [sock for sock in self._sockets if not sock.closed]
        return len(self._sockets)

    async def dial(self, origin: Origin) -> Transport:
        self.dialed += 1
        place = origin.host, origin.port
        await trio.sleep(self._served[place][1] if place in self._served else 0)
        if place not in self._served:
            raise ConnectFailed(str(origin), "connection refused: nothing listens there")
        near, far = self.pair()
        self._nursery.start_soon(_serve, self._served[place][0], far)
        return near

    def pair(self) -> tuple[Transport, Transport]:
        """Two connected transports; the first counts in `open`."""
        near, far = MemorySocket.pair(self._capacity_bytes)
        self._sockets.append(near)
        return Transport(_as_socket(near), self.poller), Transport(_as_socket(far), self.poller)


async def _serve(handler: Handler, stream: Transport) -> None:
    try:
        with suppress(ConnectionLost):
            await handler(stream)
    finally:
        stream.close()


@asynccontextmanager
async def memory_network(*, capacity_bytes: int = CAPACITY_BYTES) -> AsyncIterator[MemoryDialer]:
    """A network with its poller running; at the end all handlers are cancelled."""
    async with trio.open_nursery() as nursery:
        poller = MemoryPoller()
        await nursery.start(poller.run)
        yield MemoryDialer(poller, nursery, capacity_bytes=capacity_bytes)
        nursery.cancel_scope.cancel("the network is switched off")


def _as_socket(sock: MemorySocket) -> socket.socket:
    return cast(socket.socket, sock)


def _ours(sock: socket.socket) -> MemorySocket:
    return cast(MemorySocket, sock)
