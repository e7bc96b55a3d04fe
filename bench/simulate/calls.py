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
        self.prompt_tokens = array("q")
        self.cached_tokens = array("q")
        self.output_tokens = array("q")
        self.replica = array("q")
        self.group = array("q")
        self.tier: list[str] = []
        self.refused: dict[str, int] = {}
        """By tier: those that could not be served at all."""
        self.not_sent = 0
        """Turns after a refused one: without its answer there is nothing to go on with."""
        self.put_back = 0
        """How often one lost its place to another of a higher tier before it was answered."""
        self.broken_groups: set[int] = set()
        """Fan-out runs that miss a branch, and so never ended."""

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

    def refuse(self, session: Session, not_sent: int = 0) -> None:
        """A request was refused, and with it the session's `not_sent` turns after it."""
        self.refused[session.tier] = self.refused.get(session.tier, 0) + 1
        self.not_sent += not_sent
        if session.group:
            self.put_back = 0
        """How often one lost its place to another of a higher tier before it was answered."""
        self.broken_groups.add(session.group)
