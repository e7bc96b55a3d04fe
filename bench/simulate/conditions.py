"""Under which conditions a workload is played: what the router sees, and what goes wrong."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

__all__ = ["Conditions", "Counts", "Disturbance", "parse_disturbance"]

Counts = Literal["estimated", "exact"]


class Disturbance(msgspec.Struct, frozen=True):
    """Something is wrong with one replica."""

    replica: int
    """Its number: 0 is `http://sim-0`."""
    amount: float
    """See where it is used."""


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """By default what a router meets in practice: counts are estimates, all else is in order.

    Raises ValueError for a value out of range.
    """

    counts: Counts = "estimated"
    """Whether policies see prompt tokens as a router estimates them, or as the engine counts."""
    reports_cached: bool = True
    """Whether engines say how much of a prompt they had in their cache."""
    prior_error: float = 1.0
    """What every replica's first guess of its speed is multiplied by."""
    tiers: bool = True
    """Whether the pool tells interactive requests from batch; if not, all stand in one line."""
    slow: tuple[Disturbance, ...] = ()
    """Replicas whose every step takes `amount` (1 or more) times as long, without a word."""
    foreign: tuple[Disturbance, ...] = ()
    """Replicas whose GPU is used by somebody else too, who takes the share `amount` (above 0 and
    below 1) of its time in periods."""

    def __post_init__(self) -> None:
        if not 0 < self.prior_error < math.inf:
            raise ValueError(f"the prior error must be a number above 0, not {self.prior_error}")
        for slow in self.slow:
            if not 1 <= slow.amount < math.inf:
                raise ValueError(f"a slow replica's factor must be 1 or more, not {slow.amount}")
        for foreign in self.foreign:
            if not 0 < foreign.amount < 1:
                raise ValueError(
                    f"a foreign job's share must be above 0 and below 1, not {foreign.amount}"
                )

    @property
    def disturbed(self) -> frozenset[int]:
        """The numbers of the replicas with which something is wrong."""
        return frozenset(one.replica for one in (*self.slow, *self.foreign))


def parse_disturbance(text: str, replicas: int) -> Disturbance:
    """`sim-0:2` as replica 0 and the amount 2. Raises ValueError if it is anything else."""
    name, _, amount = text.partition(":")
    number = name.removeprefix("sim-")
    try:
        parsed = Disturbance(int(number), float(amount))
    except ValueError:
        raise ValueError(f"{text!r}: expected a replica and a number, such as sim-0:2") from None
    if not 0 <= parsed.replica < replicas:
        raise ValueError(f"{text!r}: there are sim-0 to sim-{replicas - 1}")
    return parsed
