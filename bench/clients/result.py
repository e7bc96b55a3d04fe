"""What every client is asked to do, and what each one says came of it."""

from __future__ import annotations

import msgspec

__all__ = ["ClientFailed", "Load", "Result", "Times"]


class ClientFailed(Exception):
    """A client did not run to its end, or left no result that can be read; the message says why."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """A closed loop of chat requests, all of one size. Raises ValueError for less than 1."""

    model: str = "demo"
    concurrency: int = 4
    """Requests under way at any moment."""
    requests: int = 120
    """How many are measured."""
    warmup_requests: int = 4
    """How many come before them, and are not measured."""
    input_tokens: int = 200
    """Of each prompt, as the tokenizer of `bench.clients.tokenizer` counts."""
    output_tokens: int = 50
    """Of each answer: both asked for as the limit and reached, since end marks are ignored."""
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("concurrency", "requests", "warmup_requests", "input_tokens", "output_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: expected 1 or more")


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds, of requests that succeeded. None: the client does not say.

    The definitions are GenAI-Perf's and AIPerf's; where a client's differ, its module converts, or
    leaves the field empty, or `bench.clients.compare` knows by how much.
    """

    ttft_avg_ms: float | None = None
    """Time to the first text of the answer."""
    ttft_p50_ms: float | None = None
    ttft_p99_ms: float | None = None
    itl_avg_ms: float | None = None
    """Inter-token latency: (last - first text) / (output tokens - 1), one value a request."""
    itl_p50_ms: float | None = None
    latency_avg_ms: float | None = None
    """Time to the last text of the answer."""
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One client's own account of one run."""

    client: str
    sent: int
    """Measured requests, failed ones included."""
    errors: int
    times: Times
    tokens_per_s: float | None = None
    """Output tokens of all requests over the time from first request to last answer."""
    requests_per_s: float | None = None
    output_tokens_avg: float | None = None
    """Length of an answer, by whatever the client counts with."""
    remarks: tuple[str, ...] = ()
    """What the client itself said of the quality of its measurement."""
