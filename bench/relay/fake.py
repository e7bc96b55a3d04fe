"""The fake replica: answers chat requests with bytes made beforehand, as cheaply as Python can.

    python -m bench.relay.fake --port 0     prints the port it listens on, runs until SIGTERM

It stands behind every proxy that is measured, so it must never be the bottleneck. A request's body
says how it wants its answer: `stream`, `max_tokens`, and in a message's text its pace:

- `pace=20ms`: in step. As in an engine that batches continuously, one step yields one token of
  every running stream and all are sent in one burst, each with its own send(). A new stream waits
  for the next step.
- `pace=0ms`: in step, one step right after the other, so that the chunks of different streams
  interleave.
- `pace=20ms staggered`: each stream has a clock of its own that starts when it does. No engine
  sends like this; it is the worst case for an event loop, one wake for each chunk.
"""

from __future__ import annotations

import gc
import resource
import signal
import socket
import sys
import time

from bench.relay.answers import (
    BadRequestBytes,
    Request,
    json_response,
    read_order,
    small_answer,
    split_request,
    stream_sends,
    whole_answer,
)
from bench.relay.poll_loop import READ, WRITE, PollLoop
from bench.relay.steps import StepClock

_RECEIVE_BYTES = 65_536
_BACKLOG = 4096
_ACCEPTED_AT_ONCE = 256


class FakeReplica:
    """Listens on loopback and answers on the loop it is given."""

    def __init__(self, loop: PollLoop, port: int = 0) -> None:
        self.loop = loop
        self.connections: set[_Connection] = set()
        self._clocks: dict[int, StepClock] = {}
        self._listener = socket.create_server(("127.0.0.1", port), backlog=_BACKLOG)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        loop.watch(self._listener.fileno(), self._accept)

    def _accept(self, events: int) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                accepted, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections.add(_Connection(self, accepted))

    def step_clock(self, pace_ms: int) -> StepClock:
        """The one clock of all streams that run in step at this pace."""
        clock = self._clocks.get(pace_ms)
        if clock is None:
            clock = self._clocks[pace_ms] = StepClock(self.loop, pace_ms / 1000)
        return clock

    def close(self) -> None:
        """Stop listening and close every connection."""
        self.loop.forget(self._listener.fileno())
        self._listener.close()
        for connection in tuple(self.connections):
            connection.close()


class _Connection:
    """One kept connection: one request at a time, a whole answer at once, a stream by a clock."""

    __slots__ = (
        "_due_s",
        "_next",
        "_pace_s",
        "_received",
        "_replica",
        "_sends",
        "_sock",
        "_unsent",
    )

    def __init__(self, replica: FakeReplica, sock: socket.socket) -> None:
        self._replica = replica
        self._sock: socket.socket | None = sock
        self._received = b""
        self._unsent = b""
        self._sends: tuple[bytes, ...] = ()
        self._next = 0
        self._pace_s = 0.0
        self._due_s = 0.0
        replica.loop.watch(sock.fileno(), self._on_ready)

    def close(self) -> None:
        """Close the socket; a timer that is still set finds it closed."""
        if self._sock is not None:
            self._replica.loop.forget(self._sock.fileno())
            self._sock.close()
            self._sock = None
            self._replica.connections.discard(self)

    def _on_ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if events & ~WRITE:
            self._receive()

    def _receive(self) -> None:
        if self._sock is None:
            return
        try:
            data = self._sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._received = self._received + data if self._received else data
        self._serve()

    def _serve(self) -> None:
        """Answer what was received in full, unless a stream is under way."""
        while self._received and not self._sends:
            try:
                request = split_request(self._received)
            except BadRequestBytes as error:
                self._send(json_response({"error": str(error)}, status=b"400 Bad Request"))
                self.close()
                return
            if request is None:
                return
            self._received = self._received[request.size :]
            self._answer(request)

    def _answer(self, request: Request) -> None:
        if request.method != b"POST":
            self._send(small_answer(request.path))
            return
        order = read_order(request.body)
        if not order.stream:
            self._send(whole_answer(order.tokens))
            return
        self._sends, self._next = stream_sends(order.tokens), 0
        if order.staggered:
            self._pace_s, self._due_s = order.pace_ms / 1000, time.perf_counter()
            self._send_due()
        else:
            self._replica.step_clock(order.pace_ms).join(self._advance)

    def _advance(self) -> bool:
        """Send the next token; the end follows the last. False if the stream is over."""
        if self._sock is None:
            return False
        self._send(self._sends[self._next])
        self._next += 1
        if self._next < len(self._sends) - 1:
            return True
        self._send(self._sends[self._next])
        self._sends = ()
        self._serve()
        return False

    def _send_due(self) -> None:
        """Send the token that is due by the stream's own clock and set it for the next."""
        if self._advance():
            self._due_s += self._pace_s
            self._replica.loop.call_at(self._due_s, self._send_due)

    def _send(self, data: bytes) -> None:
        if self._sock is None:
            return
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        if sent < len(data):
            self._unsent = data[sent:]
            self._replica.loop.change(self._sock.fileno(), READ | WRITE)

    def _flush(self) -> None:
        waiting, self._unsent = self._unsent, b""
        self._send(waiting)
        if not self._unsent and self._sock is not None:
            self._replica.loop.change(self._sock.fileno(), READ)


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open descriptors to the hard one; returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def main(arguments: list[str]) -> None:
    """Serve until SIGTERM or SIGINT."""
    port = int(arguments[arguments.index("--port") + 1]) if "--port" in arguments else 0
    raise_descriptor_limit()
    loop = PollLoop()
    replica = FakeReplica(loop, port)
    stopped: list[int] = []
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda number, _frame: stopped.append(number))
    # Nothing here makes cycles that matter: collections would only add noise.
    gc.freeze()
    gc.disable()
    print(replica.port, flush=True)
    while not stopped:
        loop.turn(1.0)


if __name__ == "__main__":
    main(sys.argv[1:])
