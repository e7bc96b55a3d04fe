"""One measured run: everything a report needs of it, and nothing it computes."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from bench.load.record import Probe, Record

__all__ = ["ClientLag", "Mode", "Run", "ServerFacts"]

Mode = Literal["concurrency", "request_rate", "schedule"]
"""Closed loop; open loop at a rate; open loop after a trace's or a file's time stamps."""


class ClientLag(msgspec.Struct, frozen=True, kw_only=True):
    """How late the load client itself was: what it measured is no truer than this."""

    mean_s: float = 0.0
    """How late a timer of the client's loop fired, on average."""
    p99_s: float = 0.0
    max_s: float = 0.0
    late_sends: int = 0
    """Requests sent later than planned because of the client (open loop only)."""
    cpu_share: float | None = None
    """The client's CPU time over the duration: 1.0 is one core."""
    spoiled: bool = False
    """True if the client was too late for its numbers to be trusted; a warning says why."""


class ServerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the target said of itself, beside the measurement. All of it optional."""

    software: str | None = None
    """The `server` header, or name and version as its version path gives them."""
    metrics_before: dict[str, float] = {}
    """Samples of its metrics page just before the measured phase, by name with labels."""
    metrics_after: dict[str, float] = {}


class Run(msgspec.Struct, kw_only=True):
    """One load point: one workload at one load against one target.

    Records and probes count seconds from one start, which was `started_at` on the wall clock.
    """

    records: list[Record]
    """Every request that was sent, warm-up and failed ones too, in any order."""
    probes: list[Probe] = []
    """Probes sent beside the load."""
    idle_probes: list[Probe] = []
    """The same probes sent before the load, to compare with."""

    started_at: float
    """Wall clock at the records' second 0: seconds since the epoch."""
    duration_s: float
    """How long the measured phase was driven. Rates do not use it: see `metrics.duration_s`."""
    mode: Mode
    load: float | None = None
    """Concurrency, or requests per second; None for a schedule."""

    model: str
    url: str
    endpoint_type: str = "chat"
    """`chat`, `completions`, `responses`, ..."""
    streamed: bool = True
    """Whether answers were asked for as streams."""
    name: str = ""
    """What the user calls it, in comparisons; runs of one name are repetitions of one another."""
    workload: str = ""
    """The workload's name: runs with different ones are not comparable."""

    command_line: str = ""
    seed: int | None = None
    version: str = ""
    """Triolet's version, with the commit where it is known."""
    config: dict[str, Any] = {}
    """The options as they took effect, by flag name without dashes; JSON values only."""
    environment: dict[str, str] = {}
    """Python, operating system, cores, and whatever else was noted."""

    was_cancelled: bool = False
    """The user stopped it: what was measured until then is reported."""
    warnings: list[str] = []
    """What the client noticed that makes the numbers less than they seem."""
    client_lag: ClientLag | None = None
    goodput: dict[str, float] = {}
    """Objectives by metric name: milliseconds, or tokens per second for throughputs.
    See `goodput.parse_goodput`."""
    server: ServerFacts | None = None
