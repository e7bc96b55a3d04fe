"""Log lines: written without waiting, lost only when they must be, and never forged."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import time
from typing import Any, BinaryIO, Final, cast

import pytest
import trio

from balancer.decisions import Decision
from balancer.wire.openai import Usage
from server.observe.log import AccessLog, LineWriter, LogFormat, logging_to
from server.observe.record import Record

EVIL: Final = (
    "/a\n2026-01-01T00:00:00.000Z 1.2.3.4 GET /admin 200 ok\r\x1b[2J"
    "\x1b]0;owned\x07\x00\x9b31m\u2028"
)


class Lines(LineWriter):
    """Log lines in a list."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO())
        self.lines: list[bytes] = []

    def write(self, line: bytes) -> None:
        self.lines.append(line)


def record(**facts: Any) -> Record:
    made = Record(method="POST", path="/v1/x", client="1.2.3.4", request_id="req_1", started=0.0)
    for name, value in facts.items():
        setattr(made, name, value)
    return made


def full_record() -> Record:
    return record(
        status=200,
        duration_s=1.23456,
        model="qwen",
        replica="http://r:1",
        attempts=2,
        queued_s=0.001,
        ttft_s=0.25,
        stream=True,
        events=7,
        usage=Usage(10, 20, 5),
    )


def line_of(some: Record, form: LogFormat) -> bytes:
    lines = Lines()
    AccessLog(lines, form).write(some)
    (line,) = lines.lines
    return line


