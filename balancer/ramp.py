"""Slow start: a replica that is new or came back takes few requests at first. Pure.

It may be well, or fail again with everything sent to it; its cache is cold and its first request
may load the model. So it takes one request at a time, then two, four and so on: the limit is
doubled when it has answered at that limit's time, not by time alone, since a replica that hangs
must not be given more and more.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["Ramp", "RampSettings"]


class RampSettings(NamedTuple):
    """How fast a replica is trusted."""

    step_s: float = 5.0
    """The limit is doubled so often at most, and only by an answer; 0: no slow start."""
    full: int = 64
    """From here on there is no limit: with 5 s, half a minute after its return."""


_FIRST: Final = 1


class Ramp:
    """How many requests one replica may have in flight while it is still on its way up.

    None for a new one: who has just been started along with its whole pool has nobody to be spared
    by. Whoever adds a replica to a pool that is at work calls `restart`.
    """

    __slots__ = ("_cap", "_next_at", "_settings")

    def __init__(self, settings: RampSettings) -> None:
        self._settings = settings
        self._cap: int | None = None
        self._next_at = 0.0

    @property
    def cap(self) -> int | None:
        """The most it should have in flight; None: as many as it may otherwise."""
        return self._cap

    def restart(self, now: float) -> None:
        """It is new, or came back: from the beginning."""
        if self._settings.step_s > 0:
            self._cap = _FIRST
            self._next_at = now + self._settings.step_s

    def answered(self, now: float) -> bool:
        """It gave a first event. Returns whether that raised the limit: there is more room."""
        if self._cap is None or now < self._next_at:
            return False
        self._cap *= 2
        self._next_at = now + self._settings.step_s
        if self._cap >= self._settings.full:
            self._cap = None
        return True
