"""Replicas that fail after the first event: told in-band, without `[DONE]`, never tried again."""

from __future__ import annotations

import pytest
import trio

from server.config import TimeoutConfig
from tests.e2e.faults.client import Answer, post
from tests.e2e.faults.scripted import (
    CLOSE,
    DONE,
    END,
    HANG,
    REQUEST,
    RESET,
    STREAM,
    STREAM_HEAD,
    UNFRAMED_HEAD,
    FakeReplica,
    Script,
    chunk,
    delta,
    drip,
    flood,
    pause,
    say,
    until,
)
from tests.e2e.kit import PATIENT, Running, assert_served, relaying

BEGUN: Script = [REQUEST, say(STREAM_HEAD + chunk(delta("Hel")))]
UNFRAMED: Script = [REQUEST, say(UNFRAMED_HEAD + delta("Hel"))]
LO = chunk(delta("lo"))


# What comes after the first event, apart from it.
CUTS: dict[str, Script] = {
    "closes": [CLOSE],
    "closes within a chunk's size": [say(LO[:1]), CLOSE],
    "closes within a chunk": [say(LO[:20]), CLOSE],
    "closes within an event": [say(chunk(delta("lo")[:20])), CLOSE],
    "closes in the last chunk": [say(END[:3]), CLOSE],
    "resets": [RESET],
    "resets within a chunk": [say(LO[:20]), RESET],
    "garbles a chunk's size": [say(b"zz\r\n"), HANG],
    "begins another answer": [say(STREAM), HANG],
    "has an event without end": [flood(chunk(b"x" * 65_536))],
}
UNFRAMED_CUTS: dict[str, Script] = {
    "closes": [CLOSE],
    "resets": [RESET],
    "closes within an event": [say(delta("lo")[:20]), CLOSE],
    "resets within an event": [say(delta("lo")[:20]), RESET],
}
ALL_CUTS = [
    *(pytest.param(BEGUN, rest, id=name) for name, rest in CUTS.items()),
    *(pytest.param(UNFRAMED, rest, id=f"unframed, {n}") for n, rest in UNFRAMED_CUTS.items()),
]


async def assert_cut(triolet: Running, answer: Answer, code: str, kind: str) -> None:
    """The client has the whole events up to the failure, an error event, and no more."""
    assert (answer.status, answer.whole, answer.text) == (200, True, "Hel")
    assert DONE not in answer.body
    assert len(answer.events) == 2
    error = answer.last_event["error"]
    assert (error["type"], error["code"], error["param"]) == ("server_error", code, None)
    assert error["message"]
    assert answer.headers["x-triolet-attempts"] == "1"
    line = await triolet.logged()
    assert (line["status"], line["outcome"], line["attempts"]) == (200, kind, 1)
    assert (line["stream"], line["events"]) == (True, 1)
    assert triolet.outcomes() == {kind: 1}
    assert triolet.failed_attempts() == {}


@pytest.mark.parametrize(("begun", "rest"), ALL_CUTS)
async def test_cut(begun: Script, rest: Script) -> None:
    """Nothing is retried, though another replica could."""
    seen = trio.Event()
    bad, other = FakeReplica([*begun, until(seen), *rest]), FakeReplica()
    async with relaying(bad, other) as triolet, triolet.client() as client:
        await client.send(post())
        await client.body_so_far(b"Hel")
        seen.set()
        answer = await client.answer()
        await assert_cut(triolet, answer, "replica_failed", "cut")
        assert bad.url in answer.last_event["error"]["message"]
        assert other.requests == []


@pytest.mark.parametrize(("begun", "rest"), [c for c in ALL_CUTS if "closes" in str(c.id)])
async def test_cut_at_once(begun: Script, rest: Script) -> None:
    """The same when the failure comes right behind the first event."""
    bad = FakeReplica([*begun, *rest])
    async with relaying(bad, retries=0) as triolet:
        await assert_cut(triolet, await triolet.call(post()), "replica_failed", "cut")


async def test_cut_leaves_the_client_connected() -> None:
    """A cut stream ends cleanly, so the client's connection serves its next request."""
    fake = FakeReplica([*BEGUN, CLOSE], [REQUEST, say(STREAM), HANG])
    async with relaying(fake) as triolet, triolet.client() as client:
        for text in ("Hel", "Hello"):
            await client.send(post())
            assert (await client.answer()).text == text