def test_json_lines() -> None:
    """One JSON object with every fact, times in ms."""
    line = json.loads(line_of(full_record(), "json"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "info",
        "event": "exchange",
        "request_id": "req_1",
        "client": "1.2.3.4",
        "method": "POST",
        "path": "/v1/x",
        "status": 200,
        "outcome": "ok",
        "duration_ms": 1234.56,
        "model": "qwen",
        "replica": "http://r:1",
        "attempts": 2,
        "queue_ms": 1.0,
        "ttft_ms": 250.0,
        "stream": True,
        "events": 7,
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "cached_tokens": 5,
    }


def test_what_was_repaired_is_told() -> None:
    """Another model that answered, a hedge, places given away; in text only what matters there."""
    some = full_record()
    some.decision = Decision("req_1", "qwen", "expected_cost", "batch", (), 0.1, 10, 5)
    some.fell_back_from, some.hedge, some.put_backs = ["large", "middle"], "second", 2
    line = json.loads(line_of(some, "json"))
    assert (line["tier"], line["fell_back_from"]) == ("batch", ["large", "middle"])
    assert (line["hedge"], line["put_backs"]) == ("second", 2)
    assert b" fell_back_from=large,middle hedge=second ttft=" in line_of(some, "text")


def test_what_did_not_happen_is_left_out() -> None:
    """An exchange that was no model call has no model, no replica, no tokens."""
    line = json.loads(line_of(record(status=404, outcome="not_found"), "json"))
    assert set(line) == {
        "time",
        "level",
        "event",
        "request_id",
        "client",
        "method",
        "path",
        "status",
        "outcome",
        "duration_ms",
    }


def test_text_lines() -> None:
    """The same for a person."""
    line = line_of(full_record(), "text").decode()
    expected = (
        "1.2.3.4 POST /v1/x 200 ok 1234.6ms model=qwen replica=http://r:1 attempts=2 "
        "ttft=250.0ms tokens=10+20 id=req_1"
    )
    assert line.split(" ", 1)[1] == expected


fields = pytest.mark.parametrize(
    "field", ["path", "model", "client", "request_id", "replica", "method"]
)


@fields
def test_a_text_line_cannot_be_forged(field: str) -> None:
    """Whatever a client puts anywhere: one line of printable ASCII, nothing a terminal obeys."""
    line = line_of(record(**{field: EVIL, "attempts": 1}), "text")
    assert re.fullmatch(rb"[ -~]+", line)
    assert rb"\n2026-01-01" in line, "escaped and not left out"


@fields
def test_a_json_line_cannot_be_forged(field: str) -> None:
    """One line without control characters, which parses back to what was put in."""
    line = line_of(record(**{field: EVIL, "attempts": 1}), "json")
    assert not re.search(rb"[\x00-\x1f]", line)
    assert json.loads(line)[field] == EVIL


def test_no_content_in_a_record() -> None:
    """There is no place for prompts, answers, headers or keys: a record holds these and no more."""
    assert set(Record.__slots__) == {
        "attempts",
        "client",
        "decision",  # replicas, token counts, costs
        "duration_s",
        "events",
        "failures",
        "fell_back_from",
        "hedge",
        "is_call",
        "itl_s",
        "method",
        "model",
        "outcome",
        "path",
        "put_backs",
        "queued_s",
        "replica",
        "request_id",
        "started",
        "status",
        "stream",
        "ttft_s",
        "usage",
    }


def test_it_can_be_switched_off() -> None:
    """`access_log = false`: no lines."""
    lines = Lines()
    AccessLog(lines, "json", enabled=False).write(record())
    assert lines.lines == []


def test_timestamps_follow_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cached second is renewed, milliseconds are cut and not rounded up into the next."""
    times = iter([1_000_000_000.0, 1_000_000_000.9999, 1_000_000_001.0])
    monkeypatch.setattr("server.observe.log.time.time", lambda: next(times))
    stamps = [json.loads(line_of(record(), "json"))["time"] for _ in range(3)]
    assert stamps == [
        "2001-09-09T01:46:40.000Z",
        "2001-09-09T01:46:40.999Z",
        "2001-09-09T01:46:41.000Z",
    ]


def opened(descriptor: int) -> BinaryIO:
    """A pipe's end as a binary stream without a buffer of its own."""
    return cast(BinaryIO, os.fdopen(descriptor, "wb", buffering=0))


async def test_lines_are_written_in_order() -> None:
    """All of them, soon, each with its end; at the latest when the writer is stopped."""
    stream = io.BytesIO()
    writer = LineWriter(stream)
    async with trio.open_nursery() as nursery:
        await nursery.start(writer.run)
        for number in range(1000):
            writer.write(b"line %d" % number)
        with trio.fail_after(2):
            while b"line 999\n" not in stream.getvalue():  # noqa: ASYNC110 - a thread writes it
                await trio.sleep(0.005)
        writer.write(b"last words")
        nursery.cancel_scope.cancel()
    assert stream.getvalue().splitlines() == [
        *(b"line %d" % number for number in range(1000)),
        b"last words",
    ]
    assert writer.dropped == 0


@pytest.mark.slow
async def test_a_full_pipe_blocks_nobody() -> None:
    """Nobody reads the log: writing costs as little as ever, what is too much is counted."""
    reading, writing = os.pipe()
    written, longest = 0, 0.0
    with opened(writing) as stream:
        writer = LineWriter(stream)
        async with trio.open_nursery() as nursery:
            await nursery.start(writer.run)
            for _ in range(10):
                started = time.perf_counter()
                for _ in range(5000):
                    writer.write(b"x" * 99)
                    written += 1
                longest = max(longest, time.perf_counter() - started)
                await trio.sleep(0.01)
            assert writer.dropped > 0
            started = time.perf_counter()
            nursery.cancel_scope.cancel()
        assert time.perf_counter() - started < 2, "stopping waits for nobody either"
        os.close(reading)  # lets the thread that still writes go
        await trio.sleep(0.05)
    assert longest < 0.5, "5,000 lines"
    assert writer.dropped >= written - 65_536 / 100 - 20_000 - 5000


async def test_a_reader_that_left_is_no_failure() -> None:
    """The log's pipe is closed at the other end: lines are lost and counted, serving goes on."""
    reading, writing = os.pipe()
    os.close(reading)
    with opened(writing) as stream:
        writer = LineWriter(stream)
        async with trio.open_nursery() as nursery:
            await nursery.start(writer.run)
            writer.write(b"a")
            writer.write(b"b")
            with trio.fail_after(2):
                while writer.dropped < 2:  # noqa: ASYNC110 - a thread counts it
                    await trio.sleep(0.005)
            nursery.cancel_scope.cancel()


def test_messages_of_the_logging_module_json() -> None:
    """Each is one JSON object, traceback and all; below the level nothing is written."""
    lines, log = Lines(), logging.getLogger("triolet.test")
    with logging_to(lines, "json"):
        log.debug("not this")
        log.warning("a %s\nb", "thing")
        try:
            raise ValueError("why")
        except ValueError:
            log.exception("it failed")
    log.info("nor this: it is over")
    first, second = (json.loads(line) for line in lines.lines)
    first.pop("time")
    assert first == {
        "level": "warning",
        "event": "message",
        "logger": "triolet.test",
        "message": "a thing\nb",
    }
    assert "Traceback" in second["message"]
    assert "ValueError: why" in second["message"]
    assert all(b"\n" not in line for line in lines.lines)


def test_messages_of_the_logging_module_text() -> None:
    """Level, logger and words, for a person."""
    lines = Lines()
    with logging_to(lines, "text"):
        logging.getLogger("triolet.test").warning("a %s", "thing")
    (line,) = lines.lines
    assert line.decode().split(" ", 1)[1] == "warning triolet.test: a thing"


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_message_that_cannot_be_encoded(form: LogFormat) -> None:
    """Logging never raises into whoever logs: not over a lone surrogate either."""
    lines = Lines()
    with logging_to(lines, form):
        logging.getLogger("triolet.test").warning("odd: %s", "\ud800")
    assert len(lines.lines) <= 1


def test_logging_is_put_back() -> None:
    """Afterwards the root logger is as it was."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    with logging_to(Lines(), "text", logging.DEBUG):
        assert len(root.handlers) == 1
    assert (root.handlers, root.level) == before
