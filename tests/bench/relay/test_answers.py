"""The fake replica's bytes: requests cut anywhere, answers that are what they claim."""

from __future__ import annotations

import json

import pytest

from bench.relay import answers, workloads
from bench.relay.workloads import Workload


def test_a_request_is_found_once_it_is_whole() -> None:
    """Every prefix of a request is incomplete; the whole of it is one request, the rest is left."""
    workload = Workload("one", lanes=1, tokens=7, pace_ms=20)
    sent = workloads.request_bytes(workload, port=1, prompt_bytes=100)
    for size in range(len(sent)):
        assert answers.split_request(sent[:size]) is None
    request = answers.split_request(sent + b"GET / HT")
    assert request is not None
    assert (request.method, request.path, request.size) == (
        b"POST",
        b"/v1/chat/completions",
        len(sent),
    )
    assert answers.read_order(request.body) == (True, 7, 20, False)


def test_an_order_survives_a_router_that_writes_json_anew() -> None:
    """Renamed tokens, other spacing and order change nothing."""
    body = json.dumps(
        {
            "stream": False,
            "max_completion_tokens": 5,
            "messages": [{"role": "system", "content": "Hi. pace=10ms staggered"}],
        },
        indent=1,
    ).encode()
    assert answers.read_order(body) == (False, 5, 10, True)


@pytest.mark.parametrize("staggered", [False, True])
def test_a_workload_says_how_its_streams_are_paced(staggered: bool) -> None:
    """What a workload wants is what the fake replica reads from its request."""
    workload = Workload("one", lanes=1, tokens=7, pace_ms=20, staggered=staggered)
    _, _, body = workloads.request_bytes(workload, port=1, prompt_bytes=9).partition(b"\r\n\r\n")
    assert answers.read_order(body) == (True, 7, 20, staggered)


def test_a_chunked_request_is_refused() -> None:
    """The fake replica says what it cannot read instead of hanging."""
    with pytest.raises(answers.BadRequestBytes):
        answers.split_request(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")


@pytest.mark.parametrize("tokens", [1, 2, 32])
def test_a_stream_is_chunks_of_json_events(tokens: int) -> None:
    """The sends together are a well-formed chunked body of `tokens` events and [DONE]."""
    sends = answers.stream_sends(tokens)
    assert len(sends) == answers.events_per_stream(tokens)
    head, _, body = b"".join(sends).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    events = _dechunked(body).split(b"\n\n")
    assert events.pop() == b""
    assert events.pop() == b"data: [DONE]"
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in events]
    assert len(chunks) == tokens
    assert [one["choices"][0]["finish_reason"] for one in chunks][-1] == "length"
    assert all(150 < len(event) < 260 for event in events)


def _dechunked(body: bytes) -> bytes:
    whole = b""
    while True:
        size, _, rest = body.partition(b"\r\n")
        count = int(size, 16)
        assert rest[count : count + 2] == b"\r\n"
        if not count:
            assert rest == b"\r\n"
            return whole
        whole, body = whole + rest[:count], rest[count + 2 :]


def test_a_whole_answer_is_json_of_its_length() -> None:
    """About 600 bytes, as its content-length says."""
    head, _, body = answers.whole_answer(32).partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head
    assert 500 < len(body) < 750
    assert json.loads(body)["usage"]["completion_tokens"] == 32


def test_what_routers_ask_is_answered() -> None:
    """Health and description are 200, anything else 404."""
    for path in (b"/health", b"/v1/models", b"/server_info", b"/model_info", b"/get_server_info"):
        assert answers.small_answer(path).startswith(b"HTTP/1.1 200 ")
    assert answers.small_answer(b"/nowhere").startswith(b"HTTP/1.1 404 ")


def test_a_request_has_the_prompt_it_should() -> None:
    """The prompt's size is exact and the body's length is told."""
    workload = Workload("one", lanes=1, tokens=7, stream=False)
    head, _, body = workloads.request_bytes(workload, port=1, prompt_bytes=1024).partition(
        b"\r\n\r\n"
    )
    content = json.loads(body)
    assert len(content["messages"][1]["content"]) == 1024
    assert f"content-length: {len(body)}".encode() in head
    assert content["stream"] is False
