"""Three ways to drive the load client: a number of requests, a window of time, streams held open.

Each warms the target up first, and calls `probe` right before and right after the measured part.
"""

from __future__ import annotations

import functools
import gc
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from bench.relay.load import Lane, LoadClient, Tally, Target
from bench.relay.poll_loop import PollLoop

Reading = TypeVar("Reading")
_LONGEST_TURN_S = 0.05


@dataclass
class Outcome(Generic[Reading]):
    """The measured part of one drive. CPU seconds are this process's own."""

    before: Reading
    after: Reading
    wall_s: float
    client_cpu_s: float
    tally: Tally = field(default_factory=Tally)


def drive_requests(
    target: Target,
    *,
    lanes: int,
    warm_up: int,
    requests: int,
    limit_s: float,
    probe: Callable[[], Reading],
) -> Outcome[Reading]:
    """Send `requests` requests, `lanes` at a time, after `warm_up` that are not measured.

    Answers that are not there after `limit_s` (for each part) are counted as unfinished.
    """
    with _Driver(target, lanes) as driver:
        driver.send(warm_up, limit_s)
        driver.client.tally = Tally(errors=driver.client.tally.errors)
        measure = _Measure(probe)
        driver.send(requests, limit_s)
        return measure.end(driver.client.tally)


def drive_window(
    target: Target,
    *,
    lanes: int,
    stream_s: float,
    pause_s: float,
    window_s: float,
    probe: Callable[[], Reading],
) -> Outcome[Reading]:
    """Keep `lanes` streams of about `stream_s` running and measure `window_s` of it.

    Starts are spread at random over one stream's length, and each lane pauses up to `pause_s`
    between streams, so that streams begin and end all the time and clocks of their own never
    align. Streams are then let finish.
    """
    with _Driver(target, lanes) as driver:
        driver.start_spread(stream_s, pause_s=pause_s)
        driver.turn_for(stream_s * 1.25)
        driver.client.tally = Tally(errors=driver.client.tally.errors)
        measure = _Measure(probe)
        driver.turn_for(window_s)
        outcome = measure.end(driver.client.tally)
        driver.finish(stream_s * 2 + 5)
        outcome.tally.errors = driver.client.tally.errors
    return outcome


def drive_held(
    target: Target,
    *,
    lanes: int,
    ramp_s: float,
    held_s: float,
    limit_s: float,
    probe: Callable[[], Reading],
) -> Outcome[Reading]:
    """Open `lanes` streams over `ramp_s`, probe when all have begun and at `held_s` after that.

    Streams must last longer than both; they are let finish within `limit_s`.
    """
    with _Driver(target, lanes) as driver:
        driver.start_spread(ramp_s, pause_s=None)
        driver.turn_while(lambda: driver.client.tally.first_events < lanes, ramp_s + 10)
        measure = _Measure(probe)
        driver.turn_for(held_s)
        outcome = measure.end(Tally())
        driver.finish(limit_s)
        outcome.tally = driver.client.tally
    return outcome


class _Measure(Generic[Reading]):
    """Clocks read at the start of the measured part."""

    def __init__(self, probe: Callable[[], Reading]) -> None:
        self._probe = probe
        self._before = probe()
        self._cpu_s = time.process_time()
        self._wall_s = time.perf_counter()

    def end(self, tally: Tally) -> Outcome[Reading]:
        wall_s = time.perf_counter() - self._wall_s
        cpu_s = time.process_time() - self._cpu_s
        counted = Tally(
            tally.started,
            tally.first_events,
            tally.finished,
            tally.events,
            tally.reads,
            tally.errors,
            tally.ttft_s[:],
            tally.total_s[:],
        )
        return Outcome(self._before, self._probe(), wall_s, cpu_s, counted)


class _Driver:
    """A client on a loop of its own, with collections off while it runs."""

    def __init__(self, target: Target, lanes: int) -> None:
        self._loop = PollLoop()
        self._pause_s: float | None = None
        self.client = LoadClient(self._loop, target, lanes)

    def __enter__(self) -> _Driver:
        gc.collect()
        gc.disable()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.abandon()
        self._loop.close()
        gc.enable()

    def send(self, requests: int, limit_s: float) -> None:
        """Send so many requests on all lanes and wait until each is answered or has failed."""
        left = requests

        def take(lane: Lane) -> None:
            nonlocal left
            if left > 0:
                left -= 1
                lane.start()

        self.client.on_idle = take
        for lane in self.client.lanes:
            take(lane)
        done = self.turn_while(lambda: left > 0 or self.client.busy > 0, limit_s)
        if not done:
            self.client.abandon()

    def start_spread(self, spread_s: float, *, pause_s: float | None) -> None:
        """Start each lane at a random time within `spread_s`.

        With a pause, each lane starts again within that time of its last stream's end.
        """
        now = time.perf_counter()
        self._pause_s = pause_s
        self.client.on_idle = self._again
        for lane in self.client.lanes:
            self._loop.call_at(now + random.uniform(0, spread_s), lane.start)

    def _again(self, lane: Lane) -> None:
        if self._pause_s is not None:
            due_s = time.perf_counter() + random.uniform(0, self._pause_s)
            self._loop.call_at(due_s, functools.partial(self._start, lane))

    def _start(self, lane: Lane) -> None:
        if self._pause_s is not None:
            lane.start()

    def finish(self, limit_s: float) -> None:
        """Start nothing more; wait until every stream has ended."""
        self._pause_s = None
        if not self.turn_while(lambda: self.client.busy > 0, limit_s):
            self.client.abandon()

    def turn_for(self, duration_s: float) -> None:
        """Run the loop for a time."""
        self.turn_while(lambda: True, duration_s)

    def turn_while(self, condition: Callable[[], bool], limit_s: float) -> bool:
        """Run the loop while `condition` holds; False if it still held after `limit_s`."""
        end_s = time.perf_counter() + limit_s
        while condition():
            left_s = end_s - time.perf_counter()
            if left_s <= 0:
                return False
            self._loop.turn(min(left_s, _LONGEST_TURN_S))
        return True
