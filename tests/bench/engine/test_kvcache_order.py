"""The order of use is kept tidy."""

from __future__ import annotations

from random import Random

from bench.engine.kvcache import KVCache
from bench.workload.model import Segment


def _use(cache: KVCache, prompt: tuple[Segment, ...], tokens: int) -> int:
    cached = cache.match(prompt, tokens)
    held = cache.hold(prompt, cached)
    cache.take(held, cache.needed(held, tokens))
    cache.publish(held, tokens)
    cache.release(held)
    return cached


def test_the_order_of_use_does_not_grow_with_requests() -> None:
    """A hundred nodes used two thousand times leave a bounded list, not 200,000 entries."""
    cache = KVCache(1000, 16)
    prompt = tuple(Segment(key, 16) for key in range(100))
    for _ in range(2000):
        _use(cache, prompt, 1600)
    assert len(cache._order) < 10_000


def test_tidying_changes_nothing() -> None:
    """A cache that tidies all the time finds what one that never does finds."""
    often, never = KVCache(200, 16), KVCache(200, 16)
    random = Random(1)
    for _ in range(400):
        often._tidy_at, never._tidy_at = 0, 1 << 40
        conversation = random.randrange(6)
        turns = random.randrange(1, 12)
        prompt = tuple(Segment(100 * conversation + turn, 40) for turn in range(turns))
        assert _use(often, prompt, 40 * turns) == _use(never, prompt, 40 * turns)
    assert often.available == never.available == 200
    assert len(often._order) < len(never._order)
