"""The relay pump: all bytes in order, no further than the client takes them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.errors import AnswerInvalid, AnswerLost, ConnectionLost
from balancer.wire.connect import Origin
from balancer.wire.http1 import Connection, request_head
from balancer.wire.memory import memory_network
from balancer.wire.pump import Pump
from balancer.wire.sse import HELD_BYTES, ByteTap, EventTap, Tap, TapOverflow
from tests.balancer.scripted import (
    LAST_CHUNK,
    STREAM_HEAD,
    Act,
    ScriptedReplica,
    Step,
    chunk,
    event,
    in_virtual_time,
)

Clock = trio.testing.MockClock
HERE = Origin.parse("http://here")


@dataclass
class NarrowSink:
    """Takes `capacity` bytes, then is full until drained; refuses to be written to while full."""

    capacity: float = float("inf")
    drain_s: float = 1.0
    gone_after: float = float("inf")
    taken: bytes = b""
    waiting: int = 0
    drained: int = 0
    drain_started: list[float] = field(default_factory=list)

    def write_nowait(self, data: bytes) -> bool:
        assert self.waiting < self.capacity, "written to although full"
        assert data, "an empty write"
        if len(self.taken) + len(data) > self.gone_after:
            raise ConnectionLost("gone")
        self.taken += data
        self.waiting += len(data)
        return self.waiting < self.capacity

    async def drain(self) -> None:
        self.drain_started.append(trio.current_time())
        await trio.sleep(self.drain_s if self.waiting >= self.capacity else 0)
        self.waiting = 0


@dataclass
class Progress:
    """Notes what the pump tells."""

    told: list[str] = field(default_factory=list)

    def passed(self) -> None:
        self.told.append("passed")

    def blocked(self) -> None:
        self.told.append("blocked")


@asynccontextmanager
async def answering(
    steps: Sequence[Step], *, capacity_bytes: int = 65_536
) -> AsyncIterator[tuple[Connection, ScriptedReplica]]:
    """A connection on which the head has come and the body is coming."""
    async with memory_network(capacity_bytes=capacity_bytes) as network:
        scripted = ScriptedReplica(steps)
        network.serve("http://here", scripted)
        connection = Connection(await network.dial(HERE), "http://here")
        await connection.send(request_head("GET", b"/", []))
        await connection.head()
        yield connection, scripted
        connection.close()


def pump(connection: Connection, sink: NarrowSink, tap: Tap | None = None) -> Pump:
    return Pump(connection, tap or EventTap(), sink, Progress())


@given(
    st.lists(st.text("ab", max_size=30), min_size=1, max_size=12),
    st.lists(st.integers(0, 2000), max_size=15),
    st.integers(1, 200),
    st.integers(8, 400),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=80)
def test_all_bytes_in_order(
    texts: list[str],
    cuts: list[int],
    sink_capacity: int,
    socket_capacity: int,
    paced: bool,
    as_events: bool,
) -> None:
    """Whatever the chunking and however small the buffers on either side."""
    events = [event(text) for text in texts]
    wire = b"".join(map(chunk, events)) + LAST_CHUNK
    places = sorted({0, len(wire), *(cut % len(wire) for cut in cuts)})
    steps: list[Step] = [STREAM_HEAD]
    for start, end in itertools.pairwise(places):
        steps += [wire[start:end], 0.1 if paced else 0.0]

    async def body() -> None:
        async with answering(steps, capacity_bytes=socket_capacity) as (connection, _):
            sink, tap = NarrowSink(sink_capacity), EventTap() if as_events else ByteTap()
            last = await pump(connection, sink, tap).run()
            assert sink.taken + last + tap.pending == b"".join(events)
            assert connection.reusable
            assert connection.transport.on_readable is None

    in_virtual_time(body)


async def test_whole_events_only(autojump_clock: Clock) -> None:
    """Half an event waits for its other half; the sink never sees it."""
    whole = event("a")
    steps: list[Step] = [STREAM_HEAD, 1.0, chunk(whole[:9]), 1.0, chunk(whole[9:] + b"dat"), 1.0]
    async with answering([*steps, chunk(b"a: b\n\n"), 1.0, LAST_CHUNK]) as (connection, _):
        sink = NarrowSink()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump(connection, sink).run)
            for taken in (b"", b"", whole, whole + b"data: b\n\n"):
                await trio.sleep(0.9 if taken else 0.7)
                assert sink.taken == taken


async def test_a_full_sink_stops_the_reading(autojump_clock: Clock) -> None:
    """While it drains nothing is read: the replica's sends fill the buffers and stop."""
    count = 200
    steps: list[Step] = [STREAM_HEAD, *[chunk(event("a"))] * count, LAST_CHUNK, 0.0]
    async with answering(steps, capacity_bytes=300) as (connection, _):
        sink, progress = NarrowSink(capacity=100, drain_s=10), Progress()
        last = []

        async def run() -> None:
            last.append(await Pump(connection, EventTap(), sink, progress).run())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await trio.sleep(9)
            taken = len(sink.taken)
            assert 100 <= taken < 1000
            await trio.sleep(0.5)
            assert len(sink.taken) == taken
            assert progress.told[-1] == "blocked"
        assert sink.taken + last[0] == event("a") * count
        assert progress.told.count("blocked") == len(sink.drain_started)


