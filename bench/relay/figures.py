"""The arithmetic of the benchmark: from runs to figures, medians and verdicts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, NamedTuple

from bench.relay.workloads import (
    HELD,
    PACED_32,
    PACED_256,
    PLAIN,
    SATURATED,
    STAGGERED_32,
    STAGGERED_256,
)


@dataclass(frozen=True)
class Run:
    """One workload at one target, once. Seconds are of the measured part alone."""

    target: str
    workload: str
    repetition: int
    requests: float
    """Answered in the measured part; where a time was measured, the mean of begun and ended."""
    events: int
    reads: int
    """Reads of the client that held events: fewer than events where chunks arrived together."""
    errors: Mapping[str, int]
    wall_s: float
    cpu_s: float | None
    """The proxy's, with all threads and children; None where there is no proxy."""
    cpu_stat_s: float | None
    """The same by /proc/<pid>/stat alone, in steps of 10 ms."""
    cpu_source: str
    client_cpu_s: float
    fake_cpu_s: float
    ttft_p50_s: float
    ttft_p90_s: float


@dataclass(frozen=True)
class HeldRun:
    """Many slow streams at one target, held open at once."""

    target: str
    streams: int
    idle_bytes: int | None
    """Resident memory of the fresh process after one request; None where there is no proxy."""
    held_bytes: int | None
    """Resident memory while all streams were open."""
    errors: Mapping[str, int]


class Spread(NamedTuple):
    """A figure over the repetitions."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Figure:
    """One line of the result and what Triolet is held to."""

    key: str
    title: str
    unit: str
    ratio: float | None = None
    """At most this many times the better of the peers."""
    below: float | None = None
    """Less than this, whatever the peers do."""


def _chunk_figure(key: str, streams: str) -> Figure:
    return Figure(key, f"CPU per chunk, 20 ms a token, {streams}", "µs", ratio=1.1)


FIGURES: Final = (
    Figure("request", "CPU per request", "µs", ratio=1.5),
    Figure("chunk_saturated", "CPU per chunk, saturated", "µs", ratio=0.8),
    Figure("stream_saturated", "CPU per whole 32-token stream, saturated", "µs"),
    _chunk_figure("chunk_paced_32", "in step, 32 streams"),
    _chunk_figure("chunk_paced_256", "in step, 256 streams"),
    _chunk_figure("chunk_staggered_32", "staggered, 32 streams"),
    _chunk_figure("chunk_staggered_256", "staggered, 256 streams"),
    Figure("ttft_p50", "TTFT added over direct, p50, staggered, 32 streams", "ms", below=1.0),
    Figure("ttft_p90", "TTFT added over direct, p90, staggered, 32 streams", "ms"),
    Figure("idle", "memory, idle", "MB", below=70.0),
    Figure("stream", "memory per held stream", "kB", below=40.0),
    Figure("errors", "errors, all workloads", "", below=1.0),
)


class Verdict(NamedTuple):
    """Whether Triolet keeps one limit."""

    limit: str
    """The limit in words."""
    ratio: float | None
    """To the better peer, for a limit that is a ratio."""
    kept: bool


def figures(
    runs: Sequence[Run], held: Iterable[HeldRun], *, direct: str
) -> dict[str, dict[str, Spread]]:
    """Every figure there is for every proxy: target, then a key of FIGURES, then its spread."""
    held = tuple(held)
    names = dict.fromkeys([run.target for run in runs] + [run.target for run in held])
    return {name: _of_target(name, runs, held, direct=direct) for name in names if name != direct}


def _of_target(
    name: str, runs: Sequence[Run], held: Sequence[HeldRun], *, direct: str
) -> dict[str, Spread]:
    own = _by_place(run for run in runs if run.target == name)
    base = _by_place(run for run in runs if run.target == direct)
    values: dict[str, list[float]] = {
        "request": [request_us(run) for (kind, _), run in own.items() if kind == PLAIN],
        "chunk_saturated": _chunks(own, SATURATED),
        "stream_saturated": [
            request_us(run) for (kind, _), run in own.items() if kind == SATURATED
        ],
        "chunk_paced_32": _chunks(own, PACED_32),
        "chunk_paced_256": _chunks(own, PACED_256),
        "chunk_staggered_32": _chunks(own, STAGGERED_32),
        "chunk_staggered_256": _chunks(own, STAGGERED_256),
        "ttft_p50": _added(own, base, "ttft_p50_s"),
        "ttft_p90": _added(own, base, "ttft_p90_s"),
        "idle": [],
        "stream": [],
        "errors": [],
    }
    memory = [run for run in held if run.target == name]
    for one in memory:
        if one.idle_bytes is not None and one.held_bytes is not None:
            values["idle"].append(one.idle_bytes / 1e6)
            values["stream"].append((one.held_bytes - one.idle_bytes) / one.streams / 1e3)
    everything: list[Run | HeldRun] = [*own.values(), *memory]
    if everything:
        values["errors"] = [sum(sum(run.errors.values()) for run in everything)]
    return {key: spread(found) for key, found in values.items() if found}


def _by_place(runs: Iterable[Run]) -> dict[tuple[str, int], Run]:
    return {(run.workload, run.repetition): run for run in runs}


def _chunks(own: Mapping[tuple[str, int], Run], workload: str) -> list[float]:
    """CPU per chunk, each repetition's with its own cost of a request."""
    return [
        chunk_us(run, own[PLAIN, repetition])
        for (kind, repetition), run in own.items()
        if kind == workload and run.events and (PLAIN, repetition) in own
    ]


