"""Connections to replicas are kept between requests; what dies on them costs nobody an error."""

from __future__ import annotations

import pytest
import trio

from tests.e2e.faults.client import post
from tests.e2e.faults.scripted import (
    CLOSE,
    END,
    HANG,
    HEALTHY,
    REQUEST,
    RESET,
    STREAM,
    WHOLE,
    FakeReplica,
    Script,
    Step,
    json_answer,
    say,
    until,
)
from tests.e2e.kit import Running, assert_served, eventually, relaying

END_OF_CONNECTION = pytest.mark.parametrize("end", [CLOSE, RESET], ids=["closes", "resets"])


async def assert_calls_served(triolet: Running, calls: int, *, stream: bool = True) -> None:
    """Calls one after the other succeed at the first attempt."""
    for _ in range(calls):
        answer = await triolet.call(post(stream=stream))
        assert (answer.status, answer.whole) == (200, True), answer.body
        assert answer.text == "Hello" if stream else answer.body == WHOLE.partition(b"\r\n\r\n")[2]
        assert answer.headers["x-triolet-attempts"] == "1"
    assert triolet.failed_attempts() == {}


async def test_kept() -> None:
    """After a clean end the connection serves the next request."""
    fake = FakeReplica()
    async with relaying(fake) as triolet:
        await assert_calls_served(triolet, 3)
        await assert_calls_served(triolet, 3, stream=False)
        assert [len(peer.requests) for peer in fake.peers] == [6]


@END_OF_CONNECTION
@pytest.mark.parametrize("stream", [True, False])
async def test_ended_between_requests(end: Step, stream: bool) -> None:
    """A close is noticed when it comes; the next request takes another connection."""
    said = STREAM if stream else WHOLE
    fake = FakeReplica([REQUEST, say(said), end])
    async with relaying(fake, retries=0) as triolet:
        for _ in range(4):
            await assert_calls_served(triolet, 1, stream=stream)
            assert await eventually(lambda: triolet.replicas[0].connections.idle == 0)
        assert len(fake.peers) == 4


@END_OF_CONNECTION
@pytest.mark.parametrize("stream", [True, False])
async def test_ended_when_the_next_request_comes(end: Step, stream: bool) -> None:
    """The race: the request is on its way as the replica hangs up. It is sent anew, at no cost."""
    said = STREAM if stream else WHOLE
    fake = FakeReplica([REQUEST, say(said), REQUEST, end])
    async with relaying(fake, retries=0) as triolet:
        await assert_calls_served(triolet, 4, stream=stream)
        assert [len(peer.requests) for peer in fake.peers] == [2, 2, 2, 1]


async def test_restarted_replica() -> None:
    """Many kept connections that all die at the next request cost nobody an error."""
    calls = 5
    fake = FakeReplica(*[[REQUEST, say(STREAM), REQUEST, CLOSE]] * calls, HEALTHY)
    async with relaying(fake, retries=0) as triolet:
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for _ in range(calls):
                    nursery.start_soon(assert_calls_served, triolet, 1)
        assert triolet.outcomes() == {"ok": 2 * calls}


async def test_failing_after_a_byte_is_a_failure() -> None:
    """Once something came back, the replica has begun: that is an attempt like any other."""
    bad = FakeReplica([REQUEST, say(WHOLE), REQUEST, say(b"HTTP"), CLOSE])
    async with relaying(bad, retries=0) as triolet:
        await assert_calls_served(triolet, 1, stream=False)
        assert (await triolet.call(post())).status == 502
        assert triolet.failed_attempts() == {"reset": 1}


async def test_failing_on_the_fresh_connection_too() -> None:
    """Only the kept connection is free: a replica that hangs up again has failed."""
    fake = FakeReplica([REQUEST, say(WHOLE), REQUEST, CLOSE], [REQUEST, CLOSE])
    async with relaying(fake, retries=0) as triolet:
        await assert_calls_served(triolet, 1, stream=False)
        answer = await triolet.call(post())
        assert (answer.status, answer.headers["x-triolet-attempts"]) == (502, "1")
        assert triolet.failed_attempts() == {"reset": 1}


