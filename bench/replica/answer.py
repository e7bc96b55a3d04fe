"""What the replica says: that it is a simulation, and how to get a real model."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import chain, count

from bench.replica.settings import ReplicaSettings
from bench.replica.tokens import split

EXCERPT_CHARS = 80
"""How much of the user's own words is repeated."""

_HELP = """

To get real answers, start an engine that speaks OpenAI's API (vLLM, SGLang, llama.cpp, Ollama) \
and point a [[pool]] at it in triolet.toml:

[[pool]]
model = "qwen3-8b"
replicas = ["http://127.0.0.1:8001"]

Then start Triolet again, or send it SIGHUP. Until then this replica keeps time like an engine, \
so that streaming, stop strings, limits and dropped connections can be tried without a GPU."""

_LINES = (
    " More tokens were asked for, so the simulated text goes on.",
    " No model runs here, and nothing is computed from your words.",
    " A real replica would use a GPU for this; the simulation only keeps time.",
    " Close the connection and generation stops at once.",
    " The replica's metrics carry vLLM's names, so a dashboard can be tried against them.",
    " The usage of this answer counts the pieces that the simulation sent.",
    " With a [[pool]] that points at a real engine, these lines are gone.",
    " From here the same simulated lines come again, in the same order.",
)
_LINE_PIECES = tuple(tuple(split(line)) for line in _LINES)


def opening(settings: ReplicaSettings, words: str, prompt_tokens: int) -> list[str]:
    """The tokens of an answer that ends by itself.

    `words` is what the user said last (empty if nothing); its beginning is repeated, which shows
    that it arrived.
    """
    text = f"This is Triolet's demo replica {settings.name}: a simulation, not a language model."
    # Sliced before it is split: the rest of a long prompt is never looked at.
    excerpt = " ".join(words[: 4 * EXCERPT_CHARS].split())
    if len(excerpt) > EXCERPT_CHARS:
        excerpt = excerpt[:EXCERPT_CHARS].rstrip() + "…"
    if excerpt:
        text += f" It received your message ({prompt_tokens} tokens) and can only repeat it:"
        text += f" “{excerpt}”."
    return split(text + _HELP)


def filled(settings: ReplicaSettings, beginning: list[str], seed: int) -> Iterator[str]:
    """`beginning` and then lines without end; the same for the same replica seed and `seed`."""
    first_line = zlib.crc32(f"{settings.seed}/{seed}".encode()) % len(_LINES)
    lines = (_LINE_PIECES[at % len(_LINES)] for at in count(first_line))
    return chain(beginning, chain.from_iterable(lines))
