"""The load client: keeps N requests in flight on kept connections and counts what comes back.

Each lane is one connection with one request at a time. It counts events by their `data: ` prefix
and finds the end of an answer by its content-length or its last chunk; it decodes nothing, so that
it stays far cheaper than the proxy it loads.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.relay.poll_loop import READ, WRITE, PollLoop

_RECEIVE_BYTES = 262_144
_RECONNECT_PAUSE_S = 0.01
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)
_PREFIX = b"data: "
_LAST_CHUNK = b"\n0\r\n\r\n"
_TAIL_BYTES = 5  # one byte less than either, so that neither is seen twice


@dataclass
class Tally:
    """What was counted since the tally was put in place."""

    started: int = 0
    first_events: int = 0
    finished: int = 0
    events: int = 0
    reads: int = 0
    """Reads that held events."""
    errors: Counter[str] = field(default_factory=Counter)
    ttft_s: list[float] = field(default_factory=list)
    """From the send of a request to the first event; of its head where nothing streams."""
    total_s: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Target:
    """Where the load goes and what it sends."""

    port: int
    request: bytes
    events: int
    """How many events a whole answer has; 0 for an answer that is not streamed."""


class LoadClient:
    """The lanes and their tally. `on_idle` is called with a lane whenever it has nothing to do."""

    def __init__(self, loop: PollLoop, target: Target, lanes: int) -> None:
        self.loop = loop
        self.target = target
        self.tally = Tally()
        self.on_idle: Callable[[Lane], None] = _rest
        self.busy = 0
        """How many lanes await the rest of an answer."""
        self.lanes = [Lane(self) for _ in range(lanes)]

    def abandon(self) -> None:
        """Count every answer that is still awaited as unfinished, and close all connections."""
        self.on_idle = _rest
        for lane in self.lanes:
            if lane.busy:
                lane.busy = False
                self.tally.errors["unfinished"] += 1
            lane.close()
        self.busy = 0


class Lane:
    """One connection, one exchange at a time."""

    __slots__ = (
        "_body",
        "_client",
        "_events",
        "_head",
        "_left",
        "_reusable",
        "_sent_s",
        "_sock",
        "_tail",
        "_unsent",
        "busy",
    )

    def __init__(self, client: LoadClient) -> None:
        self._client = client
        self._sock: socket.socket | None = None
        self.busy = False
        self._unsent = b""
        self._head = b""
        self._tail = b""
        self._body = False
        self._left: int | None = None
        self._events = 0
        self._reusable = True
        self._sent_s = 0.0

    def start(self) -> None:
        """Send the request, on the kept connection if there is one."""
        client = self._client
        client.tally.started += 1
        client.busy += 1
        self.busy, self._body, self._head, self._tail = True, False, b"", b""
        self._events, self._left, self._reusable = 0, None, True
        self._unsent = client.target.request
        self._sent_s = time.perf_counter()
        if self._sock is None:
            self._connect()
        else:
            self._flush(self._sock)

    def close(self) -> None:
        """Close the connection; the next start opens another."""
        if self._sock is not None:
            self._client.loop.forget(self._sock.fileno())
            self._sock.close()
            self._sock = None

    def _connect(self) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._client.loop.watch(sock.fileno(), self._on_ready, READ | WRITE)
        code = sock.connect_ex(("127.0.0.1", self._client.target.port))
        if code not in (0, errno.EINPROGRESS):
            self._fail(f"connect: {os.strerror(code)}")

    def _on_ready(self, events: int) -> None:
        sock = self._sock
        if sock is None:
            return
        if events & WRITE and self._unsent:
            self._flush(sock)
            if not self._unsent and self._sock is sock:
                self._client.loop.change(sock.fileno(), READ)
        if events & ~WRITE and self._sock is sock:
            self._receive(sock)

    def _flush(self, sock: socket.socket) -> None:
        try:
            sent = sock.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._fail(f"send: {error.strerror}")
            return
        self._unsent = self._unsent[sent:]
        if self._unsent:
            self._client.loop.change(sock.fileno(), READ | WRITE)

    def _receive(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(error.strerror)
            return
        if not data:
            self._lost("closed early")
        elif not self.busy:
            self.close()
            self._client.tally.errors["bytes after the end"] += 1
        elif self._body:
            self._read_body(data)
        else:
            self._read_head(data)

    def _lost(self, reason: str | None) -> None:
        """The connection ended; that is a fault only while an answer is awaited."""
        if self.busy:
            self._fail(f"receive: {reason}")
        else:
            self.close()

    def _read_head(self, data: bytes) -> None:
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            return
        head, body = self._head[:end], self._head[end + 4 :]
        status = head[9:12]
        if status != b"200":
            self._fail(f"status {status.decode('latin-1')}")
            return
        found = _CONTENT_LENGTH.search(head)
        self._left = int(found[1]) if found else None
        self._reusable = _CLOSES.search(head) is None
        self._body = True
        if not self._client.target.events:
            self._client.tally.ttft_s.append(time.perf_counter() - self._sent_s)
        if body or self._left == 0:
            self._read_body(body)

    def _read_body(self, data: bytes) -> None:
        seen = self._tail + data
        self._tail = seen[-_TAIL_BYTES:]
        if self._client.target.events:
            self._count_events(seen)
        if self._left is None:
            ended = seen.endswith(_LAST_CHUNK)
        else:
            self._left -= len(data)
            ended = self._left <= 0
        if ended:
            self._finish(whole=not self._left)

    def _count_events(self, seen: bytes) -> None:
        new = seen.count(_PREFIX)
        if not new:
            return
        tally = self._client.tally
        if not self._events:
            tally.first_events += 1
            tally.ttft_s.append(time.perf_counter() - self._sent_s)
        self._events += new
        tally.events += new
        tally.reads += 1

    def _finish(self, *, whole: bool) -> None:
        client = self._client
        if not whole or self._events != client.target.events:
            self._fail(f"{self._events} of {client.target.events} events" if whole else "too long")
            return
        client.tally.finished += 1
        client.tally.total_s.append(time.perf_counter() - self._sent_s)
        self._settle()
        if not self._reusable:
            self.close()
        client.on_idle(self)

    def _settle(self) -> None:
        self.busy = False
        self._client.busy -= 1

    def _fail(self, reason: str) -> None:
        client = self._client
        client.tally.errors[reason] += 1
        self._settle()
        self.close()
        # Not at once: a target that is down would keep this loop spinning.
        again_s = time.perf_counter() + _RECONNECT_PAUSE_S
        client.loop.call_at(again_s, self._rest_over)

    def _rest_over(self) -> None:
        if not self.busy:
            self._client.on_idle(self)


def _rest(lane: Lane) -> None:
    """Leave an idle lane alone."""
