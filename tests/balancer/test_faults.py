"""What a failure says, and of whom."""

from __future__ import annotations

import errno
from email.utils import formatdate

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.errors import (
    AnswerInvalid,
    AnswerLost,
    BalancerError,
    ConnectFailed,
    ConnectionLost,
    Overdue,
    PoolBusy,
    ReplicaRefused,
    StreamCut,
)
from balancer.faults import RETRY_AFTER_MAX_S, Fault, fault_of, is_context_too_long, retry_after_s


@pytest.mark.parametrize(
    ("failure", "fault"),
    [
        (ConnectFailed("r", "refused"), Fault.UNAVAILABLE),
        (AnswerLost("r", "reset"), Fault.UNAVAILABLE),
        (AnswerInvalid("r", "no HTTP"), Fault.UNAVAILABLE),
        (StreamCut("r", "reset"), Fault.UNAVAILABLE),
        (Overdue("first_byte", 1), Fault.UNAVAILABLE),
        (Overdue("idle", 1), Fault.UNAVAILABLE),
        (Overdue("total", 1), Fault.NOBODY),
        (PoolBusy("full", 1), Fault.OVERLOADED),
        (ConnectionLost("client"), Fault.NOBODY),
    ],
)
def test_failures_without_an_answer(failure: BalancerError, fault: Fault) -> None:
    """The replica's, except for the line, the client, and the limit on everything."""
    assert fault_of(failure) is fault


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        (errno.EMFILE, Fault.NOBODY),
        (errno.ENFILE, Fault.NOBODY),
        (errno.ECONNREFUSED, Fault.UNAVAILABLE),
    ],
)
def test_own_lack_of_descriptors(number: int, fault: Fault) -> None:
    """A connection that this process cannot open says nothing of the replica."""
    failure = ConnectFailed("r", "no")
    failure.__cause__ = OSError(number, "no")
    assert fault_of(failure) is fault


@pytest.mark.parametrize("status", range(400, 600))
def test_statuses(status: int) -> None:
    """429, 503 and 529 mean no room, other 5xx (and TGI's 424) a fault, other 4xx the caller."""
    fault = fault_of(ReplicaRefused("r", status, [], b'{"error":"no"}'))
    if status in (429, 503, 529):
        assert fault is Fault.OVERLOADED
    else:
        assert fault is (Fault.UNAVAILABLE if status >= 500 or status == 424 else Fault.CALLER)


def test_what_is_no_failure_of_ours() -> None:
    """A bug is not explained away."""
    with pytest.raises(ZeroDivisionError):
        fault_of(ZeroDivisionError())


def nested(message: str, **more: object) -> bytes:
    return msgspec.json.encode({"error": {"message": message, **more}})


TOO_LONG = {
    "OpenAI": nested(
        "This model's maximum context length is 8192 tokens. However, your messages resulted in "
        "9000 tokens.",
        code="context_length_exceeded",
    ),
    "a code alone": nested("no", code="context_length_exceeded"),
    "vLLM, output": nested(
        "'max_tokens' or 'max_completion_tokens' is too large: 8000. This model's maximum context "
        "length is 4096 tokens and your request has 2778 input tokens (8000 > 4096 - 2778).",
        type="BadRequestError",
        code=400,
    ),
    "vLLM, renderer": nested(
        "You passed 9001 input tokens and requested 0 output tokens. However, the model's context "
        "length is only 8192 tokens, resulting in a maximum input length of 8192 tokens. Please "
        "reduce the length of the input prompt.",
        code=400,
    ),
    "vLLM, engine": nested(
        "The decoder prompt (length 12324) is longer than the maximum model length of 8192. Make "
        "sure that `max_model_len` is no smaller than the number of text tokens."
    ),
    "vLLM, before 0.9": msgspec.json.encode(
        {
            "object": "error",
            "message": "This model's maximum context length is 1024 tokens. However, you requested "
            "2000 tokens in the messages, Please reduce the length of the messages.",
            "type": "BadRequestError",
            "code": 400,
        }
    ),
    "SGLang": msgspec.json.encode(
        {
            "object": "error",
            "message": "The input (12345 tokens) is longer than the model's context length (8192 "
            "tokens).",
            "type": "BadRequestError",
            "code": 400,
        }
    ),
    "SGLang, total": msgspec.json.encode(
        {
            "object": "error",
            "message": "Requested token count exceeds the model's maximum context length of 64000 "
            "tokens. You requested a total of 71897 tokens.",
        }
    ),
    "SGLang, scheduler": nested(
        "Input length (600013 tokens) exceeds the maximum allowed length (536826 tokens). Use a "
        "shorter input or enable --allow-auto-truncate.",
        code=400,
    ),
    "llama.cpp": nested(
        "request (13392 tokens) exceeds the available context size (8192 tokens), try increasing "
        "it",
        code=400,
        type="exceed_context_size_error",
        n_prompt_tokens=13392,
        n_ctx=8192,
    ),
    "llama.cpp, before": nested(
        "the request exceeds the available context size. try increasing the context size",
        code=400,
        type="invalid_request_error",
    ),
    "TGI, input": msgspec.json.encode(
        {
            "error": "Input validation error: `inputs` must have less than 1024 tokens. Given: 2",
            "error_type": "validation",
        }
    ),
    "TGI, total": msgspec.json.encode(
        {
            "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. "
            "Given: 10 `inputs` tokens and 4096 `max_new_tokens`",
            "error_type": "validation",
        }
    ),
    "Ollama": nested(
        "the prompt is longer than the context length currently available to the model; shorten "
        "the prompt",
        type="invalid_request_error",
    ),
    "Ollama, embeddings": msgspec.json.encode(
        {"error": "the input length exceeds the context length"}
    ),
    "TensorRT-LLM": msgspec.json.encode(
        {
            "object": "error",
            "message": "The sum of prompt length (9351.0), query length (0) should not exceed "
            "max_num_tokens (8192)",
        }
    ),
    "a FastAPI server": msgspec.json.encode(
        {"detail": "The input (9 tokens) is longer than the model's context length (8 tokens)."}
    ),
}


