"""What one replica has in flight, by our own books.

Own counts are never stale and never missing. Of what happens in the engine they know two moments:
the first event (the prompt is read) and the end.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Charge", "Load"]


class Charge:
    """What one request was booked with, to be taken back exactly."""

    __slots__ = ("blocks", "read_at", "request_s", "uncached_tokens", "waiting")

    def __init__(self, uncached_tokens: int, blocks: Sequence[int], waiting: bool = True) -> None:
        self.uncached_tokens = uncached_tokens
        self.blocks = blocks
        self.waiting = waiting
        """No event of it has come yet."""
        self.read_at = 0.0
        """When its first event came."""
        self.request_s = 0.0
        """`Load.request_s` at that moment."""


class Load:
    """What one replica has in flight. Changed by leases alone."""

    __slots__ = ("_busy_s", "_request_s", "_since", "held", "requests", "waiting", "waiting_tokens")

    def __init__(self) -> None:
        self.requests = 0
        self.waiting = 0
        """Requests without a first event: queued in the engine, or being read."""
        self.waiting_tokens = 0
        """Prompt tokens of those that the replica does not hold and has yet to read."""
        self.held: dict[int, int] = {}
        """For each block of the prompts in flight: how many of them have it."""
        self._busy_s = 0.0
        self._request_s = 0.0
        self._since = 0.0

    @property
    def kv_blocks(self) -> int:
        """Blocks of KV cache in use: what prompts share counts once, and each request has one of
        its own for the rest of its prompt and what it generates."""
        return len(self.held) + self.requests

    def busy_s(self, now: float) -> float:
        """Seconds, since the beginning, in which at least one request was in flight."""
        return self._busy_s + (now - self._since if self.requests else 0.0)

    def request_s(self, now: float) -> float:
        """Seconds that requests have been in flight, all of them added up."""
        return self._request_s + self.requests * (now - self._since)

    def company(self, charge: Charge, now: float) -> float:
        """How many others were in flight, on average, since the first event of this one."""
        passed_s = now - charge.read_at
        if charge.waiting or passed_s <= 0.0:
            return max(0.0, self.requests - 1.0)
        return max(0.0, (self.request_s(now) - charge.request_s) / passed_s - 1.0)

    def open(
        self, uncached_tokens: int, blocks: Sequence[int], now: float, *, waits: bool = True
    ) -> Charge:
        """A request goes there, of whose prompt it has to read so much. Not `waits`: nobody will
        tell when it has, so it is no part of what is to be read."""
        self._pass(now)
        self.requests += 1
        if waits:
            self.waiting += 1
            self.waiting_tokens += uncached_tokens
        held = self.held
        for block in blocks:
            held[block] = held.get(block, 0) + 1
        return Charge(uncached_tokens, blocks, waits)

    def read(self, charge: Charge, now: float) -> None:
        """Its prompt is read. May be told twice."""
        if charge.waiting:
            self._no_longer_waits(charge)
            charge.read_at = now
            charge.request_s = self.request_s(now)

    def close(self, charge: Charge, now: float) -> None:
        """It is over. To be told once."""
        if charge.waiting:
            self._no_longer_waits(charge)
        self._pass(now)
        self.requests -= 1
        held = self.held
        for block in charge.blocks:
            count = held[block]
            if count == 1:
                del held[block]
            else:
                held[block] = count - 1

    def _no_longer_waits(self, charge: Charge) -> None:
        charge.waiting = False
        self.waiting -= 1
        self.waiting_tokens -= charge.uncached_tokens

    def _pass(self, now: float) -> None:
        """The number of requests is about to change."""
        if self.requests:
            passed_s = now - self._since
            self._busy_s += passed_s
            self._request_s += self.requests * passed_s
        self._since = now
