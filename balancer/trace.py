"""What happened to one request on its way through the balancer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from balancer.lease import Lease
from balancer.policies import Outcome
from balancer.wire.openai import Usage

__all__ = ["Trace"]

_NO_USAGE: Final = Usage()


@dataclass(slots=True)
class Trace:
    """What happened to one request. Times are those of `trio.current_time`, in seconds."""

    started: float
    model: str
    """Whose pool answered, or was asked last: not the one asked for, if `fell_back_from`."""
    queued_s: float = 0.0
    attempts: int = 0
    """Tries begun, but for those that were put back. A hedged one counts once."""
    replica: str | None = None
    sent_at: float | None = None
    first_at: float | None = None
    """When the first event that carries something was here."""
    last_at: float | None = None
    committed: bool = False
    """Whether the client was sent a head: from then on failures are told in-band."""
    stream: bool = False
    events: int = 0
    usage: Usage = _NO_USAGE
    put_backs: int = 0
    """How often its place went to a request of a higher tier."""
    hedged: bool = False
    """Whether its first event was asked for twice ..."""
    hedge_won: bool = False
    """... and came from the second replica."""
    failures: list[str] = field(default_factory=list)
    """The kinds of the attempts that failed, in order."""
    fell_back_from: list[str] = field(default_factory=list)
    """The models whose pools gave up, in order."""
    leases: list[Lease] = field(default_factory=list)
    """Where it went, and why: that of the replica which answered, if one did, is the last."""

    @property
    def ttft_s(self) -> float | None:
        """From the request's arrival here to its first event."""
        return None if self.first_at is None else self.first_at - self.started

    @property
    def itl_s(self) -> float | None:
        """Inter-token latency as GenAI-Perf defines it: the mean gap after the first token."""
        tokens = self.usage.completion_tokens or self.events
        if not self.stream or tokens < 2 or self.last_at is None or self.first_at is None:
            return None
        return (self.last_at - self.first_at) / (tokens - 1)

    @property
    def observed_ttft_s(self) -> float | None:
        """From the last lease to the first event. None for what is no stream: then the first thing
        to be seen is the end of the answer."""
        if self.first_at is None or not self.stream:
            return None
        return self.first_at - self.leases[-1].leased_at

    @property
    def predicted_ttft_s(self) -> float | None:
        """The same as its policy foresaw it; None if it foresees nothing."""
        explanation = self.leases[-1].explanation if self.leases else None
        return None if explanation is None else explanation.predicted_ttft_s

    def outcome(self) -> Outcome:
        """What the policy is told of the attempt that answered."""
        usage = self.usage
        return Outcome(
            self.first_at is not None,
            self.observed_ttft_s,
            self.itl_s,
            usage.prompt_tokens,
            usage.cached_tokens,
            usage.completion_tokens,
        )
