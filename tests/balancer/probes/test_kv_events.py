"""KV cache events over real ZeroMQ sockets on loopback, as vLLM publishes them."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio

from balancer.probes import kv_events
from balancer.probes.kv_events import KvEvents, KvSource

zmq = pytest.importorskip("zmq", reason="the extra kvevents (pyzmq) is not installed")

END = (-1).to_bytes(8, "big", signed=True)


def stored(first: int, last: int) -> dict[str, Any]:
    return {"type": "BlockStored", "block_hashes": list(range(first, last)), "block_size": 16}


def removed(first: int, last: int) -> list[Any]:
    """In the older form: both are read."""
    return ["BlockRemoved", list(range(first, last))]


CLEARED = {"type": "AllBlocksCleared"}


class Engine:
    """Publishes batches and answers replays, as vLLM's publisher does.

    An XPUB socket is a PUB that also tells when somebody subscribes.
    """

    def __init__(self, *, port: int = 0, clock: float = 1.0, replays: bool = True) -> None:
        self._context = zmq.Context()  # its own: only its end frees the port at once
        self._pub = self._context.socket(zmq.XPUB)
        self._pub.bind(f"tcp://127.0.0.1:{port or '*'}")
        self._router = self._context.socket(zmq.ROUTER)
        self._router.bind("tcp://127.0.0.1:*")
        self.clock = clock
        self.replays = replays
        self.asked: list[int] = []
        self.kept: list[tuple[bytes, bytes]] = []
        self.number = 0
        self.port = int(self._pub.last_endpoint.decode().rpartition(":")[2])

    def source(self, *, replay: bool = True) -> KvSource:
        return KvSource(
            f"tcp://127.0.0.1:{self.port}",
            self._router.last_endpoint.decode() if replay else None,
            "kv",
        )

    def happens(self, *events: Any, lost: bool = False) -> None:
        """One batch; `lost`: nobody hears it, but it can be replayed."""
        self.clock += 1.0
        number = self.number.to_bytes(8, "big")
        payload = msgspec.msgpack.encode([self.clock, events, 0])
        self.number += 1
        self.kept.append((number, payload))
        if not lost:
            self.sends(b"kv-events", number, payload)

    def sends(self, *frames: bytes) -> None:
        self._pub.send_multipart(frames, zmq.NOBLOCK)

    async def subscribed(self) -> None:
        """Until somebody is."""
        assert await self._message(self._pub) == [b"\x01kv"]

    async def replay(self) -> None:
        """Answer requests for what was, until cancelled."""
        while True:
            client, empty, start = await self._message(self._router)
            self.asked.append(int.from_bytes(start, "big"))
            if not self.replays:
                continue
            for number, payload in self.kept:
                if number >= start:
                    self._router.send_multipart((client, empty, number, payload), zmq.NOBLOCK)
            self._router.send_multipart((client, empty, END, b""), zmq.NOBLOCK)

    async def _message(self, socket: Any) -> list[bytes]:
        while True:
            try:
                message: list[bytes] = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                await trio.lowlevel.wait_readable(socket.FD)
            else:
                return message

    def close(self) -> None:
        self._context.destroy(linger=0)


class Told:
    """What the callbacks were called with, in order."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[tuple[Any, ...]](100)
        self.events = KvEvents(self.put("empty"), self.put("missed"), self.put("capacity"))

    def put(self, what: str) -> Callable[..., None]:
        return lambda *told: self._send.send_nowait((what, *told))

    async def next(self) -> tuple[Any, ...]:
        with trio.fail_after(5):
            return await self._receive.receive()

    def nothing(self) -> bool:
        return self._receive.statistics().current_buffer_used == 0

    @property
    def resident(self) -> int | None:
        return self.events.caches["r"].resident_tokens


@asynccontextmanager
async def watching(engine: Engine, *, replay: bool = True) -> AsyncIterator[Told]:
    """`r` is watched, and the engine knows that it is."""
    told = Told()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.replay)
            nursery.start_soon(told.events.watch, "r", engine.source(replay=replay))
            with trio.fail_after(5):
                await engine.subscribed()
            yield told
            nursery.cancel_scope.cancel()
    finally:
        engine.close()
    assert not told.events.caches


async def test_contents_capacity_and_reset_are_told() -> None:
    """From the first batch on, without a replay port."""
    engine = Engine()
    async with watching(engine, replay=False) as told:
        engine.happens(stored(0, 100))
        engine.happens(stored(100, 120), removed(0, 10))
        assert await told.next() == ("capacity", "r", 120 * 16)
        assert told.resident == 110 * 16
        engine.happens(removed(10, 11))  # nearly the same: not told again
        engine.happens(CLEARED)
        assert await told.next() == ("empty", "r")
        assert told.resident == 0


async def test_burst_is_read_to_the_end() -> None:
    """Many batches for one edge of the descriptor: none is left behind."""
    engine = Engine()
    async with watching(engine, replay=False) as told:
        for number in range(300):
            engine.happens(stored(number, number + 1))
        engine.happens(removed(0, 1))
        assert await told.next() == ("capacity", "r", 300 * 16)


