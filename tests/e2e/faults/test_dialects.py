"""Errors in the words of the API that was called: Anthropic's Messages and OpenAI's Responses."""

from __future__ import annotations

import json

import pytest

from server.config import TimeoutConfig
from tests.e2e.faults.client import post, post_body
from tests.e2e.faults.scripted import (
    CLOSE,
    HANG,
    REQUEST,
    RESET,
    STREAM_HEAD,
    UNFRAMED_HEAD,
    FakeReplica,
    chunk,
    json_answer,
    say,
)
from tests.e2e.kit import asked, assert_failed, assert_served, relaying

MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"


def named(name: str, **fields: object) -> bytes:
    """An event as both APIs write them: with a name, and the name in its data."""
    return b"event: %b\ndata: %b\n\n" % (
        name.encode(),
        json.dumps({"type": name, **fields}).encode(),
    )


async def test_messages_before_the_first_event() -> None:
    """A status, and the body that Anthropic's SDKs parse."""
    async with relaying(FakeReplica([REQUEST, RESET]), retries=0) as triolet:
        answer = await triolet.call(post(MESSAGES))
        assert answer.status == 502
        said = answer.json()
        assert (said["type"], said["error"]["type"]) == ("error", "api_error")
        assert "Connection reset" in said["error"]["message"]
        assert (await triolet.logged())["outcome"] == "reset"


@pytest.mark.parametrize(
    ("request_", "status", "kind"),
    [
        (post(MESSAGES, model="x"), 404, "not_found_error"),
        (post_body(b"{", MESSAGES), 400, "invalid_request_error"),
        (post_body(b"{}", MESSAGES, kind=b"xml"), 415, "invalid_request_error"),
        (post("/v1/messages/count_tokens", model="x"), 404, "not_found_error"),
    ],
    ids=["unknown model", "malformed", "content type", "counting"],
)
async def test_messages_at_fault(request_: bytes, status: int, kind: str) -> None:
    """The request's own faults have that form, too."""
    async with relaying(FakeReplica()) as triolet:
        answer = await triolet.call(request_)
        assert answer.status == status
        assert answer.json()["type"] == "error"
        assert answer.error["type"] == kind
        assert answer.error["message"]


async def test_messages_overloaded_and_late() -> None:
    """503 and 504 have the types that make SDKs wait or give up."""
    limits = TimeoutConfig(connect_s=3, first_byte_s=0.1, idle_s=3, total_s=4)
    fake = FakeReplica([REQUEST, HANG])
    async with (
        relaying(fake, timeouts=limits, max_in_flight=1, queue=0) as triolet,
        triolet.client() as first,
    ):
        await first.send(post(MESSAGES))
        await asked(fake)
        busy = await triolet.call(post(MESSAGES))
        assert (busy.status, busy.error["type"]) == (503, "overloaded_error")
        assert "retry-after" in busy.headers
        late = await first.answer()
        assert (late.status, late.error["type"]) == (504, "timeout_error")


MESSAGES_TEXT = named("content_block_delta", delta={"type": "text_delta", "text": "Hi"})
RESPONSES_TEXT = named("response.output_text.delta", delta="Hi")


async def test_messages_mid_stream() -> None:
    """`event: error`, as Anthropic's own servers end a stream that failed."""
    begun = STREAM_HEAD + chunk(named("message_start", message={}) + MESSAGES_TEXT)
    async with relaying(FakeReplica([REQUEST, say(begun), CLOSE])) as triolet:
        answer = await triolet.call(post(MESSAGES))
        assert (answer.status, answer.whole, len(answer.events)) == (200, True, 3)
        assert answer.events[-1].startswith(b"event: error\ndata: ")
        assert answer.last_event["type"] == "error"
        assert answer.last_event["error"]["type"] == "api_error"
        assert answer.last_event["error"]["message"]
        assert b"[DONE]" not in answer.body
        assert (await triolet.logged())["outcome"] == "cut"


async def test_responses_before_the_first_event() -> None:
    """OpenAI's form, as for chat."""
    async with relaying(FakeReplica([REQUEST, RESET]), retries=0) as triolet:
        answer = await triolet.call(post(RESPONSES))
        await assert_failed(triolet, answer, 502, "replica_failed", "reset")


async def test_responses_mid_stream() -> None:
    """The API's own error event, whose fields are not nested."""
    begun = STREAM_HEAD + chunk(named("response.created", response={}) + RESPONSES_TEXT)
    async with relaying(FakeReplica([REQUEST, say(begun), CLOSE])) as triolet:
        answer = await triolet.call(post(RESPONSES))
        assert (answer.status, answer.whole, len(answer.events)) == (200, True, 3)
        assert answer.events[-1].startswith(b"event: error\ndata: ")
        said = answer.last_event
        assert (said["type"], said["code"], said["param"]) == ("error", "replica_failed", None)
        assert said["message"]
        assert (await triolet.logged())["outcome"] == "cut"


ENDS = {
    "messages": (MESSAGES, named("message_stop")),
    "responses": (RESPONSES, named("response.completed", response={"usage": {"input_tokens": 1}})),
    "responses, incomplete": (RESPONSES, named("response.incomplete", response={})),
    "responses, failed": (RESPONSES, named("response.failed", response={})),
    "messages, error": (MESSAGES, named("error", error={"type": "overloaded_error"})),
}


@pytest.mark.parametrize(("path", "end"), ENDS.values(), ids=ENDS)
async def test_unframed_streams_that_end(path: str, end: bytes) -> None:
    """These APIs have no `[DONE]`: their own last events tell a whole stream from a cut one."""
    text = MESSAGES_TEXT if path == MESSAGES else RESPONSES_TEXT
    said = UNFRAMED_HEAD + named("response.created", response={}) + text + end
    fake = FakeReplica([REQUEST, say(said), CLOSE])
    async with relaying(fake) as triolet:
        answer = await triolet.call(post(path))
        assert answer.body == said.removeprefix(UNFRAMED_HEAD)
        await assert_served(triolet, answer, fake)


@pytest.mark.parametrize("path", [MESSAGES, RESPONSES])
async def test_unframed_streams_that_do_not_end(path: str) -> None:
    """Without it, the stream was cut and the client is told."""
    said = UNFRAMED_HEAD + named("message_start", message={}) + named("message_delta", delta={})
    async with relaying(FakeReplica([REQUEST, say(said), CLOSE])) as triolet:
        answer = await triolet.call(post(path))
        assert len(answer.events) == 3
        assert answer.events[-1].startswith(b"event: error\n")
        assert (await triolet.logged())["outcome"] == "cut"


async def test_a_replicas_own_error_is_not_translated() -> None:
    """What the replica says in its own words stays so, on every path."""
    body = b'{"object":"error","message":"no","code":400}'
    for path in (MESSAGES, RESPONSES):
        fake = FakeReplica([REQUEST, say(json_answer(body, "400 Bad Request")), HANG])
        async with relaying(fake) as triolet:
            answer = await triolet.call(post(path))
            assert (answer.status, answer.body) == (400, body)
