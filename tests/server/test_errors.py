"""Errors as clients see them: status, type, code and shape, for each kind and each API."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from balancer.errors import (
    AnswerInvalid,
    AnswerLost,
    AttemptFailed,
    BalancerError,
    ConnectFailed,
    ConnectionLost,
    Overdue,
    PoolBusy,
    ReplicaLost,
    ReplicaRefused,
    StreamCut,
)
from balancer.wire.sse import data_of, events_of
from server.errors import (
    ApiError,
    Dialect,
    RelayedError,
    error_body,
    error_event,
    from_balancer,
)

REPLICA: Final = "http://r:1"
DIALECTS: Final[tuple[Dialect, ...]] = ("openai", "responses", "anthropic")

KINDS: Final[list[tuple[BalancerError, int, str, str]]] = [
    (ConnectFailed(REPLICA, "refused"), 502, "replica_unreachable", "connect"),
    (AnswerLost(REPLICA, "reset"), 502, "replica_failed", "reset"),
    (ReplicaLost(REPLICA, "a GPU is lost"), 502, "replica_failed", "lost"),
    (AnswerInvalid(REPLICA, "garbage"), 502, "replica_failed", "invalid"),
    (StreamCut(REPLICA, "reset"), 502, "replica_failed", "cut"),
    (Overdue("first_byte", 120.0), 504, "replica_timeout", "timeout_first_byte"),
    (Overdue("idle", 30.0), 504, "replica_timeout", "timeout_idle"),
    (Overdue("total", 600.0), 504, "replica_timeout", "timeout_total"),
    (PoolBusy("all full", 5), 503, "overloaded", "busy"),
    (AttemptFailed(REPLICA, "somehow"), 500, "internal_error", "attempt"),
    (BalancerError("somehow"), 500, "internal_error", "balancer"),
    (ConnectionLost("reset"), 500, "internal_error", "connection_lost"),
]


@pytest.mark.parametrize(
    ("error", "status", "code", "kind"), KINDS, ids=[kind for *_, kind in KINDS]
)
def test_every_failure_on_the_way_has_an_answer(
    error: BalancerError, status: int, code: str, kind: str
) -> None:
    """One status, one code and one short name for metrics; all of them the server's fault."""
    told = from_balancer(error)
    assert (told.status, told.code, told.kind) == (status, code, kind)
    assert told.type == "server_error"
    assert told.param is None
    body = json.loads(error_body(told))
    assert body == {
        "error": {"message": told.message, "type": "server_error", "param": None, "code": code}
    }


def test_every_kind_of_failure_is_listed_here() -> None:
    """A new class of the balancer needs an answer and a line in the table above."""

    def below(cls: type[BalancerError]) -> set[type[BalancerError]]:
        return {cls}.union(*(below(child) for child in cls.__subclasses__()))

    # Others (the load client, say) may have kinds of their own, which never reach a server.
    ours = {cls for cls in below(BalancerError) if cls.__module__ == BalancerError.__module__}
    assert ours == {type(error) for error, *_ in KINDS} | {ReplicaRefused}


def test_messages_name_what_was_wrong() -> None:
    """The replica where one failed; the limit, with its value, where time was up."""
    assert REPLICA in from_balancer(ConnectFailed(REPLICA, "refused")).message
    assert "refused" in from_balancer(ConnectFailed(REPLICA, "refused")).message
    assert "timeouts.first_byte_s (120 s)" in from_balancer(Overdue("first_byte", 120.0)).message
    assert "stalled" in from_balancer(Overdue("idle", 30.0)).message


def test_a_full_pool_says_when_to_come_back() -> None:
    """503 with Retry-After: the SDKs wait that long and try again."""
    assert (b"retry-after", b"5") in from_balancer(PoolBusy("full", 5)).headers


@pytest.mark.parametrize("phase", ["first_byte", "idle", "total"])
def test_time_that_is_up_is_not_to_be_tried_again(phase: Any) -> None:
    """The SDKs obey x-should-retry: a slow replica gets no second and third request."""
    assert (b"x-should-retry", b"false") in from_balancer(Overdue(phase, 1.0)).headers


def test_a_replicas_refusal_is_passed_on() -> None:
    """Status, headers and body are the replica's own."""
    refused = ReplicaRefused(REPLICA, 429, [(b"retry-after", b"9")], b'{"error": "slow down"}')
    told = from_balancer(refused)
    assert isinstance(told, RelayedError)
    assert (told.status, told.body, told.kind) == (429, b'{"error": "slow down"}', "status")
    assert told.replica_headers == [(b"retry-after", b"9")]


def test_kind_falls_back_to_code_and_type() -> None:
    """What metrics and logs call an error is never empty."""
    assert ApiError(400, "m").kind == "invalid_request_error"
    assert ApiError(400, "m", code="c").kind == "c"
    assert ApiError(400, "m", code="c", kind="k").kind == "k"


NOT_FOUND: Final = ApiError(404, "no “such” \n model", code="model_not_found", param="model")


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        (
            "openai",
            {
                "error": {
                    "message": NOT_FOUND.message,
                    "type": "invalid_request_error",
                    "param": "model",
                    "code": "model_not_found",
                }
            },
        ),
        (
            "anthropic",
            {
                "type": "error",
                "error": {"type": "not_found_error", "message": NOT_FOUND.message},
            },
        ),
    ],
)
def test_bodies(dialect: Dialect, expected: dict[str, Any]) -> None:
    """The shapes that the official SDKs parse, word by word."""
    assert json.loads(error_body(NOT_FOUND, dialect)) == expected


def test_the_responses_api_has_openais_bodies() -> None:
    """Only its stream events differ."""
    assert error_body(NOT_FOUND, "responses") == error_body(NOT_FOUND, "openai")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (405, "invalid_request_error"),
        (413, "request_too_large"),
        (415, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
    ],
)
def test_anthropics_types(status: int, kind: str) -> None:
    """Its clients switch on the type, which follows from the status."""
    assert json.loads(error_body(ApiError(status, "m"), "anthropic"))["error"]["type"] == kind


@pytest.mark.parametrize("dialect", DIALECTS)
def test_events_are_one_well_formed_event(dialect: Dialect) -> None:
    """In a stream: one event, whatever the message holds, and no [DONE]."""
    event = error_event(NOT_FOUND, dialect)
    assert event.endswith(b"\n\n")
    assert b"[DONE]" not in event
    (one,) = list(events_of(event))
    data = json.loads(data_of(one))
    if dialect == "openai":
        assert data == json.loads(error_body(NOT_FOUND))
        assert not event.startswith(b"event:")
    else:
        assert event.startswith(b"event: error\n")
        assert data["type"] == "error"
    if dialect == "responses":
        assert data == {
            "type": "error",
            "code": "model_not_found",
            "message": NOT_FOUND.message,
            "param": "model",
        }
    if dialect == "anthropic":
        assert data == json.loads(error_body(NOT_FOUND, "anthropic"))
