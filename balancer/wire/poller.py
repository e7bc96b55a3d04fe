"""Readiness of many sockets for the price of one wait.

Waking a Trio task for every chunk of every stream costs more than the chunk itself: each
`wait_readable` re-arms epoll, parks the task and goes through the scheduler. So the sockets of the
hot path are registered once, edge-triggered, in an epoll of our own; Trio waits for that epoll's
descriptor, one task takes what is ready, and tells each socket by a plain call.

Rules of a callback: it must not block, must not raise, and may close any socket.
"""

from __future__ import annotations

import logging
import select
import socket
from collections.abc import Callable
from typing import Final, Protocol

import trio

__all__ = [
    "BROKEN",
    "HUNG_UP",
    "READABLE",
    "WRITABLE",
    "EpollPoller",
    "Poller",
    "TaskPoller",
    "open_poller",
]

READABLE: Final = 1
WRITABLE: Final = 2
HUNG_UP: Final = 4
"""The peer closed its sending side, or the connection broke; unread bytes may still be there."""

BROKEN: Final = 8
"""With `HUNG_UP`: the connection was reset, and whoever noticed has used up the socket's error."""

Callback = Callable[[int], None]

# A callback takes 5 µs for a chunk when caches are warm, several times that when they are not: a
# batch stays below a millisecond, then other tasks get a turn.
_BATCH: Final = 32

log = logging.getLogger("triolet.wire")


class Poller(Protocol):
    """Tells sockets when they may be read, written, or are hung up.

    Readiness is edge-triggered: after an event, read until the socket would block (then call
    `want_read`), or no further event may come.
    """

    def register(self, sock: socket.socket, callback: Callback) -> None:
        """Call `callback(READABLE | HUNG_UP …)` whenever that changes, until `forget`."""

    def want_read(self, sock: socket.socket) -> None:
        """The socket was read until it would block: tell when there is more."""

    def want_write(self, sock: socket.socket) -> None:
        """The socket did not take everything: tell (`WRITABLE`) when it takes more."""

    def forget(self, sock: socket.socket) -> None:
        """No more callbacks. To be called before the socket is closed."""

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""


class EpollPoller:
    """The poller of Linux: one nested epoll, one Trio task."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}

    def register(self, sock: socket.socket, callback: Callback) -> None:
        fd = sock.fileno()
        self._callbacks[fd] = callback
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)

    def want_read(self, sock: socket.socket) -> None:
        """Nothing to do: edges keep coming."""

    def want_write(self, sock: socket.socket) -> None:
        # Modifying re-evaluates readiness, so an edge that already passed is not lost.
        self._epoll.modify(
            sock.fileno(),
            select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET,
        )

    def forget(self, sock: socket.socket) -> None:
        # Closing the socket takes it out of the epoll; events in hand find no callback.
        self._callbacks.pop(sock.fileno(), None)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        fd, poll, callbacks = self._epoll.fileno(), self._epoll.poll, self._callbacks
        try:
            while True:
                await trio.lowlevel.wait_readable(fd)
                for ready, bits in poll(0, _BATCH):
                    callback = callbacks.get(ready)
                    if callback is not None:
                        _tell(callback, _EVENTS[bits & 0x201F])
        finally:
            self._epoll.close()


def _translate(bits: int) -> int:
    hung_up = bits & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR)
    return (
        (READABLE if hung_up or bits & select.EPOLLIN else 0)
        | (WRITABLE if bits & (select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP) else 0)
        | (HUNG_UP if hung_up else 0)
    )


# A table instead of arithmetic per event. EPOLLRDHUP is 0x2000, the others are below 0x20.
_EVENTS: Final = (
    {high | low: _translate(high | low) for high in (0, 0x2000) for low in range(0x20)}
    if hasattr(select, "epoll")
    else {}
)


def _tell(callback: Callback, events: int) -> None:
    try:
        callback(events)
    except Exception:
        log.exception("a readiness callback failed: this is a bug, please report it")


class TaskPoller:
    """The poller where there is no epoll: one Trio task for each socket.

    Slower, and a peer that hangs up behind bytes nobody has read yet is only seen once they are
    read.
    """

    def __init__(self) -> None:
        self._callbacks: dict[socket.socket, Callback] = {}
        self._armed: dict[socket.socket, trio.Event] = {}
        self._writing: set[socket.socket] = set()
        self._nursery: trio.Nursery | None = None
        self._early: list[socket.socket] = []

    def register(self, sock: socket.socket, callback: Callback) -> None:
        self._callbacks[sock] = callback
        self._armed[sock] = armed = trio.Event()
        armed.set()
        if self._nursery is None:
            self._early.append(sock)
        else:
            self._nursery.start_soon(self._watch, sock)

    def want_read(self, sock: socket.socket) -> None:
        if sock in self._armed:
            self._armed[sock].set()

    def want_write(self, sock: socket.socket) -> None:
        assert self._nursery is not None, "the poller does not run"
        if sock not in self._writing:  # a waiter that was cancelled left its watcher behind
            self._writing.add(sock)
            self._nursery.start_soon(self._watch_write, sock)

    def forget(self, sock: socket.socket) -> None:
        if self._callbacks.pop(sock, None) is not None:
            self._armed.pop(sock).set()
            trio.lowlevel.notify_closing(sock)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as self._nursery:
            while self._early:
                self._nursery.start_soon(self._watch, self._early.pop())
            task_status.started()
            await trio.sleep_forever()

    async def _watch(self, sock: socket.socket) -> None:
        while sock in self._callbacks:
            await self._armed[sock].wait()
            if sock not in self._callbacks:  # forgotten, and by now closed
                return
            events = READABLE
            try:
                await trio.lowlevel.wait_readable(sock)
                # Past a TLS layer, which knows no peeking.
                if not socket.socket.recv(sock, 1, socket.MSG_PEEK):
                    events |= WRITABLE | HUNG_UP
            except BlockingIOError:
                continue
            except trio.ClosedResourceError:
                return
            except OSError:
                events |= WRITABLE | HUNG_UP | BROKEN
            if sock not in self._callbacks:
                return
            self._armed[sock] = trio.Event()
            _tell(self._callbacks[sock], events)
            if events & HUNG_UP:
                return

    async def _watch_write(self, sock: socket.socket) -> None:
        try:
            if sock in self._callbacks:
                await trio.lowlevel.wait_writable(sock)
        except trio.ClosedResourceError:
            return
        finally:
            self._writing.discard(sock)
        callback = self._callbacks.get(sock)
        if callback is not None:
            _tell(callback, WRITABLE)


def open_poller() -> Poller:
    """The best poller of this platform; start its `run` in a nursery before using it."""
    return EpollPoller() if hasattr(select, "epoll") else TaskPoller()
