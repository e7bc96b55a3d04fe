"""What a run yields: its records, and what is known of the client that made them."""

from __future__ import annotations

import msgspec

from bench.load.plan import Plan
from bench.load.record import Probe, Record

__all__ = ["ClientFacts", "RunResult"]


class ClientFacts(msgspec.Struct, frozen=True, kw_only=True):
    """How the load client itself did. What it measured is no truer than this.

    All of the measured phase. "Late" is how long after its time a timer of the loop fired.
    """

    lag_mean_s: float = 0.0
    lag_p50_s: float = 0.0
    lag_p99_s: float = 0.0
    lag_max_s: float = 0.0
    pass_p50_s: float = 0.0
    """How long the loop worked between two looks at the network: a chunk's arrival time is late by
    at most this."""
    pass_p99_s: float = 0.0
    pass_max_s: float = 0.0
    busy_share: float = 0.0
    """Share of the time in which the loop worked, 0 to 1. Near 1 the client is the bottleneck."""
    send_delay_p50_s: float | None = None
    """From the scheduled time to the first byte sent (open loop only)."""
    send_delay_p99_s: float | None = None
    late_sends: int = 0
    """Requests sent over a millisecond after their time (open loop only)."""
    capped: int = 0
    """Requests that waited because `max_in_flight` was reached."""
    behind_s: float = 0.0
    """How long the first request that was never sent for that reason had been due."""
    cpu_s: float = 0.0
    """CPU time of this process."""
    wall_s: float = 0.0
    chunks: int = 0
    cpu_us_per_request: float | None = None
    """CPU time over requests that were not streamed; None if any was."""
    cpu_us_per_chunk: float | None = None
    """CPU time over chunks with text of streams, their requests' share included."""
    spoiled: bool = False
    """Whether a lag warning was raised: then the latencies are the client's as well."""


class RunResult(msgspec.Struct, kw_only=True):
    """One load point, measured. Records and probes count seconds from one start."""

    plan: Plan
    """As it was run, without secrets."""
    workload: str
    workload_about: str = ""
    records: list[Record]
    """Every request sent, in the order of sending; warm-up and failed ones too."""
    probes: list[Probe] = []
    """Beside the load."""
    idle_probes: list[Probe] = []
    """The same, before the load."""
    started_at: float
    """Wall clock at second 0: seconds since the epoch."""
    duration_s: float = 0.0
    """From the first request sent to the last answer's end, of the measured phase."""
    sessions_started: int = 0
    turns_not_sent: int = 0
    """Turns of sessions that ended early: a turn before them failed, or the run ended."""
    metrics_before: dict[str, float] = {}
    """Samples of the target's metrics pages just before the measured phase (see `scrape`)."""
    metrics_after: dict[str, float] = {}
    was_cancelled: bool = False
    """Stopped by hand; everything measured until then is here."""
    warnings: list[str] = []
    client: ClientFacts = ClientFacts()

    @property
    def measured(self) -> list[Record]:
        """The records of the measured phase."""
        return [record for record in self.records if record.phase == "profiling"]
