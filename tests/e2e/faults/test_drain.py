"""Stopping: no new clients, streams may finish, and what does not finish in time is told so."""

from __future__ import annotations

import trio

from tests.e2e.faults.client import connected, post
from tests.e2e.faults.scripted import (
    DONE,
    END,
    HANG,
    REQUEST,
    STREAM_HEAD,
    WHOLE,
    FakeReplica,
    Script,
    chunk,
    delta,
    say,
    until,
)
from tests.e2e.kit import Running, asked, relaying

BEGUN: Script = [REQUEST, say(STREAM_HEAD + chunk(delta("Hel")))]


async def ended(triolet: Running) -> None:
    """The server has stopped by itself, at once."""
    with trio.fail_after(0.5):
        await triolet.ended.wait()


async def refused(triolet: Running) -> None:
    """Nobody listens any more."""
    with trio.fail_after(0.5):
        while True:
            try:
                async with connected(triolet.port) as client:
                    await client.closed()
            except ConnectionResetError:
                continue  # it was in the backlog as the listener was closed
            except ConnectionRefusedError:
                return


async def test_nothing_to_wait_for() -> None:
    """Idle connections are closed and the server ends."""
    async with relaying(FakeReplica()) as triolet, triolet.client() as idle:
        await idle.send(post())
        assert (await idle.answer()).text == "Hello"
        triolet.stop()
        assert await idle.closed()
        await ended(triolet)


async def test_a_stream_finishes() -> None:
    """Within drain_s whatever was begun goes on; then its connection and the server end."""
    turn = trio.Event()

    fake = FakeReplica([*BEGUN, until(turn), say(chunk(delta("lo")) + chunk(DONE) + END), HANG])
    async with relaying(fake) as triolet, triolet.client() as client:
        await client.send(post())
        await client.body_so_far(b"Hel")
        triolet.stop()
        await refused(triolet)
        turn.set()
        answer = await client.answer()
        assert (answer.text, answer.events[-1]) == ("Hello", DONE.strip())
        assert await client.closed()
        await ended(triolet)
        assert (await triolet.logged())["outcome"] == "ok"


async def test_a_call_finishes_that_had_not_begun_to_answer() -> None:
    """The same for one that waits for its first byte, and for one that waits in the queue."""
    turn = trio.Event()

    fake = FakeReplica([REQUEST, until(turn), say(WHOLE), REQUEST, say(WHOLE), HANG])
    async with relaying(fake, max_in_flight=1) as triolet:
        async with triolet.client() as first, triolet.client() as second:
            for waiting, client in enumerate((first, second)):
                await client.send(post(stream=False))
                await triolet.queued(waiting)
            triolet.stop()
            turn.set()
            for client in (first, second):
                answer = await client.answer()
                assert (answer.status, answer.whole) == (200, True)
                assert await client.closed()
        await ended(triolet)
        assert triolet.outcomes() == {"ok": 2}


async def test_the_last_answer_says_so() -> None:
    """A client that is told `connection: close` does not try its next request there."""
    turn = trio.Event()

    fake = FakeReplica([REQUEST, until(turn), say(WHOLE), HANG])
    async with relaying(fake) as triolet, triolet.client() as client:
        await client.send(post(stream=False))
        await asked(fake)
        triolet.stop()
        turn.set()
        assert (await client.answer()).headers.get("connection") == "close"


async def test_a_stream_that_does_not_finish() -> None:
    """After drain_s the client gets an error event, and the replica's work is stopped."""
    fake = FakeReplica([*BEGUN, HANG])
    async with relaying(fake, drain_s=0.1) as triolet, triolet.client() as client:
        triolet.expected_warnings = [r"drain_s has passed: ending 1 calls"]
        await client.send(post())
        await client.body_so_far(b"Hel")
        begun = trio.current_time()
        triolet.stop()
        answer = await client.answer()
        assert 0.1 <= trio.current_time() - begun < 0.5
        assert (answer.status, answer.whole, answer.text) == (200, True, "Hel")
        assert DONE not in answer.body
        error = answer.last_event["error"]
        assert (error["type"], error["code"]) == ("server_error", "shutdown")
        await fake.peers[0].gone.wait()
        assert await client.closed()
        await ended(triolet)
        line = await triolet.logged()
        assert (line["status"], line["outcome"]) == (200, "shutdown")
        assert triolet.outcomes() == {"shutdown": 1}


async def test_calls_that_do_not_begin_to_answer() -> None:
    """Whoever has no head yet gets a 503: one at the replica, one in the queue."""
    fake = FakeReplica([REQUEST, HANG])
    async with relaying(fake, drain_s=0.1, max_in_flight=1) as triolet:
        triolet.expected_warnings = [r"drain_s has passed: ending 2 calls"]
        async with triolet.client() as first, triolet.client() as second:
            for waiting, client in enumerate((first, second)):
                await client.send(post())
                await triolet.queued(waiting)
            triolet.stop()
            for client in (first, second):
                answer = await client.answer()
                assert (answer.status, answer.error["code"]) == (503, "shutdown")
                assert answer.error["type"] == "server_error"
                assert await client.closed()
        await ended(triolet)
        assert triolet.outcomes() == {"shutdown": 2}


async def test_clients_that_leave_while_it_stops() -> None:
    """The server does not wait for drain_s when nobody is left."""
    fake = FakeReplica([*BEGUN, HANG])
    async with relaying(fake) as triolet, triolet.client() as client:
        await client.send(post())
        await client.body_so_far(b"Hel")
        triolet.stop()
        client.leave()
        await ended(triolet)
        assert triolet.outcomes() == {"client_gone": 1}
