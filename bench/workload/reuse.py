"""How much of a workload's input a cache could at best have kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from bench.workload.model import Prompt, Session, Workload

__all__ = ["Reuse", "reuse"]


class Reuse(NamedTuple):
    """What one replica with an infinite prefix cache would find in it."""

    share: float
    """Part of all input tokens that a prompt before had at the same place; 0 if there are none."""
    tokens: int
    """Input tokens of all requests."""
    requests: int
    reused_tokens: int
    request_share: float
    """Mean over the requests of the part of each that was found."""


def reuse(workload: Workload | Iterable[Session]) -> Reuse:
    """The upper bound of a workload's prefix hit rate, at the granularity of its segments.

    Answers count as kept: an engine caches what it generated. The order of the requests makes no
    difference: each distinct prefix is missed once, whoever comes first.
    """
    sessions = workload.sessions if isinstance(workload, Workload) else workload
    kept: set[int] = set()
    tokens = reused_tokens = requests = 0
    shares = 0.0
    for session in sessions:
        for turn in session.turns:
            asked, found, prefix = _looked_up(turn.prompt, kept)
            kept.add(hash((prefix, turn.answer)))
            tokens += asked
            reused_tokens += found
            requests += 1
            shares += found / asked
    return Reuse(
        share=reused_tokens / max(1, tokens),
        tokens=tokens,
        requests=requests,
        reused_tokens=reused_tokens,
        request_share=shares / max(1, requests),
    )


def _looked_up(prompt: Prompt, kept: set[int]) -> tuple[int, int, int]:
    """Tokens of `prompt`, those found, and the chained hash of all of it, which is kept now."""
    asked = found = prefix = 0
    unbroken = True
    for segment in prompt:
        prefix = hash((prefix, segment.key))
        asked += segment.tokens
        if unbroken and prefix in kept:
            found += segment.tokens
        else:
            unbroken = False
            kept.add(prefix)
    return asked, found, prefix
