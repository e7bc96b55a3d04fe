"""A workload: sessions of turns, each turn a prompt made of segments.

A segment stands for a stretch of text: two prompts that begin with the same segments share exactly
their tokens. The simulator works on the segments themselves, the load client renders each as words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Literal, NamedTuple

import msgspec

__all__ = [
    "Prompt",
    "Replayable",
    "Role",
    "Segment",
    "Session",
    "Turn",
    "Workload",
    "prompt_tokens",
    "segment_key",
]

Role = Literal["system", "user", "assistant"]


class Segment(NamedTuple):
    """A stretch of a prompt. Same key, same text: `tokens` and `role` may not differ then."""

    key: int
    """Identity, 63 bits; see `segment_key` for one made from names."""
    tokens: int
    """1 or more."""
    role: Role = "user"


Prompt = tuple[Segment, ...]


def prompt_tokens(prompt: Prompt) -> int:
    """Tokens of the whole prompt."""
    return sum(segment.tokens for segment in prompt)


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One request."""

    prompt: Prompt
    """All of it, history included. A segment with the key of an earlier turn's `answer` is that
    answer: the load client puts in the text it really got."""
    output_tokens: int
    """1 or more."""
    answer: int
    """The key under which a later turn may repeat this turn's answer."""
    due_s: float | None = None
    """When it is sent in an open loop, in seconds from the start; None: after the turn before."""
    delay_s: float = 0.0
    """Think time: from the end of the answer before it (a session's first turn: from the moment
    the session may begin) until it is sent. Counts only if `due_s` is None."""


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """Turns that follow one another: a conversation, an agent's work."""

    id: int
    turns: Sequence[Turn]
    tenant: str = ""
    tier: str = "interactive"
    group: int = 0
    """Sessions of one group (not 0) are branches of one fan-out and start together."""
    texts: Mapping[int, str] = {}
    """The text of segments that were recorded as text, by key; any other segment is rendered as
    words. The simulator needs none of it."""


class Replayable(Iterable[Session]):
    """Sessions made anew for every iteration, so that a workload is never held in memory."""

    def __init__(self, begin: Callable[[], Iterator[Session]]) -> None:
        """`begin` must yield the same sessions each time it is called."""
        self._begin = begin

    def __iter__(self) -> Iterator[Session]:
        return self._begin()


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """Sessions in the order of their coming."""

    name: str
    sessions: Iterable[Session]
    """Can be iterated more than once, with the same result each time."""
    concurrency: int | None = None
    """Sessions at once in a closed loop; None: every session begins when its first turn is due."""
    about: str = ""
    """One sentence: what it stands for, and where its numbers come from."""


def segment_key(*names: object) -> int:
    """A key made from `names` (strings and numbers), the same in every process and version."""
    named = "\x1f".join(map(str, names)).encode()
    return int.from_bytes(blake2b(named, digest_size=8).digest(), "big") >> 1
