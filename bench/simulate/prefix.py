"""Which replicas hold which prefix: chained block numbers, a bit mask of replicas on each.

A router has no view into the engines' caches. It remembers what it sent where, and forgets as they
do: each replica's blocks in LRU order, no more of them than its cache holds.

The rule that makes lookups short: a replica that holds a block holds all blocks before it. Blocks
are touched from the last to the first, so the first of a prompt is always the youngest and the end
is forgotten first. The masks along a prompt can then only lose bits, and a run of equal ones is
found by bisection.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import compress

__all__ = ["PrefixIndex"]

_DIGITS_TO_BITS = bytes.maketrans(b"01", b"\x00\x01")


class PrefixIndex:
    """The prefixes of `block_tokens` tokens each that replicas are believed to hold.

    `capacity_tokens` says for a replica's name how much it holds. It is asked once, when the
    replica is first met, and rounded down to whole blocks. Block numbers are as `Ask.blocks` gives
    them: chained, so that equal numbers mean equal prompts up to there.
    """

    def __init__(self, block_tokens: int, capacity_tokens: Callable[[str], int]) -> None:
        if block_tokens < 1:
            raise ValueError(f"block_tokens is {block_tokens}, must be 1 or more")
        self.block_tokens = block_tokens
        self._capacity_tokens = capacity_tokens
        self._holders: dict[int, int] = {}
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []
        self._free: list[int] = []  # numbers of dropped replicas, so that masks stay short
        self._recent: list[OrderedDict[int, None]] = []
        self._capacities: list[int] = []

    def match(self, blocks: Sequence[int]) -> dict[str, int]:
        """Tokens at the beginning of the prompt that each replica holds; only those with some."""
        matched: dict[str, int] = {}
        holders_of = self._holders.get
        end, mask = 0, holders_of(blocks[0], 0) if blocks else 0
        while mask:
            end = self._end_of_run(blocks, end, mask)
            going_on = holders_of(blocks[end], 0) if end < len(blocks) else 0
            tokens = end * self.block_tokens
            for name in self._named(mask ^ going_on):
                matched[name] = tokens
            mask = going_on
        return matched

    def insert(self, replica: str, blocks: Sequence[int]) -> None:
        """`replica` holds these now. Of a prompt longer than its capacity, the beginning."""
        number = self._number(replica)
        recent, capacity, bit = self._recent[number], self._capacities[number], 1 << number
        holders, touch = self._holders, recent.move_to_end
        for block in reversed(blocks[:capacity]):
            if block in recent:
                touch(block)
            else:
                recent[block] = None
                others = holders.get(block)
                # Most blocks have one holder: they share one mask object.
                holders[block] = bit if others is None else others | bit
        while len(recent) > capacity:
            self._clear(bit, (recent.popitem(last=False)[0],))

    def drop(self, replica: str) -> None:
        """`replica` holds nothing any more: it is gone, or was started again. Unknown is fine."""
        number = self._numbers.pop(replica, None)
        if number is None:
            return
        self._clear(1 << number, self._recent[number])
        self._recent[number] = OrderedDict()
        self._names[number] = ""
        self._free.append(number)

    def held_blocks(self, replica: str) -> int:
        """How many blocks `replica` is believed to hold."""
        number = self._numbers.get(replica)
        return 0 if number is None else len(self._recent[number])

    def __len__(self) -> int:
        """Different blocks held by anyone."""
        return len(self._holders)

    def _end_of_run(self, blocks: Sequence[int], first: int, mask: int) -> int:
        """The index after the last block, from `first` on, that exactly `mask` holds."""
        holders_of = self._holders.get
        low, high = first, len(blocks)
        while high - low > 1:
            middle = (low + high) // 2
            if holders_of(blocks[middle], 0) == mask:
                low = middle
            else:
                high = middle
        return high

    def _named(self, mask: int) -> Iterator[str]:
        if mask & (mask - 1) == 0:
            return iter((self._names[mask.bit_length() - 1],))
        # Reading the digits is linear; shifting a mask of thousands of bits for each is not.
        return compress(self._names, bin(mask)[:1:-1].encode().translate(_DIGITS_TO_BITS))

    def _clear(self, bit: int, blocks: Iterable[int]) -> None:
        holders = self._holders
        for block in blocks:
            others = holders[block] ^ bit
            if others:
                holders[block] = others
            else:
                del holders[block]

    def _number(self, replica: str) -> int:
        number = self._numbers.get(replica)
        return self._enrol(replica) if number is None else number

    def _enrol(self, replica: str) -> int:
        capacity = max(0, self._capacity_tokens(replica) // self.block_tokens)
        if self._free:
            number = self._free.pop()
            self._names[number], self._capacities[number] = replica, capacity
        else:
            number = len(self._names)
            self._names.append(replica)
            self._capacities.append(capacity)
            self._recent.append(OrderedDict())
        self._numbers[replica] = number
        return number
