"""How far a snapshot is believed, by its age.

A gauge polled every 2 s tells of a past that thousands of tokens lie behind. It corrects what our
own books cannot know; it never replaces them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TypeVar

from balancer.readings import Gauges, GpuReading

__all__ = ["comparable", "weight"]

_Candidate = TypeVar("_Candidate")

_POLLS = 3.0
"""After so many intervals without an answer a snapshot tells nothing."""


def weight(reading: Gauges | GpuReading | None, now: float, poll_s: float) -> float:
    """From 1 (just read) down to 0: e^(-age / 2 polls), and 0 after 3 polls or without a reading.

    `poll_s` is the interval at which it is read.
    """
    if reading is None:
        return 0.0
    age_s = max(0.0, now - reading.at)
    return 0.0 if age_s > _POLLS * poll_s else math.exp(-age_s / (2.0 * poll_s))


def comparable(
    candidates: Iterable[_Candidate], value: Callable[[_Candidate], float | None]
) -> dict[_Candidate, float] | None:
    """The value of each candidate; None unless every one has it.

    Compared with others, a candidate that says nothing would look idle, or full, at random.
    """
    found: dict[_Candidate, float] = {}
    for candidate in candidates:
        number = value(candidate)
        if number is None:
            return None
        found[candidate] = number
    return found or None