async def test_large_batches_leave_others_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen small ones or one of 128 KiB are dealt with at once: no more than a millisecond."""
    turns: list[int] = []
    heard = 0
    truly, checkpoint = kv_events.KvEvents._heard, trio.lowlevel.checkpoint

    async def hear(self: KvEvents, *arguments: Any) -> None:
        nonlocal heard
        heard += 1
        await truly(self, *arguments)

    async def turn() -> None:
        turns.append(heard)
        await checkpoint()

    engine = Engine()
    async with watching(engine, replay=False) as told:
        monkeypatch.setattr(kv_events.KvEvents, "_heard", hear)
        monkeypatch.setattr(trio.lowlevel, "checkpoint", turn)
        for number in range(5):
            first = 2**20 + number * 30_000
            engine.happens(stored(first, first + 30_000))  # 150 KB
        engine.happens(removed(2**20, 2**20 + 1))
        assert (await told.next())[0] == "capacity"
        monkeypatch.undo()
    assert {1, 2, 3, 4, 5} <= set(turns)


async def test_lost_batches_are_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those between what was heard and what is there, in order; nothing is taken twice."""
    monkeypatch.setattr(kv_events, "_REPLAY_EVERY_S", 0.0)
    engine = Engine()
    async with watching(engine) as told:
        engine.happens(stored(0, 10), removed(0, 1))
        assert await told.next() == ("capacity", "r", 10 * 16)
        engine.happens(stored(10, 20), lost=True)
        engine.happens(CLEARED, stored(0, 20), lost=True)
        engine.happens(removed(0, 1))
        assert await told.next() == ("empty", "r")
        assert await told.next() == ("capacity", "r", 20 * 16)
        assert told.resident == 19 * 16
        engine.happens(CLEARED)
        assert await told.next() == ("empty", "r")
        assert told.nothing()
    assert engine.asked == [0, 1]


async def test_what_was_before_is_replayed() -> None:
    """Who comes late knows as much as who was there."""
    engine = Engine()
    engine.happens(stored(0, 50), lost=True)
    engine.happens(CLEARED, lost=True)
    engine.happens(stored(0, 10), lost=True)
    async with watching(engine) as told:
        assert await told.next() == ("empty", "r")
        engine.happens(removed(0, 1))
        assert await told.next() == ("capacity", "r", 10 * 16)
    assert engine.asked == [0]


@pytest.mark.parametrize("replay", [False, True])
async def test_batches_lost_for_good_are_owned_up_to(
    replay: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a replay, or with one that no longer has them; then nothing is said to be known."""
    monkeypatch.setattr(kv_events, "_REPLAY_EVERY_S", 0.0)
    engine = Engine()
    async with watching(engine, replay=replay) as told:
        engine.happens(stored(0, 10), removed(0, 1))
        assert await told.next() == ("capacity", "r", 10 * 16)
        engine.happens(stored(10, 20), lost=True)
        engine.happens(stored(20, 30), lost=True)
        del engine.kept[1]
        engine.happens(stored(30, 40))
        assert await told.next() == ("missed", "r")
        assert told.resident is None
        engine.happens(CLEARED, stored(0, 30), removed(0, 1))
        assert await told.next() == ("empty", "r")
        assert await told.next() == ("capacity", "r", 30 * 16)
        assert told.nothing()
    assert "KV events of replica r were lost" in caplog.text


async def test_replay_that_never_comes_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is it asked for again at once, nor is the same loss told twice."""
    monkeypatch.setattr(kv_events, "_REPLAY_S", 0.01)
    engine = Engine(replays=False)
    async with watching(engine) as told:
        engine.happens(stored(0, 10))
        for number in range(3):
            engine.happens(stored(number, 20), lost=True)
            engine.happens(stored(20, 30))
        assert await told.next() == ("missed", "r")
        engine.happens(CLEARED)
        assert await told.next() == ("empty", "r")
    assert engine.asked == [0]


async def test_engine_that_is_started_again_is_found_empty() -> None:
    """It counts from 0 again; the connection comes back by itself."""
    engine = Engine()
    async with watching(engine, replay=False) as told:
        for number in range(5):
            engine.happens(stored(number, number + 1))
        engine.happens(removed(0, 1))
        assert await told.next() == ("capacity", "r", 5 * 16)
        engine.close()
        again = Engine(port=engine.port, clock=engine.clock)
        with trio.fail_after(5):
            await again.subscribed()
        again.happens(stored(0, 3))
        assert await told.next() == ("empty", "r")
        again.happens(removed(0, 1), CLEARED)
        assert await told.next() == ("empty", "r")
        assert told.resident == 0
        again.close()


@pytest.mark.parametrize(
    "frames",
    [(b"kv", b"?"), (b"kv", b"12", b""), (b"kv", b"\0" * 8, b"\xc1"), (b"kv", b"\0" * 8, b"\x00")],
)
async def test_what_cannot_be_read_is_logged_once(
    frames: Sequence[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """And is not mistaken for anything."""
    engine = Engine()
    async with watching(engine, replay=False) as told:
        for _ in range(3):
            engine.sends(*frames)
        engine.happens(CLEARED)
        assert await told.next() == ("empty", "r")
    assert caplog.text.count("cannot be read") == 1


async def test_address_that_is_none_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """And ends the watch of that replica alone."""
    told = Told()
    with trio.fail_after(5):
        await told.events.watch("r", KvSource("nowhere"))
    assert "no KV events from r" in caplog.text
    assert "nowhere" in caplog.text


async def test_without_pyzmq_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything else goes on."""
    monkeypatch.setitem(sys.modules, "zmq", None)
    with caplog.at_level(logging.WARNING):
        await Told().events.watch("r", KvSource("tcp://127.0.0.1:1"))
    assert "triolet[kvevents]" in caplog.text
