"""Which replicas hold which prefix: a radix tree of segments, with a bit mask of replicas on each.

A router has no view into the engines' caches. It remembers what it sent where, and forgets as they
do: what was used longest ago first, and of each prompt the end first.

Block numbers are chained: equal numbers mean equal prompts up to there. So blocks that always occur
in one row are one segment, an array of 8 bytes a block, and where a prompt leaves a segment is
found by bisection. Three rules hold at all times:

- All of a segment is held by each replica in its mask. Where holders differ, it is split.
- Who holds a segment holds its parent: masks only lose bits on the way down.
- In each replica's order of use a parent is younger than its children, so that the oldest segment
  has nothing below it that this replica holds. Who uses the beginning of a segment it holds uses
  all of it.

Splitting costs nothing per holder, of whom there may be a thousand: the tail keeps the place in
their orders of use and stands for the head as well, which gets a place of its own when it is used,
or when the tail goes.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Sequence
from itertools import compress
from typing import Final, NamedTuple

from balancer.segments import Holder, Segment, common

__all__ = ["ENGINE_TOKENS", "NOTHING", "Insertion", "PrefixIndex"]

ENGINE_TOKENS: Final = 524_288
"""What an engine's KV cache is taken to hold until it says it. Too much does no harm: an index four
times too small cost 22 % of the hits in simulation, any size from the engine's own on cost none."""

_BLOCK_BYTES: Final = 9
_SEGMENT_BYTES: Final = 224
_HOLD_BYTES: Final = 112
_SAMPLE: Final = 8
_AT_ONCE: Final = 128
"""Segments let go of in one call, of those that nobody holds any more: 0.1 ms."""
_NOBODY: Final = ""
_DIGITS_TO_BITS = bytes.maketrans(b"01", b"\x00\x01")


class Insertion(NamedTuple):
    """What `insert` did, so that it can be undone."""

    use: int
    """Its number among all; 0 if nothing was inserted."""
    held_before: int
    """Blocks at the beginning of the prompt that the replica held already."""


NOTHING: Final = Insertion(0, 0)


