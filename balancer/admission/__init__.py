"""Who may go to a replica now, in which order the others wait, and who is refused at once."""

from __future__ import annotations

from balancer.admission.line import Held, Line, Room
from balancer.admission.tier import BATCH, INTERACTIVE, TIERS, Standing, Tier
from balancer.admission.tier_line import Ticket, TierStatistics

__all__ = [
    "BATCH",
    "INTERACTIVE",
    "TIERS",
    "Held",
    "Line",
    "Room",
    "Standing",
    "Ticket",
    "Tier",
    "TierStatistics",
]
