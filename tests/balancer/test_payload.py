"""Which events of a stream carry something."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.payload import payload_of
from balancer.wire.sse import data_of

NOTHING = {
    "role only, as vLLM and SGLang": b'{"id":"c","object":"chat.completion.chunk","created":1,'
    b'"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},'
    b'"logprobs":null,"finish_reason":null}]}',
    "role and no content": b'{"choices":[{"delta":{"role":"assistant","content":null}}]}',
    "all empty": b'{"choices":[{"delta":{"role":"assistant","tool_calls":[],"refusal":null}}]}',
    "no delta yet": b'{"choices":[{"delta":{}}],"usage":null}',
    "llama.cpp's progress": b'{"choices":[{"finish_reason":null,"index":0,"delta":{"role":'
    b'"assistant","content":null}}],"prompt_progress":{"total":9,"cache":0,"processed":4}}',
    "Azure's filter": b'{"choices":[],"prompt_filter_results":[{"prompt_index":0}],"id":""}',
    "an empty text": b'{"choices":[{"text":"","index":0,"finish_reason":null}]}',
    "Anthropic's start": b'{"type":"message_start","message":{"usage":{"input_tokens":9}}}',
    "Anthropic's block": b'{"type":"content_block_start","index":0,"content_block":{"text":""}}',
    "Anthropic's ping": b'{"type":"ping"}',
    "a response created": b'{"type":"response.created","response":{"usage":null}}',
    "a response in progress": b'{"type":"response.in_progress","response":{}}',
}
SOMETHING = {
    "content": b'{"choices":[{"delta":{"content":"a"}}]}',
    "a blank": b'{"choices":[{"delta":{"role":"assistant","content":" "}}]}',
    "reasoning": b'{"choices":[{"delta":{"reasoning_content":"hm"}}]}',
    "a tool call": b'{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"x"}]}}]}',
    "the second choice": b'{"choices":[{"delta":{}},{"delta":{"content":"a"}}]}',
    "an end": b'{"choices":[{"delta":{},"finish_reason":"stop"}]}',
    "a text": b'{"choices":[{"text":"a"}]}',
    "usage": b'{"choices":[],"usage":{"prompt_tokens":7}}',
    "an error": b'{"error":{"code":503}}',
    "an error beside choices": b'{"choices":[],"error":"out of memory"}',
    "the end mark": b"[DONE]",
    "no JSON": b"hello",
    "a number": b"7",
    "no UTF-8": b'{"choices":[{"delta":{"content":"\xff"}}]}',
    "another shape of choice": b'{"choices":[{"message":{"content":""}}]}',
    "another API": b'{"token":{"text":""}}',
    "Anthropic's delta": b'{"type":"content_block_delta","delta":{"text":"a"}}',
    "a response's delta": b'{"type":"response.output_text.delta","delta":"a"}',
    "a large beginning": b'{"choices":[{"delta":{"role":"%b"}}]}' % (b"x" * 9_000),
}


def sse(data: bytes, newline: bytes = b"\n") -> bytes:
    return b"data: " + data + newline * 2


@pytest.mark.parametrize("name", NOTHING)
def test_what_carries_nothing(name: str) -> None:
    """Alone, in a row, and between comments and fields without data."""
    event = sse(NOTHING[name])
    assert payload_of(event) is None
    assert payload_of(b": ping\n\nevent: x\n\n" + event * 3) is None
    assert payload_of(b"event: x\n" + event) is None


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize("name", SOMETHING)
def test_what_carries_something(name: str, newline: bytes) -> None:
    """It is found behind events that carry nothing, whatever lines end with."""
    wanted = SOMETHING[name]
    assert payload_of(sse(wanted, newline)) == wanted
    before = b"".join(sse(data, newline) for data in NOTHING.values())
    assert payload_of(before + sse(wanted, newline) + sse(b"[DONE]", newline)) == wanted


def test_data_of_several_lines() -> None:
    """They are one datum."""
    assert payload_of(b'data: {"choices":\ndata: []}\n\n') is None
    assert payload_of(b"data: a\ndata:b\n\n") == b"a\nb"


@given(st.lists(st.sampled_from([b"data: a\n", b"data:\n", b": x\n", b"\n", b"\r\n", b"id: 1\n"])))
def test_the_fast_way_is_the_slow_way(lines: list[bytes]) -> None:
    """Events of one line are found by a shorter way, with the same result."""
    events = b"".join(lines)
    slow = [data_of(event) for event in events.replace(b"\r\n", b"\n").split(b"\n\n")]
    assert payload_of(events) == next((data for data in slow if data), None)
