"""When every replica is full: the line in front of the pool, its bounds, and its refusals."""

from __future__ import annotations

import pytest
import trio

from tests.e2e.faults.client import Answer, post
from tests.e2e.faults.scripted import HANG, REQUEST, STREAM, FakeReplica, say, until
from tests.e2e.kit import Running, asked, relaying


async def assert_overloaded(triolet: Running, answer: Answer, number: int = 1) -> None:
    assert (answer.status, answer.whole) == (503, True)
    assert (answer.error["type"], answer.error["code"]) == ("server_error", "overloaded")
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["x-triolet-attempts"] == "0"
    assert "x-triolet-replica" not in answer.headers
    line = await triolet.logged(number)
    assert (line["status"], line["outcome"]) == (503, "busy")
    assert "replica" not in line


async def test_no_queue() -> None:
    """queue = 0: refused at once, the moment every replica is full."""
    fake = FakeReplica([REQUEST, HANG])
    async with relaying(fake, max_in_flight=1, queue=0) as triolet, triolet.client() as first:
        await first.send(post())
        await asked(fake)
        begun = trio.current_time()
        await assert_overloaded(triolet, await triolet.call(post()))
        assert trio.current_time() - begun < 0.1
        assert len(fake.requests) == 1


async def test_full_queue() -> None:
    """As many wait as `queue` says; the next is refused and those who wait are not affected."""
    turn = trio.Event()

    fake = FakeReplica([REQUEST, until(turn), say(STREAM)] + [REQUEST, say(STREAM)] * 2 + [HANG])
    async with relaying(fake, max_in_flight=1, queue=2) as triolet:
        async with triolet.client() as a, triolet.client() as b, triolet.client() as c:
            for waiting, client in enumerate((a, b, c)):
                await client.send(post())
                await triolet.queued(waiting)
            await assert_overloaded(triolet, await triolet.call(post()))
            turn.set()
            for client in (a, b, c):
                assert (await client.answer()).text == "Hello"
        assert triolet.outcomes() == {"busy": 1, "ok": 3}


@pytest.mark.parametrize("stream", [True, False])
async def test_waited_too_long(stream: bool) -> None:
    """queue_s bounds the wait; the place in the line is given up."""
    fake = FakeReplica([REQUEST, HANG])
    async with relaying(fake, max_in_flight=1, queue_s=0.1) as triolet, triolet.client() as first:
        await first.send(post())
        await asked(fake)
        begun = trio.current_time()
        answer = await triolet.call(post(stream=stream))
        assert 0.1 <= trio.current_time() - begun < 0.5
        await assert_overloaded(triolet, answer)
        assert "had room within 0.1" in answer.error["message"]
        assert triolet.waiting == 0


async def test_time_waited_in_vain_is_told() -> None:
    """A call that got no replica spent its time in the queue, and the log says so."""
    fake = FakeReplica([REQUEST, HANG])
    async with relaying(fake, max_in_flight=1, queue_s=0.1) as triolet, triolet.client() as first:
        await first.send(post())
        await asked(fake)
        await triolet.call(post())
        assert (await triolet.logged())["queue_ms"] >= 100


async def test_time_in_the_queue_is_told() -> None:
    """A call that waited says for how long: in its headers and in the log."""
    turn = trio.Event()

    fake = FakeReplica([REQUEST, until(turn), say(STREAM), REQUEST, say(STREAM), HANG])
    async with relaying(fake, max_in_flight=1) as triolet:
        async with triolet.client() as first, triolet.client() as second:
            await first.send(post())
            await asked(fake)
            await second.send(post())
            await triolet.queued(1)
            await trio.sleep(0.03)
            turn.set()
            await first.answer()
            answer = await second.answer()
        queued = answer.headers["server-timing"].partition("queue;dur=")[2].partition(",")[0]
        assert float(queued) >= 30
        assert (await triolet.logged(2))["queue_ms"] >= 30
