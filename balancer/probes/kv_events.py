"""Subscribes to the KV cache events of vLLM and SGLang over ZeroMQ. Needs the extra `kvevents`.

An engine publishes batches under numbers that count from 0, and keeps the last ten thousand, to be
asked for again at a second port (`--kv-events-config`: `endpoint`, `replay_endpoint`). What they
are good for is told in `kv_cache`. One engine, one pair of ports: with data parallelism inside a
replica each rank has its own, and only the one that is named is heard.

Sockets are used on Trio's own thread, never blocking: ZeroMQ has a thread of its own that does the
network, and its queue is bounded, so a thread of ours would only add a second one. The descriptor
of a ZeroMQ socket is edge-triggered: it says that something happened, not that something is there.
So a socket is always emptied before it is waited for.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

import msgspec
import trio

from balancer.probes.kv_cache import Batch, KvCache, decode

if TYPE_CHECKING:
    import zmq

__all__ = ["KvEvents", "KvSource", "Numbering"]

log = logging.getLogger("triolet.kv_events")

_REPLAY_S: Final = 2.0
"""Longest wait for the next batch of a replay. The engine looks for requests every 0.1 s."""
_REPLAY_EVERY_S: Final = 1.0
"""A peer that loses batches all the time is not asked for them all the time."""
_SLICE: Final = 16
_SLICE_BYTES: Final = 131_072
"""Batches, or bytes of them, between two checkpoints; one of 8192 tokens has 30 KB, and takes
0.3 ms."""
_MOST_WAITING: Final = 512
"""Batches in ZeroMQ's queue; more are lost there, and found missing by their numbers."""
_MOST_BYTES: Final = 2 * 2**20
"""Of one batch: half a million tokens in one step."""
_END: Final = (-1).to_bytes(8, "big", signed=True)


class KvSource(msgspec.Struct, frozen=True):
    """Where an engine publishes."""

    endpoint: str
    """Such as `tcp://10.0.0.7:5557`."""
    replay: str | None = None
    """Where lost batches are asked for, such as `tcp://10.0.0.7:5558`."""
    topic: str = ""
    """Only batches under topics that begin so."""


class Numbering:
    """Whether a batch is the next one, by its number and the engine's clock."""

    def __init__(self) -> None:
        self.next: int | None = None
        """The number that is due; None before the first."""
        self._newest = -math.inf

    def place(self, number: int, at: float) -> Literal["next", "known", "gap", "restart"]:
        """Where it belongs. `known`: it was in a replay. `gap`: batches before it are missing.

        An engine that was started again counts from 0. A low number that is younger than all seen
        is from there. If the new one counted beyond the old before it was heard, it looks like a
        gap: other probes must find that restart.
        """
        due = 0 if self.next is None else self.next
        if number < due:
            return "restart" if at > self._newest else "known"
        return "next" if number == due else "gap"

    def passed(self, number: int, at: float) -> None:
        """That batch is dealt with."""
        self.next = number + 1
        self._newest = max(self._newest, at)

    def restart(self) -> None:
        """Another engine, counting from 0."""
        self.next = None


class _Slice:
    """What is dealt with before others get their turn."""

    def __init__(self) -> None:
        self._batches = self._bytes = 0

    def add(self, frames: list[bytes]) -> None:
        self._batches += 1
        self._bytes += sum(map(len, frames))

    @property
    def is_over(self) -> bool:
        return self._batches >= _SLICE or self._bytes >= _SLICE_BYTES


class _Feed:
    """What is heard of one engine, in order."""

    def __init__(self, replica: str) -> None:
        self.replica = replica
        self.numbering = Numbering()
        self.cache = KvCache()
        self.capacity_told = 0
        self.replay_at = -math.inf
        self.complained = False

    def read(self, frames: list[bytes]) -> tuple[int, Batch] | None:
        """Its number and what is in it. None at the end of a replay, and for what is no batch:
        the next one will show that it is missing."""
        if len(frames) != 3 or len(frames[1]) != 8:
            self._complain(f"a message of {len(frames)} parts")
            return None
        if frames[1] == _END:
            return None
        try:
            return int.from_bytes(frames[1], "big"), decode(frames[2])
        except msgspec.DecodeError as exc:
            self._complain(str(exc))
            return None

    def _complain(self, what: str) -> None:
        if not self.complained:
            self.complained = True
            log.warning("replica %s sent KV events that cannot be read: %s", self.replica, what)