CLOSING = WHOLE.replace(b"content-length", b"connection: close\r\ncontent-length")
NOT_KEPT: dict[str, Script] = {
    "says close": [REQUEST, say(CLOSING), HANG],
    "speaks HTTP/1.0": [REQUEST, say(WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0")), HANG],
    "has no length": [
        REQUEST,
        say(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{}"),
        CLOSE,
    ],
}


@pytest.mark.parametrize("script", NOT_KEPT.values(), ids=NOT_KEPT)
async def test_not_kept(script: Script) -> None:
    """Where the replica does not offer it, no connection is used twice."""
    fake = FakeReplica(script)
    async with relaying(fake, retries=0) as triolet:
        for _ in range(3):
            answer = await triolet.call(post(stream=False))
            assert (answer.status, answer.whole) == (200, True)
        assert [len(peer.requests) for peer in fake.peers] == [1, 1, 1]
        assert triolet.outcomes() == {"ok": 3}


STRAYS = {
    "nonsense": b"oops",
    "half a head": STREAM[:30],
    "another end": END,
    "an answer": json_answer(b'{"stray":1}'),
    "a whole stream": STREAM,
    "an unfinished answer": json_answer(b'{"stray":1}')[:-3],
}
BEHIND = [pytest.param(stray, id=name) for name, stray in STRAYS.items()]


@pytest.mark.parametrize("stray", BEHIND)
@pytest.mark.parametrize("stream", [True, False])
async def test_stray_bytes_behind_an_answer(stray: bytes, stream: bool) -> None:
    """What follows an answer is no part of it, and of no other answer either."""
    said = STREAM if stream else WHOLE
    fake = FakeReplica([REQUEST, say(said + stray), *HEALTHY])
    async with relaying(fake, retries=0) as triolet:
        with trio.fail_after(1):
            answer = await triolet.call(post(stream=stream))
        assert answer.body.count(b"Hel") == 1
        assert b"stray" not in answer.body
        await assert_served(triolet, answer, fake)
        again = await triolet.call(post(stream=stream))
        assert again.body == answer.body
        assert len(fake.peers) == 2


async def test_empty_lines_behind_an_answer() -> None:
    """Those are harmless (RFC 9112, 2.2), and so the connection is kept."""
    fake = FakeReplica([REQUEST, say(WHOLE + b"\r\n\r\n"), *HEALTHY])
    async with relaying(fake, retries=0) as triolet:
        await assert_calls_served(triolet, 3, stream=False)
        assert len(fake.peers) == 1


@pytest.mark.parametrize("stray", STRAYS.values(), ids=STRAYS)
async def test_stray_bytes_on_a_kept_connection(stray: bytes) -> None:
    """A replica that says something unasked loses that connection, and nobody notices."""
    late = trio.Event()

    fake = FakeReplica([REQUEST, say(WHOLE), until(late), say(stray), HANG], HEALTHY)
    async with relaying(fake, retries=0) as triolet:
        await assert_calls_served(triolet, 1, stream=False)
        assert triolet.replicas[0].connections.idle == 1
        late.set()
        assert await eventually(lambda: triolet.replicas[0].connections.idle == 0)
        await assert_calls_served(triolet, 2, stream=False)


async def test_length_too_short() -> None:
    """The client has what the length promises; the rest is stray."""
    whole = b'{"choices":[],"more":"than that"}'
    said = json_answer(whole).replace(b": %d" % len(whole), b": 14")
    for end in (HANG, CLOSE, RESET):
        fake = FakeReplica([REQUEST, say(said), end])
        async with relaying(fake, retries=0) as triolet:
            for _ in range(2):
                answer = await triolet.call(post(stream=False))
                assert (answer.status, answer.body, answer.whole) == (200, whole[:14], True)
            assert len(fake.peers) == 2
