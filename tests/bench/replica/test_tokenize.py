"""Prompts as token ids: what a gateway that balances by the engine's own tokens is told."""

from __future__ import annotations

from typing import Any

import trio

from bench.replica import ReplicaSettings, create_app
from bench.replica.asgi import Application
from tests.bench.replica.driver import chat, post

RENDER = "/v1/chat/completions/render"
TURN = [{"role": "user", "content": "What is a triolet?"}]


async def _rendered(app: Application, messages: list[dict[str, str]]) -> list[int]:
    answer = await post(app, RENDER, model="demo", messages=messages)
    assert answer.status == 200
    ids: list[int] = answer.json()["token_ids"]
    return ids


async def test_a_conversation_begins_with_its_earlier_turn() -> None:
    """The ids of a first turn are the beginning of the second's, template marks included."""
    app = create_app()
    first = await _rendered(app, TURN)
    answered = {"role": "assistant", "content": "A poem of eight lines."}
    second = await _rendered(app, [*TURN, answered, *TURN])
    assert second[: len(first)] == first
    assert len(second) > len(first)


async def test_ids_are_as_many_as_usage_says(autojump_clock: trio.testing.MockClock) -> None:
    """What is rendered is what would be computed."""
    app = create_app()
    usage = (await chat(app, TURN[0]["content"], max_tokens=1)).json()["usage"]
    assert len(await _rendered(app, TURN)) == usage["prompt_tokens"]


async def test_tokenize_counts_a_prompt() -> None:
    """The shape vLLM answers with; equal pieces have equal ids."""
    app = create_app()
    document: dict[str, Any] = (await post(app, "/tokenize", prompt=" one two one")).json()
    assert (document["count"], document["max_model_len"]) == (3, 8192)
    assert document["tokens"][0] == document["tokens"][2] != document["tokens"][1]
    whole = (await post(app, "/tokenize", messages=TURN)).json()
    assert whole["tokens"] == await _rendered(app, TURN)


async def test_what_cannot_be_tokenized_is_refused() -> None:
    """Nothing given, another model, and more than the context holds: each a 400 or 404."""
    app = create_app(ReplicaSettings(max_model_len=16))
    assert (await post(app, "/tokenize")).status == 400
    assert (await post(app, "/tokenize", model="other", prompt="x")).status == 404
    assert (await post(app, "/tokenize", prompt="word " * 17)).status == 400
    assert (
        await post(app, RENDER, messages=[{"role": "user", "content": "word " * 17}])
    ).status == 400
