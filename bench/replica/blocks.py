"""Texts as a prefix cache sees them: blocks of 16 tokens, the same wherever their text is.

Two prompts share the blocks up to the first token in which they differ. A block is known by the
hash of its text; that the blocks before it are the same as well is the cache's own business.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice
from typing import Final, NamedTuple

import trio

from bench.replica.tokens import PIECE, count
from bench.workload.model import Prompt, Segment

__all__ = ["BLOCK_TOKENS", "Blocks", "TooLongError"]

BLOCK_TOKENS: Final = 16

# Greedy, and never forced back: it stops early only where the text does. One match for 16 tokens
# takes half the time of 16 matches.
_UP_TO: Final = [re.compile(f"(?:{PIECE}){{1,{max(1, most)}}}") for most in range(BLOCK_TOKENS + 1)]
_BATCH: Final = 512
"""Blocks between two checkpoints: half a millisecond."""
_TOKEN_BATCH: Final = 8192
"""The same for text that is cut into tokens already."""

_KEPT_CHARACTERS: Final = 8 * 2**20
_WORTH_KEEPING: Final = 512


class TooLongError(Exception):
    """There are more tokens than were allowed."""


class _Cut(NamedTuple):
    """A text in blocks: what fills an open block up, whole blocks, and what begins another."""

    head: str
    head_tokens: int
    blocks: Prompt
    tail: str
    tail_tokens: int

    @property
    def tokens(self) -> int:
        return self.head_tokens + BLOCK_TOKENS * len(self.blocks) + self.tail_tokens


class _Kept:
    """Texts that were cut before, the last ones: a conversation sends its beginning every time."""

    def __init__(self, characters: int) -> None:
        self._room = characters
        self._cuts: OrderedDict[tuple[int, str], _Cut] = OrderedDict()

    def find(self, room: int, text: str) -> _Cut | None:
        cut = self._cuts.get((room, text))
        if cut is not None:
            self._cuts.move_to_end((room, text))
        return cut

    def keep(self, room: int, text: str, cut: _Cut) -> None:
        if (room, text) in self._cuts or not _WORTH_KEEPING <= len(text) <= _KEPT_CHARACTERS:
            return
        self._cuts[room, text] = cut
        self._room -= len(text)
        while self._room < 0:
            (_, oldest), _ = self._cuts.popitem(last=False)
            self._room += len(oldest)


_kept = _Kept(_KEPT_CHARACTERS)


class Blocks:
    """Counts tokens and cuts them into blocks, as text is added to the end."""

    __slots__ = ("_open", "_whole", "tokens")

    def __init__(self) -> None:
        self.tokens = 0
        self._whole: list[Segment] = []
        self._open = ""

    def whole(self) -> Prompt:
        """The blocks that are full."""
        return tuple(self._whole)

    async def add_text(self, text: str, at_most: int) -> None:
        """Raises TooLongError once there are more than `at_most` tokens in all."""
        room = -self.tokens % BLOCK_TOKENS
        cut = _kept.find(room, text)
        if cut is None:
            cut = await _cut(text, room, at_most - self.tokens)
            _kept.keep(room, text, cut)
        self._add_head(cut.head, cut.head_tokens)
        self._whole += cut.blocks
        self._open += cut.tail
        self.tokens += cut.tokens - cut.head_tokens
        if self.tokens > at_most:
            raise TooLongError

    async def add_ids(self, ids: Sequence[int], at_most: int) -> None:
        """Token ids, as completions may be given; the same as `add_text` otherwise."""
        if self.tokens + len(ids) > at_most:
            raise TooLongError
        for begin in range(0, len(ids), _TOKEN_BATCH):
            self.add_tokens([f"{each} " for each in ids[begin : begin + _TOKEN_BATCH]])
            await trio.lowlevel.checkpoint()

    async def add_pieces(self, pieces: Sequence[str]) -> None:
        """The same as `add_tokens`, for any number of them."""
        for begin in range(0, len(pieces), _TOKEN_BATCH):
            if begin:
                await trio.lowlevel.checkpoint()
            self.add_tokens(pieces[begin : begin + _TOKEN_BATCH])

    def add_tokens(self, pieces: Sequence[str]) -> None:
        """Text that is cut into tokens already."""
        room = -self.tokens % BLOCK_TOKENS
        self._add_head("".join(pieces[:room]), min(room, len(pieces)))
        rest = len(pieces) - room
        for begin in range(room, room + rest // BLOCK_TOKENS * BLOCK_TOKENS, BLOCK_TOKENS):
            block = "".join(pieces[begin : begin + BLOCK_TOKENS])
            self._whole.append(Segment(hash(block), BLOCK_TOKENS))
        if rest > 0:
            self._open += "".join(pieces[len(pieces) - rest % BLOCK_TOKENS :])
            self.tokens += rest

    def _add_head(self, text: str, tokens: int) -> None:
        self._open += text
        self.tokens += tokens
        if tokens and self.tokens % BLOCK_TOKENS == 0:
            self._whole.append(Segment(hash(self._open), BLOCK_TOKENS))
            self._open = ""


async def _cut(text: str, room: int, at_most: int) -> _Cut:
    """`room` tokens fill up the block before; no more than about `at_most` are looked at."""
    head, head_tokens, begin = "", 0, 0
    if room and (match := _UP_TO[room].match(text)) is not None:
        head, begin = match[0], match.end()
        head_tokens = room if begin < len(text) else count(head, room)
    matches = _UP_TO[BLOCK_TOKENS].finditer(text, begin)
    blocks: list[Segment] = []
    tail, tail_tokens = "", 0
    while batch := [match[0] for match in islice(matches, _BATCH)]:
        if (tail_tokens := count(batch[-1], BLOCK_TOKENS)) < BLOCK_TOKENS:
            tail = batch.pop()
        else:
            tail_tokens = 0
        blocks += [Segment(hash(block), BLOCK_TOKENS) for block in batch]
        if len(blocks) * BLOCK_TOKENS > at_most:
            raise TooLongError
        if len(batch) == _BATCH:
            await trio.lowlevel.checkpoint()
    return _Cut(head, head_tokens, tuple(blocks), tail, tail_tokens)
