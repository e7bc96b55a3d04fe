"""Probes of the management side: how fast it answered beside the load, and how fast without."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from bench.load.record import Probe
from bench.report.statistics import Summary, summarize

__all__ = ["Probed", "ProbeReport", "failures_text", "probe_reports"]


class Probed(msgspec.Struct, frozen=True, kw_only=True):
    """One path's probes in one period."""

    sent: int
    latency: Summary | None
    """Milliseconds from when it was due to the end of the answer, good answers only."""
    failures: dict[str, int]
    """By kind; a status of 400 or above counts as `http_...`."""


class ProbeReport(msgspec.Struct, frozen=True, kw_only=True):
    """One path, beside the load and before it."""

    path: str
    loaded: Probed
    idle: Probed | None


def probe_reports(loaded: Sequence[Probe], idle: Sequence[Probe]) -> list[ProbeReport]:
    """One report a path, in the order they first come."""
    paths = dict.fromkeys(probe.path for probe in (*loaded, *idle))
    return [
        ProbeReport(
            path=path,
            loaded=_probed([one for one in loaded if one.path == path]),
            idle=_probed(quiet) if (quiet := [one for one in idle if one.path == path]) else None,
        )
        for path in paths
    ]


def failures_text(probed: Probed) -> str:
    """How many failed of what, as `http_404 50, timeout 6`; `0` if none did."""
    return ", ".join(f"{kind} {count:,}" for kind, count in probed.failures.items()) or "0"


def _probed(probes: Sequence[Probe]) -> Probed:
    failures = Counter(kind for probe in probes if (kind := _failure(probe)) is not None)
    return Probed(
        sent=len(probes),
        latency=summarize(
            [
                (probe.ended_s - probe.scheduled_s) * 1e3
                for probe in probes
                if _failure(probe) is None and probe.ended_s is not None
            ]
        ),
        failures=dict(failures.most_common()),
    )


def _failure(probe: Probe) -> str | None:
    if probe.error is not None:
        return probe.error
    if probe.ended_s is None:
        return "unfinished"
    if probe.status is not None and probe.status >= 400:
        return f"http_{probe.status}"
    return None
