"""What replicas and their GPUs say of themselves: snapshots, taken by probes, read by policies.

What was not said is None, never 0. Times are those of `trio.current_time`, in seconds.
"""

from __future__ import annotations

import msgspec

__all__ = ["Gauges", "GpuReading"]


class Gauges(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine last said of its load."""

    at: float
    """When it was read."""
    running: float | None = None
    """Requests in its batch."""
    waiting: float | None = None
    """Requests in its own queue."""
    kv_share: float | None = None
    """How much of its KV cache is in use, 0 to 1."""
    kv_tokens: int | None = None
    """Tokens that its KV cache holds."""
    max_running: int | None = None
    """Requests that fit into its batch (llama.cpp: slots)."""
    occupancy: float | None = None
    """Share of time in the GPU's forward pass, 0 to 1 (SGLang's `fwd_occupancy`)."""
    cached_tokens: float | None = None
    """Prompt tokens found in its prefix cache since it started; a counter."""
    prompt_tokens: float | None = None
    """Prompt tokens looked up there since it started; a counter. Falls back when it restarts."""
    started_at: float | None = None
    """The engine's `process_start_time_seconds`: another value means that it was restarted."""


class GpuReading(msgspec.Struct, frozen=True, kw_only=True):
    """What the GPUs behind one replica last said; of several the one that matters most."""

    at: float
    """When it was read."""
    utilisation: float | None = None
    """Share of the last sampling period in which any kernel ran, 0 to 1; the busiest GPU."""
    memory_share: float | None = None
    """Memory in use, 0 to 1; the fullest GPU."""
    memory_free_bytes: int | None = None
    """Memory free; the fullest GPU."""
    foreign_memory_bytes: int | None = None
    """Memory held by processes that are not the replica's; all its GPUs together."""
    power_w: float | None = None
    """All GPUs together."""
    temperature_c: float | None = None
    """The hottest GPU."""
    throttled: tuple[str, ...] = ()
    """Why clocks are held down, of the reasons that slow work: `power_brake`, `hw_thermal`, ..."""
    fault: str | None = None
    """A GPU that cannot be used: lost, or an XID error of the kind that ends work on it."""
