"""Replicas that answer, but with an error: by status, in a 200, or as a stream's first event."""

from __future__ import annotations

import pytest

from server.config import TimeoutConfig
from tests.e2e.faults.client import Answer, post
from tests.e2e.faults.scripted import (
    DONE,
    END,
    HANG,
    REQUEST,
    STREAM_HEAD,
    FakeReplica,
    chunk,
    json_answer,
    say,
)
from tests.e2e.kit import Running, assert_failed, assert_served, relaying

STATUSES = {
    400: "400 Bad Request",
    401: "401 Unauthorized",
    404: "404 Not Found",
    422: "422 Unprocessable Content",
    429: "429 Too Many Requests",
    500: "500 Internal Server Error",
    501: "501 Not Implemented",
    502: "502 Bad Gateway",
    503: "503 Service Unavailable",
    504: "504 Gateway Timeout",
}
RETRIED = (429, 502, 503, 504)
KEPT = [status for status in STATUSES if status not in RETRIED]
BODY = b'{"error": {"message": "no",  "type": "x", "extra": 1}}'


def refusing(status: int, body: bytes = BODY, *headers: bytes) -> FakeReplica:
    """Answers with this status, again and again."""
    steps = [REQUEST, say(json_answer(body, STATUSES[status], *headers))]
    return FakeReplica([*steps * 9, HANG])


async def assert_relayed(
    triolet: Running, answer: Answer, status: int, body: bytes, *, attempts: int = 1
) -> None:
    """The client has the replica's own words, and Triolet's account of them."""
    assert answer.whole
    assert (answer.status, answer.body) == (status, body)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-length"] == str(len(body))
    assert answer.headers["x-triolet-attempts"] == str(attempts)
    line = await triolet.logged()
    assert (line["status"], line["outcome"], line["attempts"]) == (status, "status", attempts)
    assert line["request_id"] == answer.headers["x-request-id"]
    assert triolet.outcomes() == {"status": 1}
    assert triolet.failed_attempts() == {"status": attempts}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("status", STATUSES)
async def test_the_only_replica_refuses(status: int, stream: bool) -> None:
    """Its status, body and headers reach the client as they are."""
    fake = refusing(status, BODY, b"retry-after: 7", b"x-own: kept", b"x-request-id: theirs")
    async with relaying(fake, retries=0) as triolet:
        answer = await triolet.call(post(stream=stream))
        await assert_relayed(triolet, answer, status, BODY)
        assert answer.headers["retry-after"] == "7"
        assert answer.headers["x-own"] == "kept"
        assert answer.headers["x-request-id"] != "theirs"
        assert answer.headers["x-triolet-replica"] == fake.url


@pytest.mark.parametrize("status", RETRIED)
async def test_another_replica_answers(status: int) -> None:
    """ "Not here, not now" is no answer while another replica can give one."""
    bad, good = refusing(status), FakeReplica()
    async with relaying(bad, good) as triolet:
        answer = await triolet.call(post())
        assert answer.text == "Hello"
        await assert_served(triolet, answer, good, attempts=2)
        assert triolet.failed_attempts() == {"status": 1}


@pytest.mark.parametrize("status", KEPT)
async def test_a_faulty_request_is_not_tried_elsewhere(status: int) -> None:
    """An error that speaks of the request would be the same everywhere."""
    first, other = refusing(status), FakeReplica()
    async with relaying(first, other) as triolet:
        await assert_relayed(triolet, await triolet.call(post()), status, BODY)
        assert other.requests == []


async def test_every_replica_refuses() -> None:
    """The last refusal is passed on, with its own retry-after."""
    first = refusing(503, b'{"error":"first"}', b"retry-after: 1")
    last = refusing(429, b'{"error":"last"}', b"retry-after: 2")
    async with relaying(first, last, retries=1) as triolet:
        answer = await triolet.call(post())
        await assert_relayed(triolet, answer, 429, b'{"error":"last"}', attempts=2)
        assert answer.headers["retry-after"] == "2"
        assert answer.headers["x-triolet-replica"] == last.url


