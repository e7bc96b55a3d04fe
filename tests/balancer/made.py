"""Replicas and requests to put before a policy."""

from __future__ import annotations

from dataclasses import dataclass, field

from balancer.load import Load
from balancer.readings import Gauges, GpuReading
from balancer.speed import Speed


@dataclass(eq=False)
class Member:
    """A replica as policies see it."""

    name: str
    in_flight: int = 0
    load: Load = field(default_factory=Load)
    speed: Speed = field(default_factory=Speed)
    gauges: Gauges | None = None
    gpu: GpuReading | None = None


def members(*loads: int) -> list[Member]:
    return [Member(f"r{number}", load) for number, load in enumerate(loads)]
