"""Memory for keys and values, in blocks, with vLLM's prefix cache.

What vLLM does with a hash for each block is done here with a tree of segments, at the price of one
node for each segment instead of one entry for each block. A block belongs to the node in whose
segment it ends. Blocks that no sequence uses stay, and are evicted in the order in which they were
last used, the tail of a prompt before its beginning.

The result is the same to the block, but for two cases: an answer is found by others only when its
sequence has left, and a prompt that is there to its very last block (which is computed anew) keeps
that block from eviction, and its copy is forgotten.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Final

from bench.workload.model import Segment

__all__ = ["Held", "KVCache"]


_TIDY_FROM: Final = 4096

_Entry = tuple[int, int, int, "_Node"]
"""When a node was last used, its depth (negative), a number that makes it unique, the node."""


def _is_current(entry: _Entry) -> bool:
    stamp, _, _, node = entry
    return node.refs == 0 and node.stamp == stamp


class _Node:
    """The blocks of one segment after one particular beginning.

    `first`, `held`, `full`: index of its first block, of the block after the last one present, and
    of the block after the last one it can have.
    """

    __slots__ = ("children", "depth", "first", "full", "held", "key", "parent", "refs", "stamp")

    def __init__(self, parent: _Node | None, key: int, first: int, full: int) -> None:
        self.parent = parent
        self.key = key
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.first = first
        self.full = full
        self.held = first
        self.refs = 0
        self.stamp = 0
        self.children: dict[int, _Node] = {}


class Held:
    """What one sequence holds: shared nodes of the tree, and blocks of its own."""

    __slots__ = ("blocks", "nodes", "own", "path", "segments", "tokens")

    def __init__(self, segments: tuple[Segment, ...]) -> None:
        self.segments = segments
        self.path = 0
        """How many segments it has nodes for."""
        self.tokens = 0
        """Tokens up to the end of the last of them."""
        self.nodes: list[_Node] = []
        self.own = 0
        """Blocks that are its own: not yet full, or computed by another one as well."""
        self.blocks = 0
        """All its blocks, shared ones included."""


class KVCache:
    """The blocks of one engine. Nothing here knows a time: order of use is all that counts."""

    def __init__(self, blocks: int, block_tokens: int) -> None:
        self.blocks = blocks
        self._block_tokens = block_tokens
        self._root = _Node(None, 0, 0, 0)
        self._free = blocks
        self._idle = 0
        self._uses = 0
        # Nodes that nobody uses, and the nameless blocks of those who left: (last use, -depth,
        # number, node); out-of-date entries are skipped.
        self._order: list[_Entry] = []
        self._tidy_at = _TIDY_FROM
        self._pushed = 0

    @property
    def available(self) -> int:
        """Blocks that can be had, those with idle contents included."""
        return self._free + self._idle

    @property
    def usage(self) -> float:
        """Share of the blocks that sequences use, 0 to 1."""
        return 1 - self.available / self.blocks

    def match(self, segments: tuple[Segment, ...], tokens: int) -> int:
        """How many of the first `tokens` tokens are here, in whole blocks.

        The last token is always computed anew, as its result is needed.
        """
        node, found = self._root, 0
        for segment in segments:
            child = node.children.get(segment.key)
            if child is None:
                break
            found = child.held
            if found < child.full:
                break
            node = child
        size = self._block_tokens
        return min(found, (tokens - 1) // size) * size

    def hold(self, segments: tuple[Segment, ...], cached_tokens: int) -> Held:
        """Keep the first `cached_tokens` tokens, as `match` gave them, from being evicted."""
        held = Held(segments)
        while held.tokens < cached_tokens:
            self._pin_next(held)
        held.blocks = cached_tokens // self._block_tokens
        return held

    def needed(self, held: Held, tokens: int) -> int:
        """Blocks that are missing to hold `tokens` tokens."""
        return max(0, -(-tokens // self._block_tokens) - held.blocks)

    def would_use(self, segments: tuple[Segment, ...], cached_tokens: int) -> int:
        """Idle blocks that `hold` would take into use: they can then not be had any more."""
        node, used, tokens = self._root, 0, 0
        for segment in segments:
            if tokens >= cached_tokens:
                break
            node = node.children[segment.key]
            tokens += segment.tokens
            if node.refs == 0:
                used += node.held - node.first
        return used

    def take(self, held: Held, blocks: int) -> None:
        """Give a sequence more blocks; the caller has seen that they are `available`."""
        self.reserve(blocks)
        self.assign(held, blocks)

    def reserve(self, blocks: int) -> None:
        """Take blocks that will be said later to be whose: see `assign`."""
        self.make_room(blocks)
        self._free -= blocks

    def make_room(self, blocks: int) -> None:
        """Evict until so many blocks are free; they must be `available`."""
        if blocks > self._free:
            self._evict(blocks - self._free)

    def assign(self, held: Held, blocks: int) -> None:
        """So many of the reserved blocks are this sequence's."""
        held.own += blocks
        held.blocks += blocks

    def publish(self, held: Held, tokens: int) -> None:
        """The first `tokens` tokens are computed: others may share their whole blocks."""
        size = self._block_tokens
        while True:
            if held.nodes:
                node = held.nodes[-1]
                reached = min(tokens // size, node.full)
                if reached > node.held:
                    # Of these blocks the sequence has its own: it computed all after its match.
                    held.own -= reached - node.held
                    node.held = reached
            if tokens <= held.tokens or held.path == len(held.segments):
                return
            self._pin_next(held)

    def release(self, held: Held) -> None:
        """The sequence is gone. What it published stays until the room is needed."""
        self._uses += 1
        if held.own:
            # Of no use to anybody, and yet they are taken in their turn, as vLLM does it.
            nameless = _Node(None, 0, 0, held.own)
            nameless.held, nameless.depth = held.own, len(held.nodes) + 1
            nameless.stamp = self._uses
            self._idle += held.own
            self._enqueue(nameless)
        for node in held.nodes:
            node.refs -= 1
            if node.refs == 0:
                node.stamp = self._uses
                self._idle += node.held - node.first
                self._enqueue(node)
        held.nodes = []
        held.own = held.blocks = 0

    def forget_idle(self) -> None:
        """Free every block that no sequence uses."""
        self._evict(self._idle)

    def _pin_next(self, held: Held) -> None:
        segment = held.segments[held.path]
        parent = held.nodes[-1] if held.nodes else self._root
        node = parent.children.get(segment.key)
        end = held.tokens + segment.tokens
        if node is None:
            size = self._block_tokens
            node = _Node(parent, segment.key, held.tokens // size, end // size)
            parent.children[segment.key] = node
        elif node.refs == 0:
            self._idle -= node.held - node.first
        node.refs += 1
        held.nodes.append(node)
        held.path += 1
        held.tokens = end

    def _evict(self, blocks: int) -> None:
        while blocks > 0:
            stamp, _, _, node = heappop(self._order)
            if node.refs or node.stamp != stamp:
                continue
            taken = min(blocks, node.held - node.first)
            node.held -= taken
            self._idle -= taken
            self._free += taken
            blocks -= taken
            if node.held > node.first:
                self._enqueue(node)
            elif node.parent is not None:
                # It has no children left: they were used no later, and go first.
                del node.parent.children[node.key]
                node.stamp = -1

    def _enqueue(self, node: _Node) -> None:
        self._pushed += 1
        heappush(self._order, (node.stamp, -node.depth, self._pushed, node))
        if len(self._order) > self._tidy_at:
            # Nodes used again leave their old entries behind, which only eviction would meet.
            self._order = [entry for entry in self._order if _is_current(entry)]
            heapify(self._order)
            self._tidy_at = 2 * len(self._order) + _TIDY_FROM
