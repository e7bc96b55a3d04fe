"""What a policy may know of a replica."""

from __future__ import annotations

from typing import Protocol, TypeVar

from balancer.load import Load
from balancer.readings import Gauges, GpuReading
from balancer.speed import Speed

__all__ = ["Loaded", "R"]


class Loaded(Protocol):
    """A replica as policies see it."""

    @property
    def name(self) -> str:
        """Its address; unique in a pool."""

    @property
    def in_flight(self) -> int:
        """Requests leased to it now and not yet settled."""

    @property
    def load(self) -> Load:
        """The same by what they weigh: own books, never stale."""

    @property
    def speed(self) -> Speed:
        """How fast it reads and writes, as learned."""

    @property
    def gauges(self) -> Gauges | None:
        """What its engine last said of itself; None if it never did."""

    @property
    def gpu(self) -> GpuReading | None:
        """What its GPUs last said; None if nobody knows them."""

    @property
    def foreign_share(self) -> float:
        """Share of its GPUs' time that others take, 0 to 0.8; 0 if nothing is known of any."""

    @property
    def foreign_requests(self) -> float:
        """Requests in its engine that did not come from here; 0 if nothing is known of any."""


R = TypeVar("R", bound=Loaded)
