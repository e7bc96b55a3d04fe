"""When requests arrive in an open loop: endless times from a seed, pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random

from bench.load.plan import Rated

__all__ = ["arrival_times", "gaps", "ramped"]


def arrival_times(loop: Rated, seed: int) -> Iterator[float]:
    """Seconds from the start, ascending, without end. Same seed, same times."""
    times = _sums(gaps(loop, seed))
    return ramped(times, loop.ramp_s) if loop.ramp_s else times


def gaps(loop: Rated, seed: int) -> Iterator[float]:
    """Seconds between arrivals with a mean of `1 / rate`.

    `gamma` has the shape `smoothness` (its coefficient of variation is 1/sqrt(smoothness)), as
    vLLM's `--burstiness`; `poisson` is the shape 1, `constant` its limit.
    """
    mean = 1.0 / loop.rate
    random = Random(f"arrivals/{seed}")
    if loop.arrival == "constant":
        while True:
            yield mean
    shape = loop.smoothness if loop.arrival == "gamma" else 1.0
    while True:
        yield random.gammavariate(shape, mean / shape)


def _sums(steps: Iterator[float]) -> Iterator[float]:
    at = 0.0
    # Counted from one start by a correction, so that an hour of small steps does not drift.
    lost = 0.0
    for step in steps:
        yield at
        exact = step - lost
        after = at + exact
        lost = (after - at) - exact
        at = after


def ramped(times: Iterator[float], ramp_s: float) -> Iterator[float]:
    """The same arrivals while the rate grows linearly from 0 to full over `ramp_s`, then stays.

    After t seconds of a ramp t²/(2·ramp_s) seconds' worth of full-rate arrivals have come: each
    arrival is moved to where that holds.
    """
    half = ramp_s / 2
    for at in times:
        yield math.sqrt(2 * ramp_s * at) if at < half else at + half
