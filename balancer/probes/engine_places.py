"""Where engines tell of their load: tried in this order until one answers, then remembered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from balancer.probes.engine_metrics import Reading, read_page
from balancer.probes.engine_status import read_get_load, read_loads, read_slots
from balancer.probes.exposition import ExpositionInvalid
from balancer.readings import Gauges

__all__ = ["PAGE", "PLACES", "Place"]


class Place(NamedTuple):
    """A path, and how to read what is there."""

    path: str
    engine: str = ""
    """Whose path it is; empty for a page of metrics, which tells itself."""
    gauges: Callable[[bytes, float], Gauges | None] | None = None
    """From JSON; None for a page of metrics."""
    most_bytes: int = 262_144
    """Longer JSON is not read: it would hold the loop, in whichever thread."""

    @property
    def is_page(self) -> bool:
        """Whether it is a page of metrics, of which little is looked at, and not JSON."""
        return self.gauges is None

    def read(self, body: bytes, now: float, known: str) -> Reading | None:
        """What it says; None if nothing of any engine's load. `known`: the engine last time."""
        if self.gauges is None:
            try:
                return read_page(body, now, known=known)
            except ExpositionInvalid:
                return None
        gauges = self.gauges(body, now)
        return None if gauges is None else Reading(self.engine, gauges)


PLACES: Final = (
    Place("/metrics"),
    Place("/prometheus/metrics"),  # trtllm-serve; its /metrics is something else
    Place("/v1/loads?include=core", "sglang", read_loads, 65_536),  # without --enable-metrics
    Place("/get_load", "sglang", read_get_load, 65_536),  # before /v1/loads
    Place("/slots", "llama.cpp", read_slots),  # without --metrics
)

PAGE: Final = (Place(""),)
"""The one place under the URL of a page of metrics."""
