"""How fast a line moves."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

__all__ = ["Pace"]

_PLACES_SEEN: Final = 32
_EVIDENCE_PLACES: Final = 4
"""Fewer say nothing about how fast a line moves."""
_FORGET_S: Final = 60.0
"""What was seen before the line stood empty for so long is not believed any more."""


class Pace:
    """How fast a line moves: places per second of the time in which anybody stood in it.

    Seen over its last places, so that a slow pool is judged by minutes and a fast one by seconds.
    """

    __slots__ = ("_before_s", "_empty_since", "_places", "_since")

    def __init__(self) -> None:
        self._places: deque[float] = deque((0.0,), _PLACES_SEEN + 1)
        self._before_s = 0.0
        self._since: float | None = None
        self._empty_since = -math.inf

    def begins(self, now: float) -> None:
        """The line is not empty any more."""
        if self._is_forgotten(now):
            self._places.clear()
            self._places.append(self._before_s)
        self._since = now

    def ends(self, now: float) -> None:
        """The line is empty."""
        self._before_s = self._stood_s(now)
        self._since = None
        self._empty_since = now

    def served(self, now: float) -> None:
        """One of the line got a place."""
        self._places.append(self._stood_s(now))

    def places_per_s(self, now: float) -> float | None:
        """None if too little was seen, or too long ago."""
        places = len(self._places) - 1
        if places < _EVIDENCE_PLACES or self._is_forgotten(now):
            return None
        first_s = self._places[0]
        # The gap since the last place counts once it is longer than those before it.
        until_now_s = (self._stood_s(now) - first_s) * places / (places + 1)
        span_s = max(self._places[-1] - first_s, until_now_s)
        return places / span_s if span_s > 0 else None

    def _is_forgotten(self, now: float) -> bool:
        return self._since is None and now - self._empty_since > _FORGET_S

    def _stood_s(self, now: float) -> float:
        return self._before_s if self._since is None else self._before_s + now - self._since
