"""What one replica has in flight, by our own books.

Own counts are never stale and never missing. Of what happens in the engine they know two moments:
the first event (the prompt is read) and the end.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Charge", "Load"]


class Charge:
    """What one request was booked with, to be taken back exactly."""

    __slots__ = ("blocks", "uncached_tokens", "waiting")

    def __init__(self, uncached_tokens: int, blocks: Sequence[int]) -> None:
        self.uncached_tokens = uncached_tokens
        self.blocks = blocks
        self.waiting = True
        """No event of it has come yet."""


class Load:
    """What one replica has in flight. Changed by leases alone."""

    __slots__ = ("_busy_s", "_busy_since", "held", "requests", "waiting", "waiting_tokens")

    def __init__(self) -> None:
        self.requests = 0
        self.waiting = 0
        """Requests without a first event: queued in the engine, or being read."""
        self.waiting_tokens = 0
        """Prompt tokens of those that the replica does not hold and has yet to read."""
        self.held: dict[int, int] = {}
        """For each block of the prompts in flight: how many of them have it."""
        self._busy_s = 0.0
        self._busy_since = 0.0

    @property
    def kv_blocks(self) -> int:
        """Blocks of KV cache in use: what prompts share counts once, and each request has one of
        its own for the rest of its prompt and what it generates."""
        return len(self.held) + self.requests

    def busy_s(self, now: float) -> float:
        """Seconds, since the beginning, in which at least one request was in flight."""
        return self._busy_s + (now - self._busy_since if self.requests else 0.0)

    def open(self, uncached_tokens: int, blocks: Sequence[int], now: float) -> Charge:
        """A request goes there, of whose prompt it has to read so much."""
        if not self.requests:
            self._busy_since = now
        self.requests += 1
        self.waiting += 1
        self.waiting_tokens += uncached_tokens
        held = self.held
        for block in blocks:
            held[block] = held.get(block, 0) + 1
        return Charge(uncached_tokens, blocks)

    def read(self, charge: Charge) -> None:
        """Its prompt is read, or will never be. May be told twice."""
        if charge.waiting:
            charge.waiting = False
            self.waiting -= 1
            self.waiting_tokens -= charge.uncached_tokens

    def close(self, charge: Charge, now: float) -> None:
        """It is over. To be told once."""
        self.read(charge)
        self.requests -= 1
        held = self.held
        for block in charge.blocks:
            count = held[block]
            if count == 1:
                del held[block]
            else:
                held[block] = count - 1
        if not self.requests:
            self._busy_s += now - self._busy_since
