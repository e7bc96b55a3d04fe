"""The sequences that decode, kept as sums: a step costs the same for one of them and for 256."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Final

from bench.engine.sequence import Sequence

__all__ = ["Decoding"]

_REMOVED_KEPT: Final = 64


class Decoding:
    """All of them take every step together. In step number `s` a sequence reads `born + s` tokens,
    and it needs a new block in every `block_tokens`-th step.
    """

    def __init__(self, block_tokens: int) -> None:
        self.step = 0
        """Number of the last step that is booked."""
        self.count = 0
        self._size = block_tokens
        self._born = 0
        # How many need a block in the steps whose number leaves that rest.
        self._phases = [0] * block_tokens
        self._ends: list[tuple[int, int, Sequence]] = []
        self._removed = 0  # and still in that list, which would keep their prompts in memory

    def add(self, sequence: Sequence) -> None:
        """Its prompt is complete with the step booked last, and more than one token is to come."""
        sequence.born = sequence.goal - self.step
        self._sum(sequence, 1)
        heappush(self._ends, (sequence.ends_at, sequence.place, sequence))

    def remove(self, sequence: Sequence) -> None:
        """It leaves before its end."""
        self._sum(sequence, -1)
        self._removed += 1
        if self._removed > self.count + _REMOVED_KEPT:
            self._ends = [e for e in self._ends if e[2] is not sequence and self._is_here(*e)]
            heapify(self._ends)
            self._removed = 0

    def context(self) -> int:
        """Tokens whose keys and values are read in the next step."""
        return self._born + self.count * (self.step + 1)

    def next_blocks(self) -> int:
        """Blocks that are needed for the next step."""
        return self._phases[(self.step + 1) % self._size]

    def steps_to_end(self) -> int:
        """How many steps until the first of them ends; there must be one."""
        while not self._is_here(*self._ends[0]):
            heappop(self._ends)
        return self._ends[0][0] - self.step

    def steps_with(self, blocks: int, limit: int) -> int:
        """How many steps `blocks` blocks allow, at most `limit`."""
        if (limit // self._size + 1) * self.count <= blocks:
            return limit
        rounds, left = divmod(blocks, self.count)
        steps = rounds * self._size
        for _ in range(self._size):
            left -= self._phases[(self.step + steps + 1) % self._size]
            if left < 0:
                break
            steps += 1
        return min(limit, steps)

    def blocks_for(self, steps: int) -> int:
        """Blocks that the next `steps` steps need together."""
        rounds, rest = divmod(steps, self._size)
        some = (self._phases[(self.step + i) % self._size] for i in range(1, rest + 1))
        return rounds * self.count + sum(some)

    def take(self, steps: int) -> list[Sequence]:
        """Book so many steps; gives back those that end with the last of them, in their order."""
        self.step += steps
        ended = []
        while self._ends and self._ends[0][0] <= self.step:
            entry = heappop(self._ends)
            if self._is_here(*entry):
                self._sum(entry[2], -1)
                ended.append(entry[2])
        return ended

    def _sum(self, sequence: Sequence, sign: int) -> None:
        self.count += sign
        self._born += sign * sequence.born
        self._phases[(1 - sequence.born) % self._size] += sign

    @staticmethod
    def _is_here(ends_at: int, place: int, sequence: Sequence) -> bool:
        # One that was preempted is in another place when it comes back.
        return sequence.state == "decode" and sequence.place == place
