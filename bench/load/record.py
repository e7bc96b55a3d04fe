"""What is known of one measured request. Everything reported is computed from these."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Outcome", "Phase", "Probe", "Record"]

Phase = Literal["warmup", "profiling"]
Outcome = Literal["ok", "error", "cancelled", "unfinished"]
"""`cancelled`: by the plan (cancellation rate); `unfinished`: the run ended first."""


class Record(msgspec.Struct, kw_only=True):
    """One request. Times are seconds on one monotonic clock, counted from the run's start."""

    phase: Phase
    session: int
    turn: int
    request_id: str
    """What was sent as `x-request-id`."""
    streamed: bool
    scheduled_s: float | None = None
    """When the plan wanted it sent (open loop only)."""
    sent_s: float
    """Just before the request's first byte was written."""
    head_s: float | None = None
    """When the answer's head came."""
    content_s: list[float] = []
    """When each chunk with text came: content, reasoning or tool call; never an empty delta."""
    first_answer_s: float | None = None
    """The first chunk with text that was not reasoning."""
    ended_s: float | None = None
    """When the answer was complete, or had failed."""
    outcome: Outcome = "unfinished"
    error: str | None = None
    """The kind: `connect`; `reset` (closed before any answer); `timeout`; `cut` (died half-way, or
    ended without saying so); `invalid` (not HTTP, SSE or JSON as it should be); `in_band` (an error
    under status 200); `empty` (no text at all); `http_429`, `http_503`, ..."""
    error_message: str | None = None
    status: int | None = None
    retry_after_s: float | None = None
    asked_input_tokens: int
    """What the plan meant the prompt to have."""
    asked_output_tokens: int | None = None
    input_tokens: int | None = None
    """As the server's `usage` says; None if it says nothing."""
    output_tokens: int | None = None
    """As the server's `usage` says; None if it says nothing."""
    counted_output_tokens: int = 0
    """As the client counts the text it got: the builtin count of its pieces, or the chunks with
    text if they are more."""
    reasoning_tokens: int | None = None
    first_chunk_tokens: int = 1
    """What the first chunk with text held: from its own usage if it has one, else counted."""
    cached_tokens: int | None = None
    """Prompt tokens the server took from its prefix cache, if it says."""
    replica: str | None = None
    """`x-triolet-replica` or what the target uses to name the replica, if it says."""
    queue_s: float | None = None
    """Time it waited in the target's queue, if it says."""


class Probe(msgspec.Struct, kw_only=True):
    """One probe beside the load: a GET of an admin or health path."""

    path: str
    scheduled_s: float
    sent_s: float
    ended_s: float | None = None
    status: int | None = None
    error: str | None = None
