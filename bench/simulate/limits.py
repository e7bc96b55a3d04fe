"""What no policy can beat, to measure the others against."""

from __future__ import annotations

import math

import msgspec

from bench.engine import Profile
from bench.engine.kvcache import KVCache
from bench.workload.model import Segment, Turn, Workload, prompt_tokens

__all__ = ["least_ttft_s", "one_replica"]

_BLOCKS_WITHOUT_END = 1 << 50


def one_replica(profile: Profile, replicas: int) -> Profile:
    """One engine in place of `replicas`: as fast as all of them, with a cache that forgets nothing.

    Its hit rate is the most that placement can reach: every prompt meets all that came before it.
    """
    share = 1 / replicas
    return msgspec.structs.replace(
        profile,
        name=f"{replicas} x {profile.name} in one, infinite cache",
        step_s=profile.step_s * share,
        sequence_s=profile.sequence_s * share,
        weights_s=profile.weights_s * share,
        token_s=profile.token_s * share,
        attention_s=profile.attention_s * share,
        context_s=profile.context_s * share,
        expert_weights_s=profile.expert_weights_s * share,
        link_s=profile.link_s * share,
        kv_tokens=_BLOCKS_WITHOUT_END * profile.block_tokens,
        max_num_seqs=profile.max_num_seqs * replicas,
    )


def least_ttft_s(workload: Workload, profile: Profile) -> list[float]:
    """For each request a TTFT that no placement can undercut, in seconds.

    As if each found a replica that does nothing else and has kept all prompts and answers that any
    replica has seen before it. Requests are taken in the order of their due times, those of a
    closed loop in the order of the sessions.
    """
    cache = KVCache(_BLOCKS_WITHOUT_END, profile.block_tokens)
    bounds = []
    for turn in _in_order(workload):
        tokens = prompt_tokens(turn.prompt)
        segments = (*turn.prompt, Segment(turn.answer, turn.output_tokens))
        cached = cache.match(segments, tokens)
        held = cache.hold(segments, cached)
        cache.take(held, cache.needed(held, tokens + turn.output_tokens))
        cache.publish(held, tokens + turn.output_tokens)
        cache.release(held)
        bounds.append(_alone_s(profile, cached, tokens))
    return bounds


def _in_order(workload: Workload) -> list[Turn]:
    turns = [turn for session in workload.sessions for turn in session.turns]
    if workload.concurrency is None:
        turns.sort(key=lambda turn: math.inf if turn.due_s is None else turn.due_s)
    return turns


def _alone_s(profile: Profile, cached: int, tokens: int) -> float:
    """A prompt on an idle engine: its front end, then one step for each chunk."""
    seconds = profile.request_s + profile.request_token_s * tokens
    while cached < tokens:
        chunk = min(tokens - cached, profile.max_num_batched_tokens)
        seconds += profile.step_time_s(chunk, 1, attended=chunk * (cached + chunk / 2))
        cached += chunk
    return seconds
