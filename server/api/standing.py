"""Reads a request's place in line out of its headers: its tier and its deadline. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from balancer.admission import Standing, Tier
from server.errors import ApiError

__all__ = ["DEADLINE", "TIER", "read_standing"]

TIER: Final = b"x-triolet-tier"
DEADLINE: Final = b"x-triolet-deadline-ms"
_OURS: Final = frozenset((TIER, DEADLINE))

_DEADLINE_MOST_MS: Final = 86_400_000
_DIGITS_MOST: Final = 8
"""Of that number; more need not be read."""
_SHOWN_MOST: Final = 32
"""Characters of a value that an error repeats."""

Headers = list[tuple[bytes, bytes]]


def read_standing(headers: Headers, tiers: Sequence[Tier], own: Tier, arrived: float) -> Standing:
    """What the client asks for, at most what it may have: `own` and the tiers below it.

    `arrived` is `trio.current_time` when the request's head was there; the deadline counts from
    there. Raises `ApiError` (400) that names the header.
    """
    asked: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _OURS:
            if name in asked:
                raise _refused(name, "is given twice; send it once")
            asked[name] = value
    tier = _tier(asked[TIER], tiers, own) if TIER in asked else own
    deadline_ms = _deadline_ms(asked[DEADLINE]) if DEADLINE in asked else tier.deadline_ms
    deadline = None if deadline_ms is None else arrived + deadline_ms / 1000
    return Standing(tier.name, arrived, deadline)


def _tier(value: bytes, tiers: Sequence[Tier], own: Tier) -> Tier:
    asked = value.decode("latin-1").strip()
    allowed = [tier for tier in tiers if tier.rank >= own.rank]
    for tier in allowed:
        if tier.name == asked:
            return tier
    names = ", ".join(tier.name for tier in allowed)
    if any(tier.name == asked for tier in tiers):
        raise _refused(TIER, f"is {asked!r}, above your own; it can be {names}")
    raise _refused(TIER, f"is {asked[:_SHOWN_MOST]!r}, expected one of {names}")


def _deadline_ms(value: bytes) -> int:
    text = value.strip()
    if text.isdigit() and len(text) <= _DIGITS_MOST and 1 <= int(text) <= _DEADLINE_MOST_MS:
        return int(text)
    shown = text[:_SHOWN_MOST].decode("latin-1")
    expected = f"expected a whole number of milliseconds from 1 to {_DEADLINE_MOST_MS}"
    raise _refused(DEADLINE, f"is {shown!r}, {expected}")


def _refused(header: bytes, problem: str) -> ApiError:
    name = header.decode()
    return ApiError(400, f"the header {name} {problem}", code="invalid_header", param=name)
