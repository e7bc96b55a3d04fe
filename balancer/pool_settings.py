"""How a pool treats failures, and how long it waits for what."""

from __future__ import annotations

from typing import NamedTuple

from balancer.faults import Fault
from balancer.hedge import HedgeSettings
from balancer.outliers import OutlierSettings
from balancer.retry import FALLBACK_ON, BudgetSettings

__all__ = ["PoolSettings", "Timeouts"]


class Timeouts(NamedTuple):
    """Limits on time, in seconds; each bounds a different wait (see `docs/reference/config.md`)."""

    connect_s: float = 2.0
    first_byte_s: float = 120.0
    idle_s: float = 30.0
    total_s: float = 600.0


class PoolSettings(NamedTuple):
    """How a pool treats failures."""

    retries: int = 2
    """Further attempts after one that failed before its first event."""
    retry_budget: BudgetSettings = BudgetSettings()
    outliers: OutlierSettings = OutlierSettings()
    panic: float = 0.25
    """If fewer than this share of its living replicas are fit, all that live are used."""
    hedge: HedgeSettings | None = None
    """When a first token is asked for twice; None: never."""
    fallback: tuple[str, ...] = ()
    """Models whose pools are asked, in this order, when this one gave up."""
    fallback_on: frozenset[Fault] = FALLBACK_ON
    hold_s: float = 1.0
    """How long the head of a stream is held back, after its first event, for one that carries
    something: until then the request can be tried elsewhere. 0: not at all."""
