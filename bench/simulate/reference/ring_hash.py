"""A hash of the beginning of the prompt, as gateways do it."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.policies import Ask, Bookless
from balancer.policies.loaded import R
from balancer.policies.ring import Ring, walk
from bench.simulate.reference.fleet import Fleet
from bench.simulate.reference.ring import prompt_key

__all__ = ["RingHash"]


class RingHash(Bookless):
    """Whatever the load, the replica that the first tokens point to on a ring.

    What Nginx's `hash ... consistent` or Envoy's ring hash do with a key made of the prompt's
    beginning, and Olla's sticky prefix with its first 512 bytes, about 128 tokens; 150 points are
    those of SMG. A system prompt that all share sends all to one replica: that is what it is here
    to show.

    Who is away or full is skipped for the next on the ring. A prompt shorter than 16 tokens goes
    anywhere.
    """

    def __init__(self, fleet: Fleet, *, first_tokens: int = 128, points: int = 150) -> None:
        self._first_tokens = first_tokens
        self._ring = Ring(points)
        self._random = fleet.random()

    def pick(self, candidates: Sequence[R], ask: Ask) -> R:
        key = prompt_key(ask, self._first_tokens)
        if key is None:
            return self._random.choice(candidates)
        return candidates[next(walk(self._ring, key, candidates))]
