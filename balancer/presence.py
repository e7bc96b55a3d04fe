"""Whether a replica is there at all, and whether it may have been started again meanwhile. Pure."""

from __future__ import annotations

from typing import Final

__all__ = ["Presence"]

_LONG_ABSENCE_S: Final = 60.0
"""After that nobody knows what happened to its cache."""

_MISSES: Final = 3
"""So many probes in a row without an answer, and no request answered either: it is a black hole."""


class Presence:
    """Fed with every sign of life and every lack of one."""

    __slots__ = ("_away_since", "_missed", "_refused")

    def __init__(self) -> None:
        self._away_since: float | None = None
        self._missed = 0
        self._refused = False

    def heard(self, now: float) -> bool:
        """It answered. Returns whether its cache must be taken for lost: nobody listened at its
        address for a while, so the server was started again, or it was away for a minute."""
        if self._away_since is None:
            return False
        lost = self._refused or now - self._away_since > _LONG_ABSENCE_S
        self._away_since, self._missed, self._refused = None, 0, False
        return lost

    def missed(self, now: float, *, refused: bool) -> bool:
        """A probe had no answer; `refused` if nobody listens there. Returns whether what was sent
        there and has no answer yet is lost, as far as one can tell. True once for each absence."""
        was_gone = self.gone
        self._missed += 1
        self.unreached(now, refused=refused)
        return self.gone and not was_gone

    def unreached(self, now: float, *, refused: bool) -> None:
        """No connection could be made, for a request."""
        if self._away_since is None:
            self._away_since = now
        self._refused |= refused

    @property
    def gone(self) -> bool:
        """Whether it is not there, as far as one can tell."""
        return self._missed > 0 and (self._refused or self._missed >= _MISSES)