def _added(
    own: Mapping[tuple[str, int], Run], base: Mapping[tuple[str, int], Run], name: str
) -> list[float]:
    """Milliseconds more than direct; staggered, as the wait for a step would drown them."""
    return [
        (getattr(run, name) - getattr(base[place], name)) * 1e3
        for place, run in own.items()
        if place[0] == STAGGERED_32 and place in base
    ]


def request_us(run: Run) -> float:
    """CPU microseconds per request of a run without streams."""
    return (run.cpu_s or 0.0) / max(1.0, run.requests) * 1e6


def chunk_us(run: Run, plain: Run) -> float:
    """CPU microseconds per chunk: what is left when each stream's request is paid for."""
    request_s = request_us(plain) / 1e6
    return ((run.cpu_s or 0.0) - run.requests * request_s) / max(1, run.events) * 1e6


def spread(values: Sequence[float]) -> Spread:
    """Median, lowest and highest of at least one value."""
    return Spread(median(values), min(values), max(values))


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of the values do not exceed; NaN of none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def better_peer(
    found: Mapping[str, Mapping[str, Spread]], key: str, *, own: str
) -> tuple[str, float] | None:
    """The other target with the lowest median of a figure."""
    others = [
        (values[key].median, name)
        for name, values in found.items()
        if name != own and key in values
    ]
    if not others:
        return None
    value, name = min(others)
    return name, value


def verdict(
    figure: Figure, found: Mapping[str, Mapping[str, Spread]], *, own: str
) -> Verdict | None:
    """Whether `own` keeps the figure's limit; None where there is none or nothing to compare."""
    if own not in found or figure.key not in found[own]:
        return None
    value = found[own][figure.key].median
    if figure.below is not None:
        limit = "none" if figure.key == "errors" else f"< {figure.below:g} {figure.unit}"
        return Verdict(limit, None, value < figure.below)
    peer = better_peer(found, figure.key, own=own)
    if figure.ratio is None or peer is None:
        return None
    ratio = value / peer[1]
    return Verdict(f"<= {figure.ratio:g} x {peer[0]}", ratio, ratio <= figure.ratio)


def load_side_share(run: Run) -> float:
    """How much of a core client and replica used together; near 1 they were the bottleneck."""
    return (run.client_cpu_s + run.fake_cpu_s) / run.wall_s


LOAD_SIDE_LIMIT: Final = 0.85


def load_side_notes(runs: Iterable[Run], *, direct: str) -> list[str]:
    """One line per proxy and workload whose measurement the load side may have held back."""
    worst: dict[tuple[str, str], float] = {}
    for run in runs:
        if run.target != direct and run.workload != HELD:
            place = (run.workload, run.target)
            worst[place] = max(worst.get(place, 0.0), load_side_share(run))
    return [
        f"{workload} at {target}: client and fake replica used {share:.0%} of a core, so they "
        "were the bottleneck: CPU figures hold, rates and TTFT do not"
        for (workload, target), share in worst.items()
        if share > LOAD_SIDE_LIMIT
    ]
