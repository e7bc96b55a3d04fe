"""From an engine's page of metrics to `Gauges`.

What a page does not say stays None. Of several ranks counts are added and shares averaged: a
replica of four ranks, one of them full, is a quarter full, as its own balancer spreads requests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from balancer.probes.engine_names import ENGINES, Engine, Field, Row, Source
from balancer.probes.exposition import Budget, Sample, has_prefix, number, read_samples
from balancer.readings import Gauges

__all__ = ["Reading", "Starts", "read_page"]

_COUNTERS: Final[frozenset[Field]] = frozenset({"cached_tokens", "prompt_tokens"})
_SHARES: Final[frozenset[Field]] = frozenset({"kv_share", "occupancy"})
_WHOLE: Final[frozenset[Field]] = frozenset({"kv_tokens", "max_running"})

_MOST: Final = 2.0**53
"""No count of an engine gets there, and above it a float is no longer exact."""
_SAME_START_S: Final = 1.0
"""Two start times closer than this are one: a restart takes longer."""
_PAGE_BYTES: Final = 524_288
"""What may be read of all names together: 30 of them, of 16 ranks, are half of it."""


class Reading(NamedTuple):
    """What an engine said, and which one it is."""

    engine: str
    gauges: Gauges


def read_page(page: bytes, now: float, *, known: str = "") -> Reading | None:
    """What a page says, read at `now`; None if it says nothing of any known engine's load.

    The engine that it was last time (`known`) is looked for first: the others cost a search each.
    Raises `ExpositionInvalid` for a page that no engine writes.
    """
    read = _Page(page)
    for engine in sorted(ENGINES, key=lambda engine: engine.name != known):
        if has_prefix(page, engine.prefix):
            gauges = _read(read, engine, now)
            if gauges is not None:
                return Reading(engine.name, gauges)
    return None


class Starts:
    """Whether an engine was started anew between two readings, so that its cache is empty.

    Where several processes answer at one URL in turn, neither start times nor counters say that. A
    start time that goes back gives them away, and a counter that is back up at once.
    """

    def __init__(self) -> None:
        self._several = False
        self._fell_from: Gauges | None = None

    def judge(self, before: Gauges, after: Gauges) -> Literal["same", "restarted", "several"]:
        """To be asked once for each reading; says `several` once, and then always `same`."""
        if self._several:
            return "same"
        fell_from, self._fell_from = self._fell_from, None
        if before.started_at is not None and after.started_at is not None:
            later_s = after.started_at - before.started_at
            self._several = later_s < -_SAME_START_S
            changed = later_s > _SAME_START_S
        else:
            self._several = fell_from is not None and not _fell(fell_from, after)
            changed = _fell(before, after)
            self._fell_from = before if changed else None
        if self._several:
            return "several"
        return "restarted" if changed else "same"


def _fell(before: Gauges, after: Gauges) -> bool:
    counted = (
        (before.prompt_tokens, after.prompt_tokens),
        (before.cached_tokens, after.cached_tokens),
    )
    return any(was is not None and now is not None and now < was for was, now in counted)


class _Page:
    """A page, searched at most once for each name, and read to a bound."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._budget = Budget(_PAGE_BYTES)
        self._read: dict[bytes, list[Sample]] = {}

    def samples(self, name: bytes) -> list[Sample]:
        if name not in self._read:
            self._read[name] = read_samples(self._text, name, self._budget)
        return self._read[name]


def _read(page: _Page, engine: Engine, now: float) -> Gauges | None:
    """None if nothing that tells of load is there: another server under the same prefix."""
    found: dict[str, float | int] = {}
    for row in engine.rows:
        if row.field not in found:
            value = _fill(page, row, engine.ranks)
            if value is not None:
                found[row.field] = int(value) if row.field in _WHOLE else value
    if found.keys() <= {"started_at"}:
        return None
    return msgspec.convert({"at": now, **found}, Gauges)


def _fill(page: _Page, row: Row, ranks: str) -> float | None:
    """The field of the whole replica; None if a source is missing or the number makes no sense."""
    of_rank = _combine([_by_rank(page, source, row.field, ranks) for source in row.sources], row)
    if not of_rank:
        return None
    total = max(of_rank.values()) if row.field == "started_at" else sum(of_rank.values())
    value = total * row.scale
    if row.field in _SHARES:
        value = min(1.0, value / len(of_rank))
    if row.field in _WHOLE and value < 1:
        return None  # A capacity of 0 is one that is not known yet.
    return value if 0 <= value < _MOST else None


def _combine(sources: Sequence[Mapping[str, float]], row: Row) -> dict[str, float]:
    """By rank: of those ranks that all sources have, their product or sum."""
    first, *others = sources
    combine = math.prod if row.times else sum
    return {
        rank: combine([value, *(other[rank] for other in others)])
        for rank, value in first.items()
        if all(rank in other for other in others)
    }


def _by_rank(page: _Page, source: Source, field: Field, ranks: str) -> dict[str, float]:
    """Of series of one rank counters are added, for each may be a tier of the cache; of gauges the
    highest is taken, for each is the same, said by another worker, or a part of the total."""
    found: dict[str, float] = {}
    for sample in page.samples(source.name):
        value = _number(sample, source)
        if value is not None:
            rank = sample.labels.get(ranks, "")
            before = found.get(rank)
            if before is not None:
                value = before + value if field in _COUNTERS else max(before, value)
            found[rank] = value
    return found


def _number(sample: Sample, source: Source) -> float | None:
    if source.where is not None and sample.labels.get(source.where[0]) != source.where[1]:
        return None
    if source.label is None:
        return sample.value
    return number(sample.labels.get(source.label, ""))