class PrefixIndex:
    """The prefixes, in blocks of `block_tokens` tokens, that replicas are believed to hold.

    `capacity_tokens` says for a replica's name how much it holds, rounded down to whole blocks; it
    is asked when the replica is first met, and `resize` corrects it. `most_bytes` bounds the memory
    of all together, as estimated: a block is 8 bytes, a segment about 220, each holder of it 110.
    At that bound every insertion drives out what was used longest ago, whoever holds it: of a
    sample of eight replicas, so that a thousand cost no more.

    Block numbers are those of `Ask.blocks`: chained, and within 64 bits, signed.
    """

    def __init__(
        self,
        block_tokens: int,
        capacity_tokens: Callable[[str], int] = lambda _: ENGINE_TOKENS,
        *,
        most_bytes: int = 64 * 2**20,
    ) -> None:
        if block_tokens < 1:
            raise ValueError(f"block_tokens is {block_tokens}, must be 1 or more")
        if most_bytes < 0:
            raise ValueError(f"most_bytes is {most_bytes}, must be 0 or more")
        self.block_tokens = block_tokens
        self.most_bytes = most_bytes
        self._capacity_tokens = capacity_tokens
        self._root = Segment(array("q"), 0, None)
        self._holders: dict[str, Holder] = {}
        self._numbered: list[Holder | None] = []
        self._names: list[str] = []
        self._free: list[int] = []  # numbers that are nobody's, so that masks stay short
        self._leaving: deque[Holder] = deque()
        self._segments = self._blocks = self._places = 0
        self._use = 0
        self._hand = 0

    def match(self, blocks: Sequence[int]) -> dict[str, int]:
        """Tokens at the beginning of the prompt that each replica holds; only those with some."""
        matched: dict[str, int] = {}
        segment, end, mask, count = self._root, 0, 0, len(blocks)
        while end < count:
            child = segment.child(blocks[end])
            if child is None:
                break
            if mask != child.mask:
                self._name(mask ^ child.mask if mask else 0, end, matched)
                mask = child.mask
            shared = common(child.blocks, blocks, end)
            end += shared
            if shared < len(child.blocks):
                break
            segment = child
        self._name(mask, end, matched)
        if self._leaving:
            matched.pop(_NOBODY, None)
        return matched

    def insert(self, replica: str, blocks: Sequence[int]) -> Insertion:
        """`replica` holds these now. Of a prompt longer than its capacity, the beginning."""
        holder = self._holders.get(replica) or self._enrol(replica)
        if len(blocks) > holder.capacity:
            blocks = blocks[: holder.capacity]
        if not blocks:
            return NOTHING
        self._use += 1
        held_before = self._extend(holder, blocks)
        while holder.held > holder.capacity:
            self._shorten(holder, holder.oldest(), holder.held - holder.capacity)
        if self._leaving:
            self._let_go()
        if self.used_bytes > self.most_bytes:
            self._shrink()
        return Insertion(self._use, held_before)

    def undo(self, replica: str, blocks: Sequence[int], insertion: Insertion) -> None:
        """The replica never read that prompt: take back what `insert(replica, blocks)` added.

        What was used since, by an insertion of any other prompt or of the same, stays. What was
        driven out to make room does not come back. To be called once at most.
        """
        holder = self._holders.get(replica)
        if holder is None or not insertion.use:
            return
        path = self._held_path(holder, blocks)
        end = sum(len(segment.blocks) for segment in path)
        for segment in reversed(path):
            if end <= insertion.held_before or holder.uses.get(segment) != insertion.use:
                return  # what used this since used all that is above it too
            length = len(segment.blocks)
            self._shorten(holder, segment, min(length, end - insertion.held_before))
            end -= length

    def resize(self, replica: str, tokens: int) -> None:
        """The replica's KV cache holds so many; at once, if that is less than was thought."""
        holder = self._holders.get(replica) or self._enrol(replica)
        holder.capacity = max(0, tokens // self.block_tokens)
        while holder.held > holder.capacity:
            self._shorten(holder, holder.oldest(), holder.held - holder.capacity)

    def clear(self, replica: str) -> None:
        """Its cache is empty, but it is still there, as large as it was. Unknown is fine."""
        holder = self._holders.get(replica)
        if holder is not None and holder.uses:
            self._leave(holder)
            self._enrol(replica, holder.capacity)

    def drop(self, replica: str) -> None:
        """It is gone: it holds nothing, and its capacity is forgotten too. Unknown is fine."""
        holder = self._holders.pop(replica, None)
        if holder is not None:
            self._leave(holder)

    def held_blocks(self, replica: str) -> int:
        """How many blocks `replica` is believed to hold."""
        holder = self._holders.get(replica)
        return 0 if holder is None else holder.held

    def capacity_blocks(self, replica: str) -> int | None:
        """How many it may hold; None if it was never met."""
        holder = self._holders.get(replica)
        return None if holder is None else holder.capacity

    def __len__(self) -> int:
        """Different blocks held by anyone, and those that are yet to be let go."""
        return self._blocks

    @property
    def used_bytes(self) -> int:
        """Memory in use, as estimated."""
        return (
            self._blocks * _BLOCK_BYTES
            + self._segments * _SEGMENT_BYTES
            + self._places * _HOLD_BYTES
        )

    def _extend(self, holder: Holder, blocks: Sequence[int]) -> int:
        """Make it a holder of all these. Returns how many it held before."""
        bit, uses, use = holder.bit, holder.uses, self._use
        segment, end, count, held_before = self._root, 0, len(blocks), 0
        path: list[Segment] = []
        while end < count:
            child = segment.child(blocks[end])
            if child is None:
                segment = self._append(holder, segment, array("q", blocks[end:]))
                end = count
            else:
                shared = common(child.blocks, blocks, end)
                holds = child.mask & bit
                end += shared
                if shared < len(child.blocks) and not (holds and end == count):
                    child = self._cut(child, shared)
                if holds:
                    held_before = end
                else:
                    self._hold(holder, child)
                segment = child
            path.append(segment)
        places = len(uses)
        for segment in reversed(path):
            uses[segment] = use
            uses.move_to_end(segment)
        self._places += len(uses) - places
        return held_before

    def _append(self, holder: Holder, segment: Segment, blocks: array[int]) -> Segment:
        """New blocks after `segment`, which is longer now where it may be."""
        self._blocks += len(blocks)
        if segment.mask == holder.bit and segment.children is None:
            segment.blocks.extend(blocks)
            holder.held += len(blocks)
            return segment
        leaf = Segment(blocks, 0, segment)
        segment.adopt(leaf)
        self._segments += 1
        self._hold(holder, leaf)
        return leaf

    def _hold(self, holder: Holder, segment: Segment) -> None:
        segment.mask = segment.mask | holder.bit if segment.mask else holder.bit
        holder.held += len(segment.blocks)

    def _cut(self, segment: Segment, at: int) -> Segment:
        """Before block `at`. Returns the head, which is new; the tail keeps all places."""
        self._segments += 1
        return segment.cut(at)

    def _held_path(self, holder: Holder, blocks: Sequence[int]) -> list[Segment]:
        """The segments that it holds and that are all of them in this prompt, from the root on."""
        segment, end, path = self._root, 0, list[Segment]()
        while end < len(blocks):
            child = segment.child(blocks[end])
            if child is None or not child.mask & holder.bit:
                break
            if common(child.blocks, blocks, end) < len(child.blocks):
                break
            path.append(child)
            end += len(child.blocks)
            segment = child
        return path

    def _shorten(self, holder: Holder, segment: Segment, excess: int) -> None:
        """Take so many blocks, or all, off the end of what it holds there. Nothing of it may be
        below."""
        kept = len(segment.blocks) - excess
        if kept <= 0:
            self._release(holder, segment)
        elif segment.mask == holder.bit and segment.children is None:
            del segment.blocks[kept:]
            holder.held -= excess
            self._blocks -= excess
        else:
            self._cut(segment, kept)
            self._release(holder, segment)

    def _release(self, holder: Holder, segment: Segment) -> None:
        """It holds that no longer. Nothing of it may be below."""
        uses, parent = holder.uses, segment.parent
        assert parent is not None
        use = uses.pop(segment)
        self._places -= 1
        if parent.mask and parent not in uses:  # the segment stood for it
            uses[parent] = use
            uses.move_to_end(parent, last=False)
            self._places += 1
        holder.held -= len(segment.blocks)
        segment.mask ^= holder.bit
        if not segment.mask:
            segment.remove()
            self._segments -= 1
            self._blocks -= len(segment.blocks)
        elif segment.mask & (segment.mask - 1) == 0:
            only = self._numbered[segment.mask.bit_length() - 1]
            assert only is not None
            segment.mask = only.bit

    def _leave(self, holder: Holder) -> None:
        """It is nobody's from now on. What it holds is let go a little at a time, here and at each
        insertion: all of a large cache would take tens of milliseconds."""
        self._names[holder.number] = _NOBODY
        self._leaving.append(holder)
        self._let_go()

    def _let_go(self) -> None:
        holder, most = self._leaving[0], _AT_ONCE
        while holder.uses and most:
            self._release(holder, holder.oldest())
            most -= 1
        if not holder.uses:
            self._leaving.popleft()
            self._numbered[holder.number] = None
            self._free.append(holder.number)

    def _shrink(self) -> None:
        """Down to the bound of all together."""
        while self.used_bytes > self.most_bytes and self._places:
            if self._leaving:
                self._let_go()
            else:
                holder = self._stalest()
                self._release(holder, holder.oldest())

    def _stalest(self) -> Holder:
        """Of the next few replicas that hold something: who last used something longest ago."""
        stalest, oldest, seen = None, self._use + 1, 0
        for _ in self._numbered:
            self._hand = (self._hand + 1) % len(self._numbered)
            holder = self._numbered[self._hand]
            if holder is None or not holder.uses:
                continue
            use = holder.uses[holder.oldest()]
            if use < oldest:
                stalest, oldest = holder, use
            seen += 1
            if seen == _SAMPLE:
                break
        assert stalest is not None
        return stalest

    def _name(self, mask: int, end: int, matched: dict[str, int]) -> None:
        """Each in `mask` holds so many blocks."""
        if not mask:
            return
        tokens = end * self.block_tokens
        if mask & (mask - 1) == 0:
            matched[self._names[mask.bit_length() - 1]] = tokens
        else:
            matched.update(dict.fromkeys(compress(self._names, _bits(mask)), tokens))

    def _enrol(self, replica: str, capacity: int | None = None) -> Holder:
        if capacity is None:
            capacity = max(0, self._capacity_tokens(replica) // self.block_tokens)
        if self._free:
            number = self._free.pop()
        else:
            number = len(self._names)
            self._names.append(_NOBODY)
            self._numbered.append(None)
        holder = self._holders[replica] = Holder(replica, number, capacity)
        self._numbered[number], self._names[number] = holder, replica
        return holder


def _bits(mask: int) -> bytes:
    # Reading the digits is linear; shifting a mask of thousands of bits for each is not.
    return bin(mask)[:1:-1].encode().translate(_DIGITS_TO_BITS)
