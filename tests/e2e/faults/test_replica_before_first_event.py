"""Replicas that fail before the first event: unseen by the client while another one can answer."""

from __future__ import annotations

import pytest
import trio

from server.config import TimeoutConfig
from tests.e2e.faults.client import post
from tests.e2e.faults.scripted import (
    CLOSE,
    END,
    HANG,
    REQUEST,
    RESET,
    STREAM_HEAD,
    UNFRAMED_HEAD,
    FakeReplica,
    Script,
    chunk,
    delta,
    flood,
    json_answer,
    say,
)
from tests.e2e.kit import assert_failed, assert_served, relaying

LONG = json_answer(b'{"choices":[]}').replace(b": 14", b": 99")
MANY_HEADERS = b"HTTP/1.1 200 OK\r\n" + b"x-many: headers\r\n" * 20_000 + b"\r\n"

LOST: dict[str, Script] = {
    "resets when connected": [RESET],
    "closes when connected": [CLOSE],
    "resets after the request": [REQUEST, RESET],
    "closes after the request": [REQUEST, CLOSE],
    "resets within the head": [REQUEST, say(STREAM_HEAD[:30]), RESET],
    "closes within the head": [REQUEST, say(STREAM_HEAD[:30]), CLOSE],
    "closes after an interim answer": [REQUEST, say(b"HTTP/1.1 103 Hints\r\n\r\n"), CLOSE],
    "resets after the head": [REQUEST, say(STREAM_HEAD), RESET],
    "closes after the head": [REQUEST, say(STREAM_HEAD), CLOSE],
    "closes after a comment": [REQUEST, say(STREAM_HEAD + chunk(b": ping\n\n")), CLOSE],
    "closes within a chunk": [REQUEST, say(STREAM_HEAD + chunk(delta("x"))[:20]), CLOSE],
    "resets within a chunk": [REQUEST, say(STREAM_HEAD + chunk(delta("x"))[:20]), RESET],
    "closes within an event": [REQUEST, say(STREAM_HEAD + chunk(delta("x")[:20])), CLOSE],
    "closes short of its length": [REQUEST, say(LONG), CLOSE],
    "resets short of its length": [REQUEST, say(LONG), RESET],
}
INVALID: dict[str, Script] = {
    "says garbage": [REQUEST, say(b"\0\1\2 nothing like HTTP\r\n\r\n"), HANG],
    "says garbage unasked": [say(b"220 mail.example ESMTP\r\n"), HANG],
    "garbles the status line": [REQUEST, say(b"HTTP/1.1 OK 200\r\n\r\n"), HANG],
    "garbles a header": [REQUEST, say(b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"), HANG],
    "garbles a length": [REQUEST, say(LONG.replace(b": 99", b": 9x")), HANG],
    "has two lengths": [REQUEST, say(LONG.replace(b": 99", b": 99\r\ncontent-length: 98")), HANG],
    "garbles a chunk's size": [REQUEST, say(STREAM_HEAD + b"zz\r\n"), HANG],
    "garbles a chunk's end": [REQUEST, say(STREAM_HEAD + b"2\r\nab!!"), HANG],
    "switches protocols": [REQUEST, say(b"HTTP/1.1 101 S\r\nupgrade: x\r\n\r\n"), HANG],
    "has headers over the limit": [REQUEST, say(MANY_HEADERS), HANG],
    "has a header without end": [REQUEST, say(b"HTTP/1.1 200 OK\r\n"), flood(b"x" * 65_536)],
    "ends without an event": [REQUEST, say(STREAM_HEAD + END), CLOSE],
    "closes without an event": [REQUEST, say(UNFRAMED_HEAD), CLOSE],
    "has an event without end": [REQUEST, say(STREAM_HEAD), flood(chunk(b"x" * 65_536))],
}
FAULTS = [
    pytest.param(script, kind, id=name)
    for kind, scripts in (("reset", LOST), ("invalid", INVALID))
    for name, script in scripts.items()
]


@pytest.mark.parametrize(("script", "kind"), FAULTS)
async def test_the_only_replica_fails(script: Script, kind: str) -> None:
    """The client is told by a 502 that names the replica."""
    fake = FakeReplica(script)
    async with relaying(fake, retries=0) as triolet:
        answer = await triolet.call(post())
        await assert_failed(triolet, answer, 502, "replica_failed", kind)
        assert fake.url in answer.error["message"]
        assert answer.headers["x-triolet-replica"] == fake.url
        assert triolet.failed_attempts() == {kind: 1}
        assert len(fake.peers) == 1


@pytest.mark.parametrize(("script", "kind"), FAULTS)
async def test_another_replica_answers(script: Script, kind: str) -> None:
    """The client sees nothing of it but the number of attempts."""
    bad, good = FakeReplica(script), FakeReplica()
    async with relaying(bad, good) as triolet:
        answer = await triolet.call(post())
        assert (answer.text, answer.events[-1]) == ("Hello", b"data: [DONE]")
        await assert_served(triolet, answer, good, attempts=2)
        assert triolet.failed_attempts() == {kind: 1}
        assert (len(bad.peers), len(good.requests)) == (1, 1)


@pytest.mark.parametrize("stream", [True, False])
async def test_refused_by_the_only_replica(stream: bool) -> None:
    """A replica that does not listen is told apart from one that fails."""
    fake = FakeReplica()
    async with relaying(fake, retries=0) as triolet:
        fake.refuse()
        answer = await triolet.call(post(stream=stream))
        await assert_failed(triolet, answer, 502, "replica_unreachable", "connect")
        assert "connection refused" in answer.error["message"]
        assert triolet.failed_attempts() == {"connect": 1}


async def test_refused_by_one_of_two() -> None:
    """The other one answers; while the first rests, it is not even tried."""
    bad, good = FakeReplica(), FakeReplica()
    async with relaying(bad, good) as triolet:
        bad.refuse()
        await assert_served(triolet, await triolet.call(post()), good, attempts=2)
        again = [await triolet.call(post()) for _ in range(2)]
        assert [answer.headers["x-triolet-attempts"] for answer in again] == ["1", "1"]
        assert triolet.failed_attempts() == {"connect": 1}


QUICK_CONNECT = TimeoutConfig(connect_s=0.1, first_byte_s=5, idle_s=5, total_s=9)


async def test_the_only_replica_never_accepts() -> None:
    """Waiting for a connection ends after connect_s."""
    fake = FakeReplica()
    async with relaying(fake, retries=0, timeouts=QUICK_CONNECT) as triolet:
        fake.stop_accepting()
        answer = await triolet.call(post())
        await assert_failed(triolet, answer, 502, "replica_unreachable", "connect")
        assert "connect_s (0.1 s)" in answer.error["message"]


async def test_one_of_two_never_accepts() -> None:
    """After connect_s the other one answers."""
    bad, good = FakeReplica(), FakeReplica()
    async with relaying(bad, good, timeouts=QUICK_CONNECT) as triolet:
        bad.stop_accepting()
        await assert_served(triolet, await triolet.call(post()), good, attempts=2)
        assert triolet.failed_attempts() == {"connect": 1}


async def test_no_call_hides_a_failure_from_the_next() -> None:
    """Failures in a row, each on its own connection, leave nothing behind but their counts."""
    fake = FakeReplica(*LOST.values(), *INVALID.values())
    async with relaying(fake, retries=0) as triolet:
        for _ in (*LOST, *INVALID):
            assert (await triolet.call(post())).status == 502
        assert triolet.outcomes() == {"reset": len(LOST), "invalid": len(INVALID)}
        assert len(fake.peers) == len(LOST) + len(INVALID)


async def test_failures_at_the_same_time() -> None:
    """Thirty calls at once, each failed by one replica, all served by the other."""
    bad, good = FakeReplica(*LOST.values(), *INVALID.values()), FakeReplica()
    async with relaying(bad, good, policy="least_request") as triolet:
        answers = []

        async def call() -> None:
            answers.append(await triolet.call(post()))

        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(call)
        assert [answer.text for answer in answers] == ["Hello"] * 30
        assert triolet.outcomes() == {"ok": 30}
