"""The few fields that are read, and the one that is written."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.wire.openai import (
    Asked,
    Usage,
    answer_error,
    answer_usage,
    read_asked,
    read_usage,
    stream_done,
    stream_error,
    stream_usage,
    with_model,
)


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        (b'{"model":"m","stream":true,"new":{"field":[1]}}', Asked("m", True)),
        (b'{"stream":null}', Asked(None, None)),
        (b'{"mod\\u0065l":"m"}', Asked("m")),
        (b'{"model":"first","model":"last"}', Asked("last")),
        (b"{}", Asked()),
    ],
)
def test_read_asked(body: bytes, asked: Asked) -> None:
    """Model and stream, whatever else is there."""
    assert read_asked(body) == asked


@pytest.mark.parametrize(
    ("body", "place"),
    [(b'{"model":3}', r"\$\.model"), (b'{"stream":"yes"}', r"\$\.stream"), (b"[]", "object")],
)
def test_read_asked_names_the_place(body: bytes, place: str) -> None:
    """A wrong type says where."""
    with pytest.raises(msgspec.ValidationError, match=place):
        read_asked(body)


@pytest.mark.parametrize("body", [b"", b"{", b'{"model":"m"} x', b'{"model":"\xff"}'])
def test_read_asked_refuses_what_is_no_json(body: bytes) -> None:
    """Not JSON, or not UTF-8."""
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        read_asked(body)


# Text that a scanner of JSON can stumble over: quotes, backslashes, brackets, the key itself.
_text = st.text(max_size=8) | st.text(st.sampled_from('"\\{}[]:, model\n\u2028'), max_size=12)
_key = _text | st.sampled_from(["model", "Model", "model ", '"model"', "models"])
_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_key, inner, max_size=3),
    max_leaves=12,
)
_pairs = st.lists(st.tuples(_key, _value), max_size=5)


def written(key: str, value: Any, *, escaped: bool, spaced: bool) -> bytes:
    """One member of an object, in one of the ways JSON allows."""
    name = json.dumps(key, ensure_ascii=escaped)
    if escaped and key == "model":
        name = '"\\u006dod\\u0065l"'
    text = json.dumps(value, ensure_ascii=escaped, indent=1 if spaced else None)
    return (f"{name} \n:\t{text}" if spaced else f"{name}:{text}").encode()


@given(_pairs, _pairs, _text, _text, st.booleans(), st.booleans())
@settings(max_examples=100)
def test_with_model_changes_the_name_and_nothing_else(
    before: list[tuple[str, Any]],
    after: list[tuple[str, Any]],
    old: str,
    new: str,
    escaped: bool,
    spaced: bool,
) -> None:
    """For any JSON, written in any way: every other byte is the same."""

    def body(name: str, *, name_spaced: bool) -> bytes:
        pairs = [
            *((k, v) for k, v in before if k != "model"),
            ("model", name),
            *((k, v) for k, v in after if k != "model"),
        ]
        members = (written(k, v, escaped=escaped, spaced=name_spaced) for k, v in pairs)
        return b" {" + b", ".join(members) + b"}\n"

    sent = body(old, name_spaced=spaced)
    placed = written("model", old, escaped=escaped, spaced=spaced)
    name = msgspec.json.encode(new)
    old_name = json.dumps(old, ensure_ascii=escaped).encode()
    expected = sent.replace(placed, placed.removesuffix(old_name) + name, 1)
    if sent.count(placed) == 1:
        assert with_model(sent, new) == expected
    assert json.loads(with_model(sent, new)) == {**json.loads(sent), "model": new}


@given(_value, _text)
@settings(max_examples=100)
def test_without_a_model_nothing_changes(value: Any, new: str) -> None:
    """A `model` deeper down, as a value, or one that is no string is left alone."""
    for whole in ({"x": value}, {"x": [value], "model": 5}, [value, "model", "x"], value):
        if isinstance(whole, dict) and isinstance(whole.get("model"), str):
            continue
        body = json.dumps(whole).encode()
        assert with_model(body, new) == body


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"a":{"model":"in"},"model":"m"}', b'{"a":{"model":"in"},"model":"NEW"}'),
        (b'{"mod\\u0065l":"m"}', b'{"mod\\u0065l":"NEW"}'),
        (b'{"model":"a","x":1,"model":"b"}', b'{"model":"NEW","x":1,"model":"NEW"}'),
        (b'{"x":"\\"model\\":\\"m\\"","model":"m"}', b'{"x":"\\"model\\":\\"m\\"","model":"NEW"}'),
        (b'{"x":"}{][\\\\","model" : "m"}', b'{"x":"}{][\\\\","model" : "NEW"}'),
        (b'{"x":"model","model":"model"}', b'{"x":"model","model":"NEW"}'),
        (b'{"model":null}', b'{"model":null}'),
        (b'{"model":"q\\"}","n":1.50}', b'{"model":"NEW","n":1.50}'),
        (b'[{"model":"m"}]', b'[{"model":"m"}]'),
    ],
)
def test_with_model(body: bytes, expected: bytes) -> None:
    """The traps by name: nested, escaped, repeated, quoted, bracketed, not a string."""
    assert with_model(body, "NEW") == expected


def test_with_model_is_linear() -> None:
    """A body of unfinished strings and backslashes is walked once, not once per start."""
    text = '\\"' * 100_000
    body = json.dumps({"x": text, "model": "m"}).encode()
    assert with_model(body, "n") == body[:-4] + b'"n"}'


USAGES: dict[str, tuple[dict[str, Any], Usage]] = {
    "chat": (
        {
            "choices": [],
            "usage": {
                "prompt_tokens": 9,
                "completion_tokens": 4,
                "total_tokens": 13,
                "prompt_tokens_details": {"cached_tokens": 5, "audio_tokens": 0},
            },
        },
        Usage(9, 4, 5),
    ),
    "completions": ({"usage": {"prompt_tokens": 9, "completion_tokens": 0}}, Usage(9, 0, None)),
    "details null": (
        {"usage": {"prompt_tokens": 1, "completion_tokens": 2, "prompt_tokens_details": None}},
        Usage(1, 2, None),
    ),
    "responses": (
        {"usage": {"input_tokens": 3, "output_tokens": 2, "input_tokens_details": {}}},
        Usage(3, 2, None),
    ),
    "responses event": (
        {
            "type": "response.completed",
            "response": {
                "usage": {
                    "input_tokens": 3,
                    "output_tokens": 2,
                    "input_tokens_details": {"cached_tokens": 1},
                }
            },
        },
        Usage(3, 2, 1),
    ),
    "messages": (
        {"usage": {"input_tokens": 3, "output_tokens": 2, "cache_read_input_tokens": 8}},
        Usage(3, 2, 8),
    ),
    "messages event": ({"type": "message_delta", "usage": {"output_tokens": 15}}, Usage(None, 15)),
    "embeddings": ({"data": [], "usage": {"prompt_tokens": 6, "total_tokens": 6}}, Usage(6)),
    "null": ({"usage": None}, Usage()),
    "none": ({"choices": []}, Usage()),
}


@pytest.mark.parametrize("name", USAGES)
def test_read_usage(name: str) -> None:
    """The token counts of every API's shape."""
    answer, usage = USAGES[name]
    assert read_usage(json.dumps(answer).encode()) == usage


