"""Requests with time stamps, as sessions of one turn in an open loop."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from itertools import chain, islice, pairwise
from random import Random
from statistics import median
from typing import NamedTuple

from bench.workload.lines import Source, parsed_lines
from bench.workload.model import Prompt, Replayable, Session, Turn, segment_key
from bench.workload.traces.options import TraceOptions

__all__ = ["Timed", "rounding_step_s", "timed_sessions"]

_LOOKED_AT = 200
_CROWDED = 3


class Timed(NamedTuple):
    """One request of a trace."""

    at_s: float
    """The trace's stamp, from any origin."""
    prompt: Prompt
    output_tokens: int
    tenant: str = ""


def timed_sessions(
    source: Source, begin: Callable[[], Callable[[bytes], Timed | None]], options: TraceOptions
) -> Replayable:
    """The requests of `source` as sessions in the order of their `due_s`.

    `begin` gives the function that parses one line; it is called once for each reading, so that
    the function may remember the heading. A stamp before the one above it is a malformed line.
    """

    def sessions() -> Iterator[Session]:
        rows = parsed_lines(
            source,
            _in_order(begin()),
            bad_lines=options.bad_lines,
            on_bad_line=options.on_bad_line,
        )
        due = islice(_due(rows, options), options.limit)
        return (_session(number, at_s, row, options) for number, (at_s, row) in enumerate(due))

    return Replayable(sessions)


def rounding_step_s(stamps_s: list[float]) -> float:
    """The step that stamps are rounded to, or 0 if they are not.

    They are if at least 3 requests share each stamp on average: independent arrivals recorded
    exactly do not coincide. The step is the median distance of different stamps. The Mooncake
    conversation trace has 10 requests at each stamp, 3 seconds apart.
    """
    different = sorted(set(stamps_s))
    if len(different) < 2 or len(stamps_s) < _CROWDED * len(different):
        return 0.0
    return median(later - earlier for earlier, later in pairwise(different))


def _in_order(parse: Callable[[bytes], Timed | None]) -> Callable[[bytes], Timed | None]:
    last_s = -math.inf

    def checked(line: bytes) -> Timed | None:
        nonlocal last_s
        row = parse(line)
        if row is None:
            return None
        if not math.isfinite(row.at_s):
            raise ValueError(f"the time stamp is not a finite number: {row.at_s}")
        if row.at_s < last_s:
            raise ValueError(f"the time stamp lies {last_s - row.at_s:g} s before the one above it")
        last_s = row.at_s
        return row

    return checked


def _due(rows: Iterator[Timed], options: TraceOptions) -> Iterator[tuple[float, Timed]]:
    first = list(islice(rows, _LOOKED_AT))
    if not first:
        return
    origin_s = first[0].at_s + options.start_offset_s
    end_s = math.inf if options.end_offset_s is None else first[0].at_s + options.end_offset_s
    jitter_s = options.jitter_s
    if jitter_s is None:
        jitter_s = rounding_step_s([row.at_s for row in first])
    for at_s, row in _jittered(chain(first, rows), (origin_s, end_s), jitter_s, options.seed):
        yield (at_s - origin_s) / options.speedup, row


def _jittered(
    rows: Iterator[Timed], window_s: tuple[float, float], jitter_s: float, seed: int
) -> Iterator[tuple[float, Timed]]:
    # Moved by less than jitter_s, a request can only overtake those within jitter_s before it:
    # what waits in the heap is never more than that stretch of the trace.
    draw = Random(segment_key("jitter", seed))
    waiting: list[tuple[float, int, Timed]] = []
    for number, row in enumerate(rows):
        if row.at_s > window_s[1]:
            break
        moved_s = row.at_s + draw.random() * jitter_s
        while waiting and waiting[0][0] <= row.at_s:
            at_s, _, earlier = heapq.heappop(waiting)
            yield at_s, earlier
        if row.at_s >= window_s[0]:
            heapq.heappush(waiting, (moved_s, number, row))
    while waiting:
        at_s, _, earlier = heapq.heappop(waiting)
        yield at_s, earlier


def _session(number: int, due_s: float, row: Timed, options: TraceOptions) -> Session:
    turn = Turn(
        prompt=row.prompt,
        output_tokens=row.output_tokens,
        answer=segment_key("answer", options.namespace, number),
        due_s=due_s,
    )
    return Session(id=number, turns=(turn,), tenant=row.tenant)
