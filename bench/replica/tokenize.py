"""Prompts as token ids, for gateways that ask the engine how a prompt is cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from zlib import crc32

import trio

from bench.replica.errors import context_exceeded
from bench.replica.requests import MESSAGE_MARKS, Message, Prompt
from bench.replica.tokens import pieces

__all__ = ["chat_ids", "prompt_ids"]

_BATCH = 4096
"""Tokens between two checkpoints: about a millisecond."""


async def chat_ids(messages: list[Message], at_most: int) -> list[int]:
    """The ids of a conversation, with the marks of a chat template after each message.

    One id for each piece of text, the same wherever it stands. Raises RequestError (400) if there
    are more than `at_most`.
    """
    return await _collected(_chat_pieces(messages), at_most)


async def prompt_ids(prompt: Prompt, at_most: int) -> list[int]:
    """The ids of a text; those of a list of ids are that list. Errors as of `chat_ids`."""
    if not isinstance(prompt, str):
        return prompt
    return await _collected(pieces(prompt), at_most)


def _chat_pieces(messages: list[Message]) -> Iterator[str]:
    for message in messages:
        yield from pieces(message.text)
        yield f"<{message.role}>"
        yield from MESSAGE_MARKS


async def _collected(texts: Iterable[str], at_most: int) -> list[int]:
    ids: list[int] = []
    remaining = iter(texts)
    while batch := [crc32(text.encode()) >> 1 for text in islice(remaining, _BATCH)]:
        ids += batch
        if len(ids) > at_most:
            raise context_exceeded(at_most, 0)
        await trio.lowlevel.checkpoint()
    return ids
