"""A non-blocking socket whose waiting is done by a `Poller`.

Reading and sending are tried at once and wait only if the socket would block, so a busy connection
costs no trip through the scheduler. One task may read and one may write at a time. Besides, a
plain function can be called when bytes are there (`on_readable`: the relay pump) and when the peer
hangs up (`on_hang_up`: cancellation of what nobody waits for any more).
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Callable
from typing import Final

import trio

from balancer.errors import ConnectionLost
from balancer.wire.poller import BROKEN, HUNG_UP, READABLE, WRITABLE, Poller

__all__ = ["Transport"]

_RECEIVE_BYTES: Final = 65_536
_WOULD_BLOCK: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class Transport:
    """One connected, non-blocking TCP (or TLS) socket. Owns it: `close` closes it.

    Raises `ConnectionLost` when the peer is gone and `trio.ClosedResourceError` after `close`.
    """

    __slots__ = (
        "_broken",
        "_closed",
        "_poller",
        "_read_task",
        "_readable",
        "_short_read_is_empty",
        "_sock",
        "_write_task",
        "hung_up",
        "on_hang_up",
        "on_readable",
    )

    def __init__(self, sock: socket.socket, poller: Poller) -> None:
        self._sock = sock
        self._poller = poller
        self._readable = True
        # A TLS read returns one record: less than asked for does not mean that nothing is left.
        self._short_read_is_empty = not isinstance(sock, ssl.SSLSocket)
        self._read_task: trio.lowlevel.Task | None = None
        self._write_task: trio.lowlevel.Task | None = None
        self._closed = False
        self._broken = False
        self.hung_up = False
        self.on_readable: Callable[[], None] | None = None
        self.on_hang_up: Callable[[], None] | None = None
        poller.register(sock, self._ready)

    def _ready(self, events: int) -> None:
        if events & HUNG_UP and not self.hung_up:
            self.hung_up = True
            self._broken = bool(events & BROKEN)
            if self.on_hang_up is not None:
                self.on_hang_up()
        if events & READABLE:
            self._readable = True
            if self.on_readable is not None:
                self.on_readable()
            elif self._read_task is not None:
                task, self._read_task = self._read_task, None
                trio.lowlevel.reschedule(task)
        if events & WRITABLE and self._write_task is not None:
            task, self._write_task = self._write_task, None
            trio.lowlevel.reschedule(task)

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def maybe_readable(self) -> bool:
        """Whether bytes may be waiting that nobody has read."""
        return self._readable

    def receive_nowait(self) -> bytes | None:
        """What is there: bytes; `b""` if the peer has finished sending; None if nothing yet."""
        if not self._readable:
            return None
        try:
            data = self._sock.recv(_RECEIVE_BYTES)
        except _WOULD_BLOCK:
            self._read_everything()
            return None
        except OSError as exc:
            self._check_open()
            raise ConnectionLost(str(exc)) from exc
        if not data and self._broken:
            raise ConnectionLost("connection reset")
        if len(data) < _RECEIVE_BYTES and self._short_read_is_empty and not self.hung_up:
            self._read_everything()
        return data

    def _read_everything(self) -> None:
        self._readable = False
        self._poller.want_read(self._sock)

    async def receive(self) -> bytes:
        """The next bytes, at most 64 KiB; `b""` if the peer has finished sending."""
        while True:
            data = self.receive_nowait()
            if data is not None:
                return data
            await self._park_reader()

    async def _park_reader(self) -> None:
        if self._read_task is not None:
            raise trio.BusyResourceError("another task is reading from this connection")

        def abort(_: object) -> trio.lowlevel.Abort:
            self._read_task = None
            return trio.lowlevel.Abort.SUCCEEDED

        self._read_task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Send what the socket takes now: the number of bytes, 0 if it is full."""
        try:
            return self._sock.send(data)
        except _WOULD_BLOCK:
            return 0
        except OSError as exc:
            self._check_open()
            raise ConnectionLost(str(exc)) from exc

    async def send_all(self, data: bytes | memoryview) -> None:
        """Send all of it, waiting while the peer does not read. Unbounded: set a deadline."""
        sent = self.send_nowait(data)
        while sent < len(data):
            data = memoryview(data)[sent:]
            await self.wait_writable()
            sent = self.send_nowait(data)

    async def wait_writable(self) -> None:
        """Wait until a socket that did not take everything takes more."""
        if self._write_task is not None:
            raise trio.BusyResourceError("another task is sending on this connection")

        def abort(_: object) -> trio.lowlevel.Abort:
            self._write_task = None
            return trio.lowlevel.Abort.SUCCEEDED

        self._write_task = trio.lowlevel.current_task()
        self._poller.want_write(self._sock)
        await trio.lowlevel.wait_task_rescheduled(abort)

    async def handshake(self) -> None:
        """Finish the TLS handshake of an `ssl.SSLSocket`. Raises `ssl.SSLError`, `OSError`."""
        assert isinstance(self._sock, ssl.SSLSocket)
        while True:
            try:
                self._sock.do_handshake()
            except ssl.SSLWantReadError:
                self._read_everything()
                await self._park_reader()
            except ssl.SSLWantWriteError:
                await self.wait_writable()
            else:
                return

    def finish_sending(self) -> None:
        """Tell the peer that nothing more comes; it may still send."""
        if not self._closed:
            try:
                self._sock.shutdown(socket.SHUT_WR)
            except OSError:
                # The peer is gone already; the next read says so.
                self.hung_up = True

    def close(self, *, reset: bool = False) -> None:
        """Close now. `reset` drops what the kernel has not sent yet, and tells the peer so."""
        if self._closed:
            return
        self._closed = True
        self._poller.forget(self._sock)
        if reset:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._sock.close()
        self.on_readable = self.on_hang_up = None
        self._readable = True  # who waits to read tries again, and is told
        for task in (self._read_task, self._write_task):
            if task is not None:
                trio.lowlevel.reschedule(task)
        self._read_task = self._write_task = None

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this connection was closed by us")