IMPATIENT = TimeoutConfig(connect_s=5, first_byte_s=5, idle_s=0.1, total_s=9)
EIGHT_EVENTS: Script = [step for _ in range(8) for step in (say(chunk(delta("."))), pause(0.05))]
SILENCES: dict[str, Script] = {
    "stalls": [*BEGUN, HANG],
    "stalls within an event": [*BEGUN, say(LO[:20]), HANG],
    "trickles": [*BEGUN, drip(LO, 0.02), HANG],
}


@pytest.mark.parametrize("script", SILENCES.values(), ids=SILENCES)
async def test_silence(script: Script) -> None:
    """idle_s limits the time between whole events, whatever trickles in."""
    fake, other = FakeReplica(script), FakeReplica()
    async with relaying(fake, other, timeouts=IMPATIENT) as triolet:
        begun = trio.current_time()
        answer = await triolet.call(post())
        took_s = trio.current_time() - begun
        await assert_cut(triolet, answer, "replica_timeout", "timeout_idle")
        assert "idle_s" in answer.last_event["error"]["message"]
        assert 0.1 <= took_s < 0.5
        assert other.requests == []


@pytest.mark.slow
@pytest.mark.parametrize("said", [delta("."), b": ping\n\n"], ids=["events", "comments"])
async def test_slow_is_not_silent(said: bytes) -> None:
    """A stream that takes longer than idle_s in all, but not between events, goes on."""
    steps = [step for _ in range(6) for step in (say(chunk(said)), pause(0.05))]
    fake = FakeReplica([*BEGUN, *steps, say(LO + chunk(DONE) + END), HANG])
    async with relaying(fake, timeouts=IMPATIENT) as triolet:
        answer = await triolet.call(post())
        assert answer.text.strip(".") in ("Hello", "Hel......lo")
        assert answer.body.count(said) == 6
        await assert_served(triolet, answer, fake)


@pytest.mark.slow
async def test_total() -> None:
    """total_s ends a stream that would go on for ever."""
    limits = TimeoutConfig(connect_s=5, first_byte_s=5, idle_s=5, total_s=0.2)
    fake = FakeReplica([*BEGUN, *EIGHT_EVENTS * 5, HANG])
    async with relaying(fake, timeouts=limits) as triolet:
        begun = trio.current_time()
        answer = await triolet.call(post())
        assert 0.2 <= trio.current_time() - begun < 0.6
        assert answer.whole
        assert DONE not in answer.body
        assert answer.last_event["error"]["code"] == "replica_timeout"
        assert "total_s" in answer.last_event["error"]["message"]
        line = await triolet.logged()
        assert (line["status"], line["outcome"]) == (200, "timeout_total")


FINE: dict[str, Script] = {
    "in one piece": [REQUEST, say(STREAM), HANG],
    "byte by byte": [REQUEST, drip(STREAM, 0), HANG],
    "then closes": [REQUEST, say(STREAM), CLOSE],
    "then resets": [REQUEST, say(STREAM), pause(0.01), RESET],
    "unframed": [*UNFRAMED, say(delta("lo") + DONE), CLOSE],
    "unframed, in one piece": [REQUEST, say(UNFRAMED_HEAD + delta("Hello") + DONE), CLOSE],
    "unframed, the end apart": [*UNFRAMED, say(delta("lo") + DONE[:8]), say(DONE[8:]), CLOSE],
    "after 100": [REQUEST, say(b"HTTP/1.1 100 Continue\r\n\r\n" + STREAM), HANG],
    "after 102 and 103": [
        REQUEST,
        say(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"),
        pause(0.01),
        say(STREAM),
        HANG,
    ],
}


@pytest.mark.parametrize("script", FINE.values(), ids=FINE)
async def test_odd_but_whole(script: Script) -> None:
    """What looks unusual but ends with `[DONE]` is nobody's error."""
    fake = FakeReplica(script)
    async with relaying(fake, retries=0, timeouts=PATIENT) as triolet:
        answer = await triolet.call(post())
        assert (answer.text, answer.events[-1]) == ("Hello", DONE.strip())
        assert "link" not in answer.headers
        await assert_served(triolet, answer, fake)
