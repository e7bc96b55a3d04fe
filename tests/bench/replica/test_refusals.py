"""Everything the replica refuses, and the paths that show what it is."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

import pytest
import trio
import trio.testing

from bench.replica import ReplicaSettings, create_app
from bench.replica.asgi import Event
from tests.bench.replica.driver import Answer, call, chat, post

CHAT = "/v1/chat/completions"


def check_error(answer: Answer, status: int, kind: str, *words: str) -> dict[str, Any]:
    """The one shape of all errors; returns what is inside."""
    document = answer.json()
    assert answer.status == status
    assert [*document] == ["error"]
    error: dict[str, Any] = document["error"]
    assert [*error] == ["message", "type", "param", "code"]
    assert (error["type"], error["code"]) == (kind, status)
    for word in words:
        assert word in error["message"]
    return error


async def test_malformed_json_names_the_place() -> None:
    """400 with the byte at fault."""
    answer = await call(create_app(), "POST", CHAT, b'{"messages": [}')
    check_error(answer, 400, "Bad Request", "not valid JSON", "byte 14")


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b'{"messages":"\xc3"}', b'{"stop":"\\ud800"}'])
async def test_bytes_that_are_no_text(body: bytes) -> None:
    """400 for an empty body, for bytes that are not UTF-8 and for half a surrogate pair."""
    assert (await call(create_app(), "POST", CHAT, body)).status == 400


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": 5}]}, "messages"),
        ({"messages": [], "max_tokens": "5"}, "max_tokens"),
        ({"messages": [], "stream": "yes"}, "stream"),
        ({"messages": [], "stop": [1]}, "stop"),
        ({}, None),
    ],
)
async def test_wrong_types_name_the_field(fields: dict[str, Any], param: str | None) -> None:
    """400 with the field at fault."""
    error = check_error(await post(create_app(), CHAT, **fields), 400, "Bad Request")
    assert error["param"] == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"max_tokens": 8192}, "max_tokens"),
        ({"stop": ""}, "stop"),
        ({"stop": ["x"] * 65}, "stop"),
        ({"stop": "x" * 1025}, "stop"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
    ],
)
async def test_values_out_of_range(fields: dict[str, Any], param: str) -> None:
    """400 for values that cannot be served, before anything is started."""
    error = check_error(await chat(create_app(), **fields), 400, "BadRequestError")
    assert error["param"] == param


async def test_no_messages() -> None:
    """400 for a chat without messages."""
    check_error(await post(create_app(), CHAT, messages=[]), 400, "BadRequestError", "messages")


@pytest.mark.parametrize("limit", [None, 10])
async def test_prompt_longer_than_the_context(limit: int | None) -> None:
    """400 with the numbers that clients read out of vLLM's sentence."""
    app = create_app(ReplicaSettings(max_model_len=64))
    answer = await chat(app, "word " * 100, max_tokens=limit)
    output = limit or 1
    error = check_error(
        answer,
        400,
        "BadRequestError",
        "maximum context length is 64 tokens",
        f"requested {output} output tokens",
        f"at least {65 - output} input tokens",
    )
    assert error["param"] == "input_tokens"


async def test_prompt_that_just_fits(autojump_clock: trio.testing.MockClock) -> None:
    """Prompt and answer may fill the context to the last token, and no further."""
    app = create_app(ReplicaSettings(max_model_len=64))
    words = 64 - 4 - 10
    assert (await chat(app, "word " * words, max_tokens=9)).status == 200
    assert (await chat(app, "word " * (words - 1) + "word", max_tokens=10)).status == 200
    assert (await chat(app, "word " * words + "word", max_tokens=10)).status == 400


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/embeddings"])
async def test_unknown_model(path: str) -> None:
    """404 in vLLM's words."""
    fields = {"messages": [], "prompt": "x", "input": "x"}
    answer = await post(create_app(), path, model="gpt-9", **fields)
    error = check_error(answer, 404, "NotFoundError", "The model `gpt-9` does not exist.")
    assert error["param"] == "model"


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/completions", {"prompt": []}),
        ("/v1/completions", {"prompt": ["x", 1]}),
        ("/v1/completions", {"prompt": [[1], "x"]}),
        ("/v1/completions", {"prompt": ["x"] * 65}),
        ("/v1/completions", {}),
        ("/v1/embeddings", {"input": ["x"] * 2049}),
        ("/v1/embeddings", {"input": "x", "dimensions": 0}),
        ("/v1/embeddings", {"input": "x", "dimensions": 385}),
        ("/v1/embeddings", {"input": "x", "encoding_format": "bytes"}),
        ("/v1/embeddings", {"input": "x " * 9000}),
    ],
)
async def test_other_bodies_that_cannot_be_served(path: str, fields: dict[str, Any]) -> None:
    """400 for completions and embeddings that make no sense."""
    assert (await post(create_app(), path, **fields)).status == 400