@pytest.mark.parametrize("engine", TOO_LONG)
def test_context_too_long(engine: str) -> None:
    """What each engine says, under whichever status: the first event of a stream has none."""
    assert is_context_too_long(TOO_LONG[engine])
    for status in (400, 413, 422, 500):
        assert fault_of(ReplicaRefused("r", status, [], TOO_LONG[engine])) is Fault.CONTEXT
    assert fault_of(ReplicaRefused("r", 429, [], TOO_LONG[engine])) is Fault.OVERLOADED


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"maximum context length",  # no JSON: a proxy's page, say
        b'{"error":{"message":"temperature must be non-negative"}}',
        b'{"error":{"message":"`max_new_tokens` must be strictly positive"}}',
        b'{"error":{"message":7,"code":400,"type":null}}',
        b'{"error":["maximum context length"]}',
        b'{"prompt":"maximum context length","error":"no"}',
        b'{"error":"\xff"}',
        b"[" * 100_000,
        nested("x" * 70_000 + "maximum context length"),
    ],
)
def test_other_errors(body: bytes) -> None:
    """Nothing else is taken for it, and nothing that a replica sends raises."""
    assert not is_context_too_long(body)


@given(st.binary(max_size=200))
def test_any_bytes(body: bytes) -> None:
    """The same for any bytes."""
    assert is_context_too_long(body) in (True, False)


NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], None),
        ([(b"retry-after", b"3")], 3),
        ([(b"retry-after", b" 1.5 ")], 1.5),
        ([(b"retry-after", b"0")], 0),
        ([(b"retry-after", b"3600")], RETRY_AFTER_MAX_S),
        ([(b"retry-after", b"-3")], None),
        ([(b"retry-after", b"soon")], None),
        ([(b"retry-after", b"\xff")], None),
        ([(b"retry-after", b"9" * 400)], None),
        ([(b"retry-after", b"3"), (b"retry-after-ms", b"250")], 0.25),
        ([(b"retry-after-ms", b"x"), (b"retry-after", b"3")], 3),
        ([(b"retry-after", formatdate(NOW + 7, usegmt=True).encode())], 7),
        ([(b"retry-after", formatdate(NOW - 7, usegmt=True).encode())], 0),
        ([(b"retry-after", b"Fri, 15 Jan 2027 08:00:20 -0000")], 20),
        ([(b"retry-after", b"Fri, 31 Dec 9999 23:59:59 GMT")], RETRY_AFTER_MAX_S),
        ([(b"retry-after", b"Fri, 99 Dec 9999 23:59:59 GMT")], None),
    ],
)
def test_retry_after(headers: list[tuple[bytes, bytes]], seconds: float | None) -> None:
    """Seconds, milliseconds or a date; bounded; what cannot be read is not there."""
    assert retry_after_s(headers, wall_time_s=NOW) == seconds


@given(st.binary(max_size=60))
def test_any_retry_after(value: bytes) -> None:
    """Whatever a replica sends, it is a wait within the bounds or nothing."""
    wait_s = retry_after_s([(b"retry-after", value)], wall_time_s=NOW)
    assert wait_s is None or 0 <= wait_s <= RETRY_AFTER_MAX_S
