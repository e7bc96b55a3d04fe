"""Sequences whose answer is given as blocks, and forgetting the prefix cache."""

from __future__ import annotations

import math

from bench.engine import Engine, Sequence, find_profile
from bench.workload.model import Prompt, Segment

PROFILE = find_profile("h100-llama-8b")


def blocks(*names: str) -> Prompt:
    return tuple(Segment(hash(name), 16) for name in names)


def finish(engine: Engine, sequence: Sequence, now_s: float) -> float:
    """Let it run alone; the time at which it is over."""
    engine.submit(sequence, now_s)
    while (at_s := engine.next_s()) < math.inf:
        now_s = at_s
        engine.advance(now_s)
    assert sequence.state == "finished"
    return now_s


def test_next_prompt_finds_the_block_between_prompt_and_answer() -> None:
    """The block in which a prompt ends and its answer begins is found as any other."""
    engine = Engine(PROFILE)
    # 40 + 30 tokens: the third block is begun by the prompt; of the fifth there are six tokens.
    first = Sequence(blocks("a", "b"), 30, blocks("c", "d"), tokens=40)
    now_s = finish(engine, first, 0.0)
    again = Sequence(blocks("a", "b", "c", "d", "e"), 5, (), tokens=85)
    now_s = finish(engine, again, now_s)
    assert again.cached_tokens == 64
    repeated = Sequence(blocks("a", "b"), 30, blocks("c", "d"), tokens=40)
    finish(engine, repeated, now_s)
    # What stands behind the prompt is there, but is not asked for.
    assert repeated.cached_tokens == 32


def test_blocks_take_as_long_as_one_segment() -> None:
    """Times do not depend on how a text is cut."""
    whole = Sequence((Segment(1, 40),), 30, 2)
    cut = Sequence(blocks("a", "b"), 30, blocks("c", "d"), tokens=40)
    ends_s = [finish(Engine(PROFILE), sequence, 0.0) for sequence in (whole, cut)]
    assert ends_s[0] == ends_s[1]
    assert whole.first_token_s == cut.first_token_s


def test_reset_cache_forgets_what_nobody_uses() -> None:
    """After it nothing idle is found; what a running sequence holds is still shared."""
    engine = Engine(PROFILE)
    now_s = finish(engine, Sequence((Segment(1, 160),), 10, 2), 0.0)
    engine.reset_cache(now_s)
    other = Sequence((Segment(1, 160),), 1000, 3)
    engine.submit(other, now_s)
    now_s += 1.0
    engine.advance(now_s)
    assert (other.state, other.cached_tokens) == ("decode", 0)
    engine.reset_cache(now_s)
    sharing = Sequence((Segment(1, 160),), 10, 4)
    finish(engine, sharing, now_s)
    assert sharing.cached_tokens == 144
    assert engine.snapshot().kv_usage == 0