@pytest.mark.parametrize("headers", [(), ((b"content-type", b"text/plain"),)])
async def test_wrong_content_type(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    """400, as vLLM has it, for a body that does not say it is JSON."""
    answer = await call(create_app(), "POST", CHAT, b"{}", headers=headers)
    check_error(answer, 400, "Bad Request", "application/json")


async def test_body_too_large() -> None:
    """413 as soon as the bound is passed, without reading on."""
    pieces = [b"x" * 60, b"x" * 60, b"never read"]
    answer = await call(create_app(ReplicaSettings(max_body_bytes=100)), "POST", CHAT, pieces)
    check_error(answer, 413, HTTPStatus(413).phrase, "100 bytes")
    assert pieces == [b"never read"]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", CHAT, "POST"),
        ("POST", "/health", "GET, HEAD"),
        ("DELETE", "/v1/models", "GET, HEAD"),
    ],
)
async def test_wrong_method(method: str, path: str, allow: str) -> None:
    """405 with what is allowed."""
    answer = await call(create_app(), method, path)
    check_error(answer, 405, "Method Not Allowed", allow)
    assert answer.headers["allow"] == allow


async def test_unknown_path() -> None:
    """404 that says what there is."""
    check_error(await call(create_app(), "GET", "/v1/nothing"), 404, "Not Found", "/v1/models")


async def test_models_say_what_they_are() -> None:
    """The model card carries its length and says in three places that it is a simulation."""
    app = create_app(ReplicaSettings(model="m", max_model_len=100))
    document = (await call(app, "GET", "/v1/models")).json()
    card = document["data"][0]
    assert document["object"] == "list"
    assert (card["id"], card["object"], card["max_model_len"]) == ("m", "model", 100)
    assert card["owned_by"] == "triolet-demo-simulation"
    assert card["simulation"] is True
    assert "not a language model" in card["description"]


async def test_health_and_version() -> None:
    """Health is an empty 200; the version says simulation, and so does a header on every answer."""
    health = await call(create_app(), "GET", "/health")
    assert (health.status, health.body) == (200, b"")
    version = await call(create_app(), "GET", "/version")
    assert "simulation" in version.json()["version"]
    assert version.headers["x-triolet-simulation"] == "demo-replica"


@pytest.mark.parametrize("path", ["/health", "/version", "/metrics", "/v1/models", "/nothing"])
async def test_head_is_get_without_a_body(path: str) -> None:
    """HEAD has the headers of GET, its length included, and no body."""
    get = await call(create_app(), "GET", path)
    head = await call(create_app(), "HEAD", path)
    assert (head.status, head.headers, head.body) == (get.status, get.headers, b"")


async def test_lifespan_and_websocket() -> None:
    """Startup and shutdown are both answered; a websocket is closed."""
    for kind, events, answers in (
        (
            "lifespan",
            ["lifespan.startup", "lifespan.shutdown"],
            ["lifespan.startup.complete", "lifespan.shutdown.complete"],
        ),
        ("websocket", ["websocket.connect"], ["websocket.close"]),
    ):
        waiting = [*events]
        sent: list[str] = []

        async def receive(waiting: list[str] = waiting) -> Event:
            await trio.lowlevel.checkpoint()
            return {"type": waiting.pop(0)}

        async def send(event: Event, sent: list[str] = sent) -> None:
            await trio.lowlevel.checkpoint()
            sent.append(event["type"])

        await create_app()({"type": kind, "path": "/", "headers": []}, receive, send)
        assert sent == answers


async def test_large_prompt_is_refused_quickly() -> None:
    """A prompt of megabytes is counted only as far as the context reaches."""
    text = "a " * 2_000_000
    body = json.dumps({"messages": [{"role": "user", "content": text}]}).encode()
    with trio.fail_after(5):
        assert (await call(create_app(), "POST", CHAT, body)).status == 400
