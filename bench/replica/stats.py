"""The replica's counters, plain numbers so that counting a token costs next to nothing."""

from __future__ import annotations

from bisect import bisect_left
from enum import StrEnum
from typing import Final, NamedTuple

__all__ = ["EngineStats", "FinishReason", "Histogram", "Times"]

# vLLM's own bounds, so that quantiles computed from the demo look as they will in production.
TTFT_BOUNDS_S: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
ITL_BOUNDS_S: Final = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
REQUEST_BOUNDS_S: Final = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0),
    *(40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)


class FinishReason(StrEnum):
    """How a request ended, in vLLM's words. A request that was refused has no such end."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


class Times(NamedTuple):
    """When things happened to a request, in seconds on one clock; None: not before it ended."""

    arrived_s: float
    queued_s: float
    """When it had come through the front end."""
    scheduled_s: float | None
    first_token_s: float | None
    ended_s: float


class Histogram:
    """Counts of observations per bucket, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """One count per bucket, not cumulative; the last is for everything above the bounds."""
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        # An upper bound belongs to its bucket, as Prometheus defines `le`.
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times


class EngineStats:
    """What the replica has done since it started."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.finished = dict.fromkeys(FinishReason, 0)
        self.ttft_s = Histogram(TTFT_BOUNDS_S)
        self.itl_s = Histogram(ITL_BOUNDS_S)
        self.tpot_s = Histogram(ITL_BOUNDS_S)
        self.e2e_s = Histogram(REQUEST_BOUNDS_S)
        self.queue_s = Histogram(REQUEST_BOUNDS_S)
        self.prefill_s = Histogram(REQUEST_BOUNDS_S)
        self.decode_s = Histogram(REQUEST_BOUNDS_S)
        self.inference_s = Histogram(REQUEST_BOUNDS_S)

    def first_token(self, prompt_tokens: int, ttft_s: float) -> None:
        """A prompt is computed."""
        self.prompt_tokens += prompt_tokens
        self.ttft_s.observe(ttft_s)

    def ended(self, reason: FinishReason, times: Times, tokens: int) -> None:
        """A request ended with `tokens` tokens made."""
        arrived_s, queued_s, scheduled_s, first_s, ended_s = times
        self.finished[reason] += 1
        self.e2e_s.observe(ended_s - arrived_s)
        if scheduled_s is None:
            return
        self.queue_s.observe(max(0.0, scheduled_s - queued_s))
        self.inference_s.observe(ended_s - scheduled_s)
        if first_s is None:
            return
        self.prefill_s.observe(first_s - scheduled_s)
        self.decode_s.observe(ended_s - first_s)
        if tokens > 1:
            self.tpot_s.observe((ended_s - first_s) / (tokens - 1))