async def test_error_without_a_length() -> None:
    """A chunked error of any type is taken whole and passed on whole."""
    head = b"HTTP/1.1 500 Oh\r\ncontent-type: text/html\r\ntransfer-encoding: chunked\r\n\r\n"
    fake = FakeReplica([REQUEST, say(head + chunk(b"<h1>Oh"), chunk(b"</h1>") + END), HANG])
    async with relaying(fake) as triolet:
        answer = await triolet.call(post())
        assert (answer.status, answer.body, answer.whole) == (500, b"<h1>Oh</h1>", True)
        assert answer.headers["content-type"] == "text/html"


async def test_error_that_does_not_end() -> None:
    """Waiting for the rest of an error is bounded too."""
    limits = TimeoutConfig(connect_s=5, first_byte_s=0.1, idle_s=5, total_s=9)
    head = b"HTTP/1.1 500 Oh\r\ncontent-length: 9\r\n\r\nOh"
    fake = FakeReplica([REQUEST, say(head), HANG])
    async with relaying(fake, timeouts=limits) as triolet:
        answer = await triolet.call(post())
        await assert_failed(triolet, answer, 504, "replica_timeout", "timeout_first_byte")


ERRORS_IN_200 = {
    b'{"error":{"message":"no","type":"BadRequestError","param":null,"code":400}}': 400,
    b'{"error":{"message":"no","code":"context_length_exceeded"}}': 500,
    b'{"error":"no"}': 500,
    b'{"object":"error","message":"no","type":"BadRequestError","code":400}': 400,
    b'{"object":"error","message":"no","code":"404"}': 404,
    b'{"type":"error","error":{"type":"overloaded_error","message":"no"}}': 500,
}
BUSY_IN_200 = [b'{"error":{"message":"no","code":503}}', b'{"object":"error","code":429}']


@pytest.mark.parametrize(("body", "status"), ERRORS_IN_200.items())
async def test_error_in_200(body: bytes, status: int) -> None:
    """A JSON error under a 200 gets the status it stands for, and is not tried elsewhere."""
    fake, other = FakeReplica([REQUEST, say(json_answer(body)), HANG]), FakeReplica()
    async with relaying(fake, other) as triolet:
        answer = await triolet.call(post(stream=False))
        await assert_relayed(triolet, answer, status, body)
        assert other.requests == []


@pytest.mark.parametrize("done", [DONE, b""], ids=["DONE", "no DONE"])
@pytest.mark.parametrize(("body", "status"), ERRORS_IN_200.items())
async def test_error_as_the_first_event(body: bytes, status: int, done: bytes) -> None:
    """The same in a stream's first event: the client gets an error answer and no stream."""
    said = STREAM_HEAD + chunk(b": ping\n\n") + chunk(b"data: " + body + b"\n\n") + chunk(done)
    fake, other = (
        FakeReplica([REQUEST, say(said.removesuffix(b"0\r\n\r\n") + END), HANG]),
        FakeReplica(),
    )
    async with relaying(fake, other) as triolet:
        answer = await triolet.call(post())
        await assert_relayed(triolet, answer, status, body)
        assert other.requests == []


@pytest.mark.parametrize("body", BUSY_IN_200)
@pytest.mark.parametrize("stream", [True, False])
async def test_busy_in_200(body: bytes, stream: bool) -> None:
    """What stands for a 429 or 503 is tried elsewhere."""
    said = STREAM_HEAD + chunk(b"data: " + body + b"\n\n") if stream else json_answer(body)
    bad, good = FakeReplica([REQUEST, say(said), HANG]), FakeReplica()
    async with relaying(bad, good) as triolet:
        answer = await triolet.call(post(stream=stream))
        await assert_served(triolet, answer, good, attempts=2)


async def test_talk_of_errors_is_no_error() -> None:
    """The word alone, or an empty error, is content like any other."""
    body = b'{"error":null,"choices":[{"message":{"content":"{\\"error\\": 1}"}}]}'
    fake = FakeReplica([REQUEST, say(json_answer(body)), HANG])
    async with relaying(fake) as triolet:
        answer = await triolet.call(post(stream=False))
        assert answer.body == body
        await assert_served(triolet, answer, fake)


async def test_bytes_that_are_no_text() -> None:
    """An answer that only looks like an error, and is not UTF-8, passes as it is."""
    body = b'{"error":"\xff"}'
    fake = FakeReplica([REQUEST, say(json_answer(body)), HANG])
    async with relaying(fake) as triolet:
        answer = await triolet.call(post(stream=False))
        assert answer.body == body
        await assert_served(triolet, answer, fake)
