"""What is noted of each simulated request: columns of numbers, so that millions fit."""

from __future__ import annotations

from array import array

from bench.engine import Sequence
from bench.workload.model import Session

__all__ = ["Calls"]


class Calls:
    """One row per request that was answered, in the order of their ends. Times in seconds."""

    def __init__(self) -> None:
        self.asked_s = array("d")
        """When it should have been sent: due time in an open loop, else when it was."""
        self.sent_s = array("d")
        """When it reached its replica."""
        self.first_s = array("d")
        self.ended_s = array("d")
        self.prompt_tokens = array("l")
        self.cached_tokens = array("l")
        self.output_tokens = array("l")
        self.replica = array("l")
        self.group = array("q")
        self.tier: list[str] = []
        self.refused: dict[str, int] = {}
        """By tier: those that could not be served at all."""

    def __len__(self) -> int:
        return len(self.asked_s)

    def note(self, session: Session, asked_s: float, running: Sequence, replica: int) -> None:
        """A request has been answered."""
        assert running.first_token_s is not None
        assert running.finished_s is not None
        self.asked_s.append(asked_s)
        self.sent_s.append(running.arrived_s)
        self.first_s.append(running.first_token_s)
        self.ended_s.append(running.finished_s)
        self.prompt_tokens.append(running.prompt_tokens)
        self.cached_tokens.append(running.cached_tokens)
        self.output_tokens.append(running.output_tokens)
        self.replica.append(replica)
        self.group.append(session.group)
        self.tier.append(session.tier)

    def refuse(self, tier: str) -> None:
        """A request was refused."""
        self.refused[tier] = self.refused.get(tier, 0) + 1
