"""What no policy can beat, to measure the others against."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import NamedTuple

from bench.engine import Profile
from bench.engine.kvcache import KVCache
from bench.workload.model import Segment, Session, Turn, Workload, prompt_tokens

__all__ = ["Found", "best_hit_rate", "found_at_best", "least_ttft_s"]

_BLOCKS_WITHOUT_END = 1 << 50


class Found(NamedTuple):
    """One prompt, and what of it a cache that forgets nothing would hold."""

    cached_tokens: int
    prompt_tokens: int


def found_at_best(workload: Workload, block_tokens: int, longest: int) -> list[Found]:
    """Each request as it would fare with one cache for all replicas that forgets nothing.

    Each finds, in whole blocks of `block_tokens`, all prompts and answers before it. The order of
    requests is that of their due times, those that follow an answer after all others; in a closed
    loop that of the sessions. Whoever comes first, each distinct block is missed once, so the hit
    rate does not depend on it. A turn of more than `longest` tokens and those after it in the
    session are refused under every policy, and left out here too.
    """
    cache = KVCache(_BLOCKS_WITHOUT_END, block_tokens)
    return [_found(cache, turn) for turn in _in_order(workload, longest)]


def best_hit_rate(found: Collection[Found]) -> float | None:
    """The share of all prompt tokens that placement can at best have found; None without any."""
    tokens = sum(each.prompt_tokens for each in found)
    return sum(each.cached_tokens for each in found) / tokens if tokens else None


def least_ttft_s(found: Collection[Found], fleet: Collection[Profile]) -> list[float]:
    """For each request a TTFT that no placement undercuts, in seconds: as if it met an engine of
    the fleet's fastest kind that does nothing else and holds all of `Found`.

    Where requests share a beginning, the later one has the advantage. A policy may by chance turn
    two of them round; it is the distribution that no policy can beat.
    """
    kinds = set(fleet)
    return [min(_alone_s(profile, *each) for profile in kinds) for each in found]


def _in_order(workload: Workload, longest: int) -> Iterator[Turn]:
    turns = (turn for session in workload.sessions for turn in _served(session, longest))
    if workload.concurrency is not None:
        return turns
    return iter(sorted(turns, key=lambda turn: math.inf if turn.due_s is None else turn.due_s))


def _served(session: Session, longest: int) -> Iterator[Turn]:
    for turn in session.turns:
        if prompt_tokens(turn.prompt) + turn.output_tokens > longest:
            return
        yield turn


def _found(cache: KVCache, turn: Turn) -> Found:
    tokens = prompt_tokens(turn.prompt)
    segments = (*turn.prompt, Segment(turn.answer, turn.output_tokens))
    cached = cache.match(segments, tokens)
    held = cache.hold(segments, cached)
    cache.take(held, cache.needed(held, tokens + turn.output_tokens))
    cache.publish(held, tokens + turn.output_tokens)
    cache.release(held)
    return Found(cached, tokens)


def _alone_s(profile: Profile, cached: int, tokens: int) -> float:
    """A prompt on an idle engine: its front end, then one step for each chunk."""
    seconds = profile.request_s + profile.request_token_s * tokens
    while cached < tokens:
        chunk = min(tokens - cached, profile.max_num_batched_tokens)
        seconds += profile.step_time_s(chunk, 1, attended=chunk * (cached + chunk / 2))
        cached += chunk
    return seconds
