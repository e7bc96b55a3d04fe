"""The parts of the prefix index: segments of blocks, and the replicas that hold them."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence

__all__ = ["Holder", "Segment", "common"]


class Segment:
    """Consecutive blocks that are held together. The root has none, and no mask."""

    __slots__ = ("blocks", "children", "mask", "parent")

    def __init__(self, blocks: array[int], mask: int, parent: Segment | None) -> None:
        self.blocks = blocks
        self.mask = mask
        """A bit for each replica that holds all of it."""
        self.parent = parent
        self.children: dict[int, Segment] | None = None
        """By their first block; None rather than empty, for most have none."""

    def child(self, block: int) -> Segment | None:
        """The one that begins with that block."""
        return None if self.children is None else self.children.get(block)

    def adopt(self, child: Segment) -> None:
        """Put it below this one, in the place of any that begins with the same block."""
        child.parent = self
        if self.children is None:
            self.children = {}
        self.children[child.blocks[0]] = child

    def cut(self, at: int) -> Segment:
        """Split before block `at`. This one becomes the tail; returns the head, which is new."""
        assert self.parent is not None
        head = Segment(self.blocks[:at], self.mask, self.parent)
        self.parent.adopt(head)
        self.blocks = self.blocks[at:]
        head.adopt(self)
        return head

    def remove(self) -> None:
        """Take it out of the tree. There must be nothing below."""
        assert self.parent is not None
        siblings = self.parent.children
        assert siblings is not None
        del siblings[self.blocks[0]]
        if not siblings:
            self.parent.children = None


class Holder:
    """One replica: its bit, its bound, and the segments it holds in the order of their use."""

    __slots__ = ("bit", "capacity", "held", "name", "number", "uses")

    def __init__(self, name: str, number: int, capacity: int) -> None:
        self.name = name
        self.number = number
        self.bit = 1 << number  # most segments have one holder: they share this object
        self.capacity = capacity
        """Blocks that it may hold."""
        self.held = 0
        """Blocks of all its segments."""
        self.uses: OrderedDict[Segment, int] = OrderedDict()
        """The number of the insertion that last used each; the one used longest ago first. Those
        that a child stands for are left out."""

    def oldest(self) -> Segment:
        """The segment used longest ago; there must be one."""
        return next(iter(self.uses))


def common(held: Sequence[int], blocks: Sequence[int], start: int) -> int:
    """How many of `held` are in `blocks` from `start` on, of which the first must be.

    Numbers are chained: after one that differs all do, and before one that agrees all do.
    """
    high = min(len(held), len(blocks) - start)
    if held[high - 1] == blocks[start + high - 1]:
        return high
    low = 1
    while high - low > 1:
        middle = (low + high) // 2
        if held[middle - 1] == blocks[start + middle - 1]:
            low = middle
        else:
            high = middle
    return low