class KvEvents:
    """The KV cache events of all replicas that publish them. `watch` each in a nursery.

    Called with the replica's name: `on_empty` when its prefix cache was reset or it was started
    again; `on_missed` when batches are lost for good, among them perhaps such a reset, and not
    again until all is known again; `on_capacity` with the tokens that its cache is seen to hold,
    when that changes by 5 %.
    """

    def __init__(
        self,
        on_empty: Callable[[str], None],
        on_missed: Callable[[str], None],
        on_capacity: Callable[[str, int], None],
    ) -> None:
        self.caches: dict[str, KvCache] = {}
        """By replica, of those that are watched."""
        self._on_empty = on_empty
        self._on_missed = on_missed
        self._on_capacity = on_capacity

    async def watch(self, replica: str, source: KvSource) -> None:
        """Follow one engine until cancelled, however often it comes and goes.

        Returns at once, with the reason in the log, if pyzmq is not installed or an endpoint is
        not one.
        """
        try:
            import zmq
        except ImportError:
            log.warning("no KV events from %s: pip install 'triolet[kvevents]'", replica)
            return
        feed = _Feed(replica)
        try:
            with _socket(zmq.SUB, source.endpoint) as socket:
                socket.subscribe(source.topic)
                self.caches[replica] = feed.cache
                await self._catch_up(feed, source)
                await self._follow(feed, source, socket)
        except zmq.ZMQError as exc:
            log.warning("no KV events from %s at %s: %s", replica, source, exc)
        finally:
            if self.caches.get(replica) is feed.cache:  # it may be watched anew by now
                del self.caches[replica]

    async def _follow(self, feed: _Feed, source: KvSource, socket: zmq.Socket[bytes]) -> None:
        while True:
            slice_ = _Slice()
            while not slice_.is_over:
                frames = _receive(socket)
                if frames is None:
                    await trio.lowlevel.wait_readable(socket.FD)
                    break
                slice_.add(frames)
                await self._heard(feed, source, frames)
            else:
                await trio.lowlevel.checkpoint()

    async def _heard(self, feed: _Feed, source: KvSource, frames: list[bytes]) -> None:
        message = feed.read(frames)
        if message is None:
            return
        number, batch = message
        place = feed.numbering.place(number, batch.at)
        if place == "restart":
            self._restarted(feed)
            place = feed.numbering.place(number, batch.at)
        if place == "gap":
            await self._catch_up(feed, source)
            place = feed.numbering.place(number, batch.at)
        if place == "gap":
            self._missed(feed)
        if place != "known":
            self._take(feed, number, batch)

    def _take(self, feed: _Feed, number: int, batch: Batch) -> None:
        if number == 0:
            feed.cache.emptied()
        feed.numbering.passed(number, batch.at)
        if feed.cache.apply(batch.events):
            log.info("replica %s has reset its prefix cache", feed.replica)
            self._on_empty(feed.replica)
        capacity = feed.cache.capacity_tokens
        if capacity is not None and abs(capacity - feed.capacity_told) > 0.05 * capacity:
            feed.capacity_told = capacity
            self._on_capacity(feed.replica, capacity)

    def _restarted(self, feed: _Feed) -> None:
        log.info("replica %s was started again: its KV events count from 0", feed.replica)
        feed.numbering.restart()
        feed.cache.missed()
        feed.replay_at = -math.inf
        self._on_empty(feed.replica)

    def _missed(self, feed: _Feed) -> None:
        if feed.cache.known:  # once: while nothing is known, there is nothing more to lose
            feed.cache.missed()
            log.warning("KV events of replica %s were lost", feed.replica)
            self._on_missed(feed.replica)

    async def _catch_up(self, feed: _Feed, source: KvSource) -> None:
        """Ask for what is missing, and take what comes of it in one row."""
        now = trio.current_time()
        if source.replay is None or now < feed.replay_at + _REPLAY_EVERY_S:
            return
        import zmq

        feed.replay_at = now
        # The engine answers with the empty frame that a REQ socket would have sent and dropped.
        with _socket(zmq.DEALER, source.replay) as socket:
            due = feed.numbering.next or 0
            socket.send_multipart([b"", due.to_bytes(8, "big")], zmq.NOBLOCK)
            slice_ = _Slice()
            while (frames := await _receive_soon(socket)) is not None:
                slice_.add(frames)
                message = feed.read(frames)
                if message is None:
                    return
                place = feed.numbering.place(message[0], message[1].at)
                if place == "gap" and feed.numbering.next is not None:
                    return
                if place != "known":
                    self._take(feed, *message)
                if slice_.is_over:
                    slice_ = _Slice()
                    await trio.lowlevel.checkpoint()


@contextmanager
def _socket(kind: int, endpoint: str) -> Iterator[zmq.Socket[bytes]]:
    """Connected, and connecting again by itself after 0.2 s, then later and later, up to 10 s."""
    import zmq

    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
    with socket:
        socket.linger = 0
        socket.ipv6 = True
        socket.rcvhwm = socket.sndhwm = _MOST_WAITING
        socket.maxmsgsize = _MOST_BYTES
        socket.reconnect_ivl, socket.reconnect_ivl_max = 200, 10_000
        socket.heartbeat_ivl, socket.heartbeat_timeout = 10_000, 30_000
        socket.connect(endpoint)
        yield socket


def _receive(socket: zmq.Socket[bytes]) -> list[bytes] | None:
    """The next message; None if there is none, and only then may the socket be waited for."""
    import zmq

    try:
        return socket.recv_multipart(zmq.NOBLOCK)
    except zmq.Again:
        return None


async def _receive_soon(socket: zmq.Socket[bytes]) -> list[bytes] | None:
    with trio.move_on_after(_REPLAY_S):
        while True:
            frames = _receive(socket)
            if frames is not None:
                return frames
            await trio.lowlevel.wait_readable(socket.FD)
    return None
