"""Goodput: requests that met every objective, out of all that were sent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from bench.report.measures import MEASURES, OBJECTIVES

__all__ = ["Goodput", "goodput", "is_good", "parse_goodput"]


class Goodput(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests kept what was promised."""

    objectives: dict[str, float]
    """By measure: at most so many ms, or at least so many tokens per second."""
    good: int
    sent: int
    """Everything: failed, cancelled and unfinished requests are not good ones."""
    lacking: dict[str, int]
    """By measure: requests that succeeded without having it (a one-token answer has no
    inter-token latency). They are not good, since they did not show that they were."""
    per_s: float | None
    """Good requests per second; None without a duration."""

    @property
    def fraction(self) -> float:
        """Good requests out of those sent, 0 to 1."""
        return self.good / self.sent if self.sent else 0.0


def parse_goodput(text: str) -> dict[str, float]:
    """Read `"time_to_first_token:200 inter_token_latency:30"`: ms, or tokens/s for throughputs.

    Raises ValueError that names the part at fault and what it may be.
    """
    objectives: dict[str, float] = {}
    for part in text.split():
        name, colon, limit = part.partition(":")
        if not colon:
            raise ValueError(f"goodput objective {part!r}: write NAME:LIMIT, for example "
                             "time_to_first_token:200")  # fmt: skip
        if name not in OBJECTIVES:
            raise ValueError(f"goodput objective {part!r}: no measure {name!r}; there are "
                             + ", ".join(OBJECTIVES))  # fmt: skip
        if name in objectives:
            raise ValueError(f"goodput objective {part!r}: {name} is given twice")
        objectives[name] = _limit(part, limit)
    if not objectives:
        raise ValueError("goodput: no objective; write for example time_to_first_token:200")
    return objectives


def _limit(part: str, text: str) -> float:
    try:
        limit = float(text)
    except ValueError:
        raise ValueError(f"goodput objective {part!r}: {text!r} is not a number") from None
    if not math.isfinite(limit) or limit <= 0:
        raise ValueError(f"goodput objective {part!r}: the limit must be above 0")
    return limit


def is_good(values: Mapping[str, float], objectives: Mapping[str, float]) -> bool:
    """Whether a request that succeeded met all objectives; a value it lacks is not met."""
    for name, limit in objectives.items():
        value = values.get(name)
        if value is None:
            return False
        if value < limit if MEASURES[name].larger_is_better else value > limit:
            return False
    return True


def goodput(
    succeeded: Sequence[Mapping[str, float]],
    objectives: Mapping[str, float],
    *,
    sent: int,
    duration_s: float | None,
) -> Goodput:
    """Judge the values of the requests that succeeded, `sent` being all that were tried."""
    good = sum(is_good(values, objectives) for values in succeeded)
    lacking = {name: sum(name not in values for values in succeeded) for name in objectives}
    return Goodput(
        objectives=dict(objectives),
        good=good,
        sent=sent,
        lacking={name: count for name, count in lacking.items() if count},
        per_s=good / duration_s if duration_s else None,
    )
