"""A hash of the beginning of the prompt, with a bound on what it may do to the load."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import ClassVar, Final

from balancer.policies.ask import BLOCK_TOKENS, UNKNOWN, Ask
from balancer.policies.loaded import R
from balancer.policies.policy import Bookless
from balancer.policies.ring import Ring, walk
from balancer.policies.ties import bounded_load, least_in_flight

__all__ = ["PrefixHash", "Traffic"]


_FEWEST: Final = 8
_AHEAD: Final = 16


class Traffic:
    """Which leading blocks of prompts carry how much of the traffic.

    Counts are halved after every `window` requests, and what is left with less than one is
    forgotten; sooner if there are more than `most` of them.
    """

    def __init__(self, window: int = 2048, most: int = 65_536) -> None:
        self._window = window
        self._most = most
        self._counts: dict[int, float] = {}
        self._split: set[int] = set()
        self._total = 0.0
        self._share = 1.0

    def __len__(self) -> int:
        """Blocks that are counted."""
        return len(self._counts)

    def key(self, blocks: Sequence[int], share: float) -> int:
        """The first block that carries no more than `share` of the traffic, or fewer than 8
        requests; the last one if all carry more. A block that did and was passed is passed until
        it carries less than half of that, so that keys stay what they are."""
        counts, split = self._counts, self._split
        self._share = share
        self._total += 1.0
        most = max(_FEWEST, share * self._total)
        ends = len(blocks) - 1
        key = None
        for depth, block in enumerate(blocks):
            count = counts[block] = counts.get(block, 0.0) + 1.0
            if key is None and block not in split:
                if count <= most:
                    # Counted a little ahead: then a long common beginning is passed at a stroke.
                    key, ends = block, depth + _AHEAD
                else:
                    split.add(block)
            if depth >= ends:
                break
        if self._total >= self._window or len(counts) > self._most:
            self._halve()
        return block if key is None else key

    def _halve(self) -> None:
        self._total /= 2.0
        halved = ((block, count / 2.0) for block, count in self._counts.items())
        self._counts = {block: count for block, count in halved if count >= 1.0}
        least = self._share * self._total / 2.0
        self._split = {block for block in self._split if self._counts.get(block, 0.0) >= least}


class PrefixHash(Bookless):
    """Consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam, 2016): from the
    prompt's place on a ring on, the first replica that with this request has no more than `bound`
    times the mean in flight. It needs no index, and balancers that know nothing of each other
    choose alike.

    What is hashed is the chained number of one leading block: the first that less than
    1/(`parts` x replicas) of the traffic begins with. Under a system prompt that all share that is
    the block after it, where prompts part; with a prompt for each tenant it is its first block.

    Of a prompt shorter than a block nothing is known: it goes to the fewest in flight.
    """

    reads_prompt: ClassVar[bool] = True

    def __init__(
        self,
        seed: int | None = None,
        *,
        bound: float = 1.25,
        parts: float = 2.0,
        points: int = 150,
    ) -> None:
        self._random = random.Random(seed)
        self._bound = bound
        self._parts = parts
        self._ring = Ring(points)
        self._traffic = Traffic()

    def pick(self, candidates: Sequence[R], ask: Ask = UNKNOWN) -> R:
        blocks = ask.blocks(BLOCK_TOKENS)
        if not blocks:
            return least_in_flight(candidates, self._random)
        count = len(candidates)
        if count == 1:
            return candidates[0]
        key = self._traffic.key(blocks, 1.0 / (self._parts * count))
        allowed = bounded_load(candidates, self._bound)
        places = walk(self._ring, key, candidates)
        # The mean is below the bound, so somebody is too.
        return candidates[next(place for place in places if candidates[place].in_flight < allowed)]
