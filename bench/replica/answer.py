"""What the replica says: that it is a simulation, and how to get a real model."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import chain, count, islice
from typing import Final

import msgspec
import trio

from bench.replica.settings import ReplicaSettings
from bench.replica.stats import FinishReason
from bench.replica.stops import StopScan
from bench.replica.tokens import split

__all__ = ["Answer", "Limits", "filled", "opening", "write"]

_BATCH: Final = 8192
_SCAN_BATCH: Final = 512

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


_HELP_PIECES: Final = tuple(split(_HELP))


class Answer(msgspec.Struct, frozen=True):
    """A whole answer, before its first token is due."""

    pieces: list[str]
    """Its tokens, those of a stop string included."""
    released: list[str]
    """The text that each of them releases, maybe none: a stop string is held back."""
    reason: FinishReason
    stop_reason: str | None = None
    """The stop string that ends it, if one does."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Where an answer ends."""

    max_tokens: int | None
    """As asked for; None: when the text is complete."""
    room: int
    """Tokens that the context leaves."""
    ignore_eos: bool = False
    stops: tuple[str, ...] = ()
    include_stop: bool = False


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
    # What follows begins with white space: split apart, the tokens are those of the whole.
    return [*split(text), *_HELP_PIECES]


def filled(settings: ReplicaSettings, beginning: list[str], seed: int) -> Iterator[str]:
    """`beginning` and then lines without end; the same for the same replica seed and `seed`."""
    first_line = zlib.crc32(f"{settings.seed}/{seed}".encode()) % len(_LINES)
    lines = (_LINE_PIECES[at % len(_LINES)] for at in count(first_line))
    return chain(beginning, chain.from_iterable(lines))


async def write(
    settings: ReplicaSettings, words: str, prompt_tokens: int, seed: int, limits: Limits
) -> Answer:
    """The answer to a prompt of which `words` were said last."""
    beginning = opening(settings, words, prompt_tokens)
    tokens, reason = limits.max_tokens or limits.room, FinishReason.LENGTH
    complete = limits.max_tokens is None and not limits.ignore_eos
    if complete and len(beginning) <= limits.room:
        tokens, reason = len(beginning), FinishReason.STOP
    pieces = filled(settings, beginning, seed)
    if limits.stops:
        return await _until_stop(islice(pieces, tokens), limits, reason)
    text: list[str] = []
    while batch := [*islice(pieces, min(_BATCH, tokens - len(text)))]:
        text += batch
        if len(batch) == _BATCH:
            await trio.lowlevel.checkpoint()
    return Answer(text, text, reason)


async def _until_stop(pieces: Iterator[str], limits: Limits, reason: FinishReason) -> Answer:
    scan = StopScan(limits.stops, include=limits.include_stop)
    text: list[str] = []
    released: list[str] = []
    for piece in pieces:
        text.append(piece)
        released.append(scan.feed(piece))
        if scan.found is not None:
            return Answer(text, released, FinishReason.STOP, scan.found)
        if len(text) % _SCAN_BATCH == 0:
            await trio.lowlevel.checkpoint()
    released[-1] += scan.flush()
    return Answer(text, released, reason)
