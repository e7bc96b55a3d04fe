"""Tiers: the classes of traffic, what each may take, and what a request brings of it."""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["BATCH", "INTERACTIVE", "TIERS", "Standing", "Tier"]


class Tier(msgspec.Struct, frozen=True, kw_only=True):
    """What one class of traffic may take of one pool, and how it stands in line there.

    The three caps bind late: a request waits here, where one that matters more still comes before
    it, rather than in an engine's own queue, where nothing does. An engine is never idle for them,
    as long as two chunks of its prefill (2,048 tokens each in vLLM's defaults) are left to read.
    """

    name: str
    rank: int
    """0 comes first. No two tiers of a pool have the same."""
    slots: int | None = None
    """Most requests of this tier in flight in the pool; None is no limit."""
    reserve: int = 0
    """Slots of the pool that tiers below leave free for this one and those above it.

    Counts against the sum of the replicas' `max_in_flight`; without one it has no effect.
    """
    queue: int = 1024
    """Most requests of this tier that wait; 0 refuses at once."""
    queue_s: float = 30.0
    """Longest wait for one place."""
    handicap_s: float = 0.0
    """How long it stands back for the tiers above; then it gets one place in eight of theirs."""
    deadline_ms: int | None = None
    """Default of a request's deadline, counted from its arrival; None is none."""
    preempts: bool = False
    """Whether it may take the place of a request of a lower tier that yields."""
    yields_s: float = 0.0
    """For so long after its lease one that has sent nothing may be put back in line; 0 is never.

    An answer that is not streamed sends nothing until its end: this bounds the work thrown away.
    """
    max_unread_tokens: int | None = None
    """A replica that has so many prompt tokens yet to read gets none of this tier."""
    max_kv_share: float | None = None
    """A replica whose KV cache is in use to this share, 0 to 1, gets none of this tier: where it
    is full, an engine lets nobody in, whatever the tier, and throws work away."""
    max_requests: int | None = None
    """A replica that has so many requests in flight, of any tier, gets none of this tier."""

    @property
    def capped(self) -> bool:
        """Whether `fits` can say no."""
        caps = (self.max_unread_tokens, self.max_kv_share, self.max_requests)
        return caps != (None, None, None)

    def fits(self, in_flight: int, unread_tokens: float, kv_share: float | None = None) -> bool:
        """Whether a replica with this load may get one more of this tier. An idle one always may.

        `kv_share` is None where nobody knows. What the request itself weighs plays no part: one
        that is large would wait for ever for room that the small ones behind it take first.
        """
        if in_flight == 0:
            return True
        if self.max_requests is not None and in_flight >= self.max_requests:
            return False
        if self.max_unread_tokens is not None and unread_tokens >= self.max_unread_tokens:
            return False
        return self.max_kv_share is None or kv_share is None or kv_share < self.max_kv_share


INTERACTIVE: Final = Tier(name="interactive", rank=0, preempts=True)
"""Somebody looks at the screen. A pool with this tier alone is a bounded queue, nothing more."""

BATCH: Final = Tier(
    name="batch",
    rank=1,
    queue=8192,
    queue_s=300.0,
    handicap_s=30.0,
    yields_s=2.0,
    max_unread_tokens=4096,
    max_kv_share=0.8,
)
"""Nobody looks: what counts is how much gets done in an hour."""

TIERS: Final = (INTERACTIVE, BATCH)


class Standing(msgspec.Struct):
    """What a request brings for its place in line; the same from its arrival to its end."""

    tier: str
    arrived: float
    """`trio.current_time` when its head was there."""
    deadline: float | None = None
    """When it must have a replica (`trio.current_time`); later it is of no use. None: any time."""
    put_backs: int = 0
    """How often it had a replica and was put back in line."""
    placed: bool = False
    """Whether it ever had a replica: who was let in once is not refused when it comes again."""