@pytest.mark.parametrize("answer", [b"", b"[1]", b"\x00", b'{"usage":7}', b'{"usage":'])
def test_no_usage_is_no_error(answer: bytes) -> None:
    """What cannot be read has none."""
    assert read_usage(answer) == Usage()


@pytest.mark.parametrize("name", USAGES)
@pytest.mark.parametrize("numbers", [0, 200_000])
def test_answer_usage(name: str, numbers: int) -> None:
    """The same of a whole answer, also of a large one with the usage at its end."""
    answer, usage = USAGES[name]
    if "response" not in answer:
        body = json.dumps({"data": [0.5] * numbers, "text": '"usage"'} | answer).encode()
        assert answer_usage(body) == usage


@pytest.mark.parametrize("number", ["-1", "-1000000", "9007199254740993", "1" + "0" * 400])
def test_a_count_that_is_none_was_not_reported(number: str) -> None:
    """Averages and sums would be wrong for ever; the others of the same usage are read."""
    answer = f"""{{"usage": {{"prompt_tokens": 9, "completion_tokens": {number},
        "prompt_tokens_details": {{"cached_tokens": {number}}}}}}}"""
    assert read_usage(answer.encode()) == Usage(9, None, None)
    answer = f'{{"usage": {{"input_tokens": {number}, "output_tokens": 9007199254740992}}}}'
    assert read_usage(answer.encode()) == Usage(None, 2**53, None)