async def test_a_fast_stream_lets_others_run(autojump_clock: Clock) -> None:
    """However much is there, others get their turn before all of it is relayed."""
    turns = []

    async def other(connection: Connection) -> None:
        while not connection.complete:
            turns.append(1)
            await trio.lowlevel.checkpoint()

    steps: list[Step] = [STREAM_HEAD, *[chunk(b"x" * 65_530)] * 64, LAST_CHUNK]
    there = answering(steps, capacity_bytes=8_000_000)
    async with there as (connection, _), trio.open_nursery() as nursery:
        await trio.sleep(1)
        nursery.start_soon(other, connection)
        sink = NarrowSink()
        last = await pump(connection, sink, ByteTap()).run()
        assert len(sink.taken + last) == 64 * 65_530
        assert len(turns) > 4


FAULTS: dict[str, tuple[list[Step], type[Exception]]] = {
    "reset": ([Act.RESET], AnswerLost),
    "closed": ([Act.CLOSE], AnswerLost),
    "closed in an event": ([chunk(b"data: "), 1.0, Act.CLOSE], AnswerLost),
    "garbage": ([b"garbage\r\n"], AnswerInvalid),
    "an endless event": ([chunk(b"x" * (HELD_BYTES + 1))], TapOverflow),
}


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("name", FAULTS)
async def test_a_failing_replica(name: str, slow: bool, autojump_clock: Clock) -> None:
    """Comes out as an exception, after what came whole was passed; slow client or not."""
    steps, error = FAULTS[name]
    before: list[Step] = [STREAM_HEAD, chunk(event("a")), chunk(event("b")), 1.0]
    async with answering([*before, *steps]) as (connection, _):
        sink = NarrowSink(capacity=10 if slow else 1e9, drain_s=3)
        with pytest.raises(error):
            await pump(connection, sink).run()
        assert sink.taken == event("a") + event("b")
        assert not connection.reusable
        assert connection.transport.on_readable is None


async def test_what_came_before_garbage_passes(autojump_clock: Clock) -> None:
    """Whole events are passed also if nonsense follows in the same read."""
    async with answering([STREAM_HEAD, 1.0, chunk(event("a")) + b"garbage"]) as (connection, _):
        sink = NarrowSink()
        with pytest.raises(AnswerInvalid):
            await pump(connection, sink).run()
        assert sink.taken == event("a")


@pytest.mark.parametrize("later", [0.0, 1.0])
async def test_a_client_that_is_gone(later: float, autojump_clock: Clock) -> None:
    """`ConnectionLost` comes out, from the first write or from one out of the poller."""
    steps: list[Step] = [STREAM_HEAD, later, chunk(event("a")), 1.0, chunk(event("b")), Act.HANG]
    async with answering(steps) as (connection, _):
        with pytest.raises(ConnectionLost):
            await pump(connection, NarrowSink(gone_after=50)).run()
        assert connection.transport.on_readable is None


@pytest.mark.parametrize("full", [False, True])
async def test_cancelled(full: bool, autojump_clock: Clock) -> None:
    """Parked or draining: ends at once, and nothing calls it any more."""
    steps: list[Step] = [STREAM_HEAD, chunk(event("a")), 2.0, chunk(event("b")), Act.HANG]
    async with answering(steps) as (connection, _):
        sink = NarrowSink(capacity=1 if full else 1e9, drain_s=9)
        with trio.move_on_after(1 - trio.current_time()):
            await pump(connection, sink).run()
        assert trio.current_time() == pytest.approx(1)
        await trio.sleep(5)
        assert sink.taken == event("a")
        assert connection.transport.on_readable is None


async def test_silence_is_told_to_nobody(autojump_clock: Clock) -> None:
    """The pump measures no time: it tells what passed, and its caller's deadline does the rest."""
    async with answering([STREAM_HEAD, 1.0, chunk(event("a")), Act.HANG]) as (connection, replica):
        progress = Progress()
        with trio.move_on_after(1000) as scope:
            await Pump(connection, EventTap(), NarrowSink(), progress).run()
        assert scope.cancelled_caught
        assert progress.told == ["passed"]
        connection.close()
        await trio.testing.wait_all_tasks_blocked()
        assert replica.left_at == [1000]
