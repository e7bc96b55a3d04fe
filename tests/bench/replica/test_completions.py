"""Completions and embeddings."""

from __future__ import annotations

import base64
import math
import struct

import pytest
import trio.testing

from bench.replica import ReplicaSettings, create_app
from tests.bench.replica.driver import post


async def test_completion_document(autojump_clock: trio.testing.MockClock) -> None:
    """A completion has vLLM's fields, and 16 tokens where no limit is named."""
    document = (await post(create_app(), "/v1/completions", model="demo", prompt="Once")).json()
    assert document["object"] == "text_completion"
    assert document["id"].startswith("cmpl-")
    assert document["choices"][0]["text"].startswith("This is Triolet's demo replica demo-0")
    assert document["choices"][0]["finish_reason"] == "length"
    usage = document["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (1, 16)


@pytest.mark.parametrize(
    ("prompt", "choices", "tokens"),
    [("a b", 1, 2), (["a b", "c"], 2, 3), ([5, 6, 7], 1, 3), ([[5, 6], [7]], 2, 3)],
)
async def test_prompts_of_every_form(
    autojump_clock: trio.testing.MockClock, prompt: object, choices: int, tokens: int
) -> None:
    """Each prompt has its own choice, streamed or not, and all are counted."""
    app = create_app(ReplicaSettings(ttft_s=1, tokens_per_s=10))
    whole = await post(app, "/v1/completions", prompt=prompt, max_tokens=5)
    stream = await post(app, "/v1/completions", prompt=prompt, max_tokens=5, stream=True)
    assert len(whole.json()["choices"]) == choices
    assert whole.json()["usage"]["prompt_tokens"] == tokens
    assert whole.json()["usage"]["completion_tokens"] == 5 * choices
    for index in range(choices):
        assert stream.text(index) == whole.text(index)
        times = [at for at, _ in stream.choices(index)]
        assert times == pytest.approx([1.0, 1.1, 1.2, 1.3, 1.4])


async def test_embeddings(autojump_clock: trio.testing.MockClock) -> None:
    """Each text has a unit vector that depends on the text alone, when a first token is due."""
    app = create_app(ReplicaSettings(ttft_s=0.3, embedding_dimensions=32))
    other = create_app(ReplicaSettings(name="demo-1", seed=9, embedding_dimensions=32))
    answer = await post(app, "/v1/embeddings", model="demo", input=["one", "two words", "one"])
    assert answer.chunks[0][0] == pytest.approx(0.3)
    document = answer.json()
    vectors = [entry["embedding"] for entry in document["data"]]
    assert [entry["index"] for entry in document["data"]] == [0, 1, 2]
    assert [len(vector) for vector in vectors] == [32] * 3
    assert [math.hypot(*vector) for vector in vectors] == pytest.approx([1.0] * 3)
    assert vectors[0] == vectors[2] != vectors[1]
    assert (document["usage"]["prompt_tokens"], document["usage"]["total_tokens"]) == (4, 4)
    single = (await post(other, "/v1/embeddings", input="one")).json()
    assert single["data"][0]["embedding"] == vectors[0]


async def test_embeddings_as_base64(autojump_clock: trio.testing.MockClock) -> None:
    """The base64 form holds exactly the numbers of the other form, as 32-bit floats."""
    app = create_app()
    plain, packed = [
        (await post(app, "/v1/embeddings", input="x", dimensions=10, encoding_format=form)).json()
        for form in ("float", "base64")
    ]
    numbers = struct.unpack("<10f", base64.b64decode(packed["data"][0]["embedding"]))
    assert [*numbers] == plain["data"][0]["embedding"]
