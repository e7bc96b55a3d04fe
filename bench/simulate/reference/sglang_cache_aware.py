"""SGLang's model gateway: the longest match, unless the load is uneven."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Final

from balancer.policies import Ask, Bookless, Loaded
from balancer.policies.loaded import R
from bench.simulate.reference.books import BLOCK_TOKENS
from bench.simulate.reference.fleet import Fleet

__all__ = ["SglangCacheAware"]


_TREE_TOKENS: Final = 16_777_216
"""67,108,864 characters per replica (`--max-tree-size`) at 4 characters a token."""
_MOST_TOKENS: Final = 2**28
"""Of the whole tree, so that a long simulation of a large fleet fits in memory."""


class SglangCacheAware(Bookless):
    """`cache_aware` of smg-project/smg (before: sgl-model-gateway).

    If the most loaded replica has more than `absolute` requests in flight more than the least
    loaded, and more than `relative` times as many, the least loaded gets the request. Otherwise,
    if more than `threshold` of its prompt is in the tree, whoever was sent that last; else the
    least loaded. In any case the tree learns where it went.

    The defaults are those of the command line, which win over those of the code (0.5, 32, 1.1).
    Ties: fewest requests so far, then the pool's order, as there since smg #1714.

    As there, a lookup yields one replica, the last that was sent the longest match, though others
    may hold it too; who is full or away counts as no match. Simplified: a tree of 64-token blocks
    instead of characters; one LRU order for all replicas instead of one each. The rules on KV
    usage are off there by default. A replica that is restarted keeps its prefixes, as there.
    """

    def __init__(
        self,
        fleet: Fleet,
        *,
        threshold: float = 0.3,
        absolute: int = 64,
        relative: float = 1.5,
    ) -> None:
        self._threshold = threshold
        self._absolute = absolute
        self._relative = relative
        self._sent: Counter[str] = Counter()
        self._last_sent: OrderedDict[int, str] = OrderedDict()
        self._most_blocks = min(_TREE_TOKENS * fleet.replicas, _MOST_TOKENS) // BLOCK_TOKENS

    def pick(self, candidates: Sequence[R], ask: Ask) -> R:
        loads = [candidate.in_flight for candidate in candidates]
        most, least = max(loads), min(loads)
        if most - least > self._absolute and most > self._relative * least:
            return self._least_loaded(candidates)
        name = self._matched(ask)
        for candidate in candidates:
            if candidate.name == name:
                return candidate
        return self._least_loaded(candidates)

    def leased(self, replica: Loaded, ask: Ask) -> None:
        """The tree learns, whatever the reason for the choice."""
        self._sent[replica.name] += 1
        tree, touch = self._last_sent, self._last_sent.move_to_end
        # From the end on: the beginning is the youngest, so whoever is in has all before it.
        for block in reversed(ask.blocks(BLOCK_TOKENS)[: self._most_blocks]):
            tree[block] = replica.name
            touch(block)
        while len(tree) > self._most_blocks:
            tree.popitem(last=False)

    def _least_loaded(self, candidates: Sequence[R]) -> R:
        return min(candidates, key=lambda each: (each.in_flight, self._sent[each.name]))

    def _matched(self, ask: Ask) -> str | None:
        """Who was sent the longest match last; None if that is too little of the prompt."""
        blocks = ask.blocks(BLOCK_TOKENS)
        low, high = 0, len(blocks)
        while low < high:
            middle = (low + high) // 2
            if blocks[middle] in self._last_sent:
                low = middle + 1
            else:
                high = middle
        if low == 0 or low * BLOCK_TOKENS <= self._threshold * ask.prompt_tokens:
            return None
        return self._last_sent[blocks[low - 1]]
