"""How late the load client itself was, and what that does to what it measured."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf, log2
from typing import Final

import trio

from bench.load.plan import Plan, Rated
from bench.load.record import Record
from bench.load.result import ClientFacts
from bench.load.timer import Timer

__all__ = ["LagWatch", "PassWatch", "client_warnings", "facts_of", "quantile", "watched_passes"]

_LAG_SHARE: Final = 0.01
"""A client later than this share of what it measures is worth a warning (GuideLLM's rule)."""

_SPOILED_SHARE: Final = 0.1
_BUSY_SHARE: Final = 0.9
_RATE_SHARE: Final = 0.95
_LATE_S: Final = 0.001
_PERIOD_S: Final = 0.01
_PER_OCTAVE: Final = 8


class LagWatch:
    """How late a timer fires that is set again and again."""

    def __init__(self, period_s: float = _PERIOD_S) -> None:
        self._period_s = period_s
        self.late_s: list[float] = []

    async def run(self, timer: Timer) -> None:
        """Watch until cancelled."""
        while True:
            due = trio.current_time() + self._period_s
            await timer.until(due)
            self.late_s.append(max(0.0, trio.current_time() - due))

    def forget(self) -> None:
        """Begin anew: a new phase."""
        self.late_s.clear()


class PassWatch(trio.abc.Instrument):
    """How long the loop works between two looks at the network, in real time.

    Kept as counts by length, 8 to an octave: an hour takes no more memory than a second.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew: a new phase."""
        self.busy_s = 0.0
        self.longest_s = 0.0
        self._counts: dict[int, int] = {}
        self._from = time.perf_counter()

    def after_io_wait(self, timeout: float) -> None:
        self._from = time.perf_counter()

    def before_io_wait(self, timeout: float) -> None:
        lasted_s = time.perf_counter() - self._from
        self.busy_s += lasted_s
        if lasted_s > self.longest_s:
            self.longest_s = lasted_s
        if lasted_s > 0:
            place = int(_PER_OCTAVE * log2(lasted_s) // 1)
            self._counts[place] = self._counts.get(place, 0) + 1

    def quantile(self, share: float, wall_s: float) -> float:
        """So long at most, at `share` of all instants, is the pass that is under way.

        0 if the loop mostly waits.
        """
        left_s = (1 - share) * wall_s
        for place in sorted(self._counts, reverse=True):
            upper_s = 2 ** ((place + 1) / _PER_OCTAVE)
            left_s -= self._counts[place] * 2 ** ((place + 0.5) / _PER_OCTAVE)
            if left_s < 0:
                return min(upper_s, self.longest_s)
        return 0.0


@contextmanager
def watched_passes() -> Iterator[PassWatch]:
    """Watch the passes of the running loop."""
    watch = PassWatch()
    trio.lowlevel.add_instrument(watch)
    try:
        yield watch
    finally:
        trio.lowlevel.remove_instrument(watch)


def quantile(values: Sequence[float], share: float) -> float | None:
    """The value that `share` of the values do not exceed (nearest rank); None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def facts_of(
    records: Sequence[Record], lag: LagWatch, passes: PassWatch, *, wall_s: float, cpu_s: float
) -> ClientFacts:
    """What is known of the client after a phase that took `wall_s`."""
    late, chunks = lag.late_s, sum(len(record.content_s) for record in records)
    streamed = sum(record.streamed for record in records)
    delays = [
        record.sent_s - record.scheduled_s for record in records if record.scheduled_s is not None
    ]
    wall_s = max(wall_s, 1e-9)
    return ClientFacts(
        lag_mean_s=sum(late) / len(late) if late else 0.0,
        lag_p50_s=quantile(late, 0.5) or 0.0,
        lag_p99_s=quantile(late, 0.99) or 0.0,
        lag_max_s=max(late, default=0.0),
        pass_p50_s=passes.quantile(0.5, wall_s),
        pass_p99_s=passes.quantile(0.99, wall_s),
        pass_max_s=passes.longest_s,
        busy_share=min(1.0, passes.busy_s / wall_s),
        send_delay_p50_s=quantile(delays, 0.5),
        send_delay_p99_s=quantile(delays, 0.99),
        late_sends=sum(delay > _LATE_S for delay in delays),
        cpu_s=cpu_s,
        wall_s=wall_s,
        chunks=chunks,
        cpu_us_per_request=cpu_s / len(records) * 1e6 if records and not streamed else None,
        cpu_us_per_chunk=cpu_s / chunks * 1e6 if streamed and chunks else None,
    )


def client_warnings(
    plan: Plan, records: Sequence[Record], facts: ClientFacts
) -> tuple[list[str], bool]:
    """What the client has to say against its own figures; and whether they are spoiled.

    What the records alone show (failures, missing usage, differing counts) the report says.
    """
    good = [record for record in records if record.outcome == "ok"]
    found = [*_of_lag(good, facts), *_of_delay(plan, good, facts), *_of_rate(plan, records)]
    return [text for text, _ in found], any(spoils for _, spoils in found)


_Found = Iterator[tuple[str, bool]]


def _of_lag(good: Sequence[Record], facts: ClientFacts) -> _Found:
    firsts = [record.content_s[0] - record.sent_s for record in good if record.content_s]
    first_s = quantile(firsts, 0.5) or inf
    share = facts.lag_p99_s / first_s
    if share > _LAG_SHARE:
        yield (
            f"client lag: its loop was up to {_ms(facts.lag_p99_s)} late (p99), {share:.1%} of the "
            f"median time to the first text ({_ms(first_s)})",
            share > _SPOILED_SHARE or facts.lag_mean_s / first_s > _LAG_SHARE,
        )
    if facts.busy_share > _BUSY_SHARE:
        yield (
            f"client busy: its loop worked {facts.busy_share:.0%} of the time, so it may be what "
            "limits the rates; use a lower load or several clients",
            True,
        )


def _of_delay(plan: Plan, good: Sequence[Record], facts: ClientFacts) -> _Found:
    if facts.capped:
        yield (
            f"client limit: {facts.capped} requests waited because {plan.max_in_flight} were in "
            "flight; their effective latency (from the scheduled time) has that wait in it",
            False,
        )
    if facts.behind_s > _LATE_S:
        yield (
            f"client limit: sending ended {facts.behind_s:.2f} s behind its schedule; what was due "
            "in that time was never sent and is in no figure",
            False,
        )
    latency_s = quantile(
        [record.ended_s - record.sent_s for record in good if record.ended_s is not None], 0.5
    )
    delay_s = facts.send_delay_p99_s
    if delay_s is not None and latency_s and delay_s / latency_s > _LAG_SHARE:
        yield (
            f"client delay: requests left up to {_ms(delay_s)} after their scheduled time (p99), "
            f"{delay_s / latency_s:.1%} of the median latency ({_ms(latency_s)})",
            delay_s / latency_s > _SPOILED_SHARE and not facts.capped,
        )


def _of_rate(plan: Plan, records: Sequence[Record]) -> _Found:
    if not isinstance(plan.loop, Rated) or len(records) < 2 or plan.loop.ramp_s:
        return
    lasted_s = max(record.sent_s for record in records) - records[0].sent_s
    achieved = (len(records) - 1) / lasted_s if lasted_s else inf
    # A random process differs from its rate by chance: as much as that is no fault.
    chance = 0.0 if plan.loop.arrival == "constant" else 2 / len(records) ** 0.5
    if achieved < plan.loop.rate * (_RATE_SHARE - chance):
        yield (
            f"request rate: {achieved:.2f}/s were sent of the {plan.loop.rate:g}/s asked for "
            f"({achieved / plan.loop.rate:.0%}): too few sessions had a turn ready, or the client "
            "was too slow",
            False,
        )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"