def test_answer_usage_does_not_look_far() -> None:
    """A usage before megabytes is not looked for; that costs no error."""
    body = json.dumps({"usage": {"prompt_tokens": 6}, "data": [0.5] * 200_000}).encode()
    assert answer_usage(body) == Usage()
    assert answer_usage(body[:-100] + b'"usage"') == Usage()


def sse(*documents: Any) -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(document).encode() for document in documents)


DONE = b"data: [DONE]\n\n"


def test_stream_usage() -> None:
    """The latest that has one, through nulls, [DONE], CRLF and a truncated event."""
    null, seven = {"usage": None}, {"usage": {"prompt_tokens": 7}}
    eight = {"usage": {"prompt_tokens": 8}}
    assert stream_usage(sse(null, seven) + DONE) == Usage(7)
    assert stream_usage(sse(seven, eight) + DONE) == Usage(8)
    assert stream_usage(sse(eight, null)) == Usage(8)
    assert stream_usage(sse(seven).replace(b"\n", b"\r\n")) == Usage(7)
    assert stream_usage(sse(null) + DONE) == Usage()
    assert stream_usage(b"") == Usage()
    assert stream_usage(b'data: {"usage":{"prompt_\n\n') == Usage()
    assert stream_usage(b'event: x\ndata: {"usage":\ndata: {"prompt_tokens":3}}\n\n') == Usage(3)


@pytest.mark.parametrize(
    ("recent", "done"),
    [
        (DONE, True),
        (b"data:[DONE]\r\n\r\n", True),
        (sse({"x": 1}) + DONE + b": bye\n\n", True),
        (b'event: message_stop\ndata: {"type":"message_stop"}\n\n', True),
        (b'event: response.completed\ndata: {"type":"response.completed"}\n\n', True),
        (b'event: response.incomplete\ndata: {"type":"response.incomplete"}\n\n', True),
        (DONE + sse({"x": 1}), False),
        (sse({"x": "[DONE]"}), False),
        (b": ping\n\n", False),
        (b"", False),
    ],
)
def test_stream_done(recent: bytes, done: bool) -> None:
    """The end mark of each API, as the last event that has data."""
    assert stream_done(recent) is done


ERRORS: dict[str, tuple[Any, int | None]] = {
    "openai": ({"error": {"message": "no", "type": "BadRequest", "code": 400}}, 400),
    "code as text": ({"error": {"code": "429"}}, 429),
    "code by name": ({"error": {"code": "context_length_exceeded"}}, 500),
    "status": ({"error": {"status": 503}}, 503),
    "outside": ({"error": "overloaded", "code": 503}, 503),
    "text": ({"error": "out of memory"}, 500),
    "old vllm": ({"object": "error", "message": "too long", "code": 400}, 400),
    "messages": ({"type": "error", "error": {"type": "overloaded_error"}}, 500),
    "odd code": ({"error": {"code": 40308}}, 500),
    "true": ({"error": {"code": True}}, 500),
    "null": ({"error": None, "output": []}, None),
    "empty": ({"error": {}}, None),
    "an answer about errors": ({"choices": [{"text": "error"}]}, None),
    "list": (["error"], None),
}


@pytest.mark.parametrize("name", ERRORS)
def test_answer_error(name: str) -> None:
    """Known forms of an error under a 200, and what only looks like one."""
    document, status = ERRORS[name]
    assert answer_error(json.dumps(document).encode()) == status


@pytest.mark.parametrize("name", ERRORS)
def test_stream_error(name: str) -> None:
    """The same as a stream's first event, after a keep-alive, under an event's name or not."""
    document, status = ERRORS[name]
    assert stream_error(sse(document)) == status
    assert stream_error(b": ping\n\nevent: error\n" + sse(document)) == status


def test_later_errors_are_not_the_first() -> None:
    """Only the first event with data decides."""
    assert stream_error(sse({"choices": []}, {"error": {"code": 400}})) is None
    assert stream_error(b": error\n\n") is None
    assert answer_error(b'{"error": tru') is None
