"""Which replica each run went to last: what a replica that drains still owes. Pure.

A run is several calls that belong together: a workflow's, an agent's, a conversation's. Its keys
and values are where it was last, so a replica that drains takes its next call too, until the run
was not heard of for `keep_s`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

__all__ = ["Runs"]

_KEEP_S: Final = 300.0
"""Tools and people mostly take less between two calls. Who waits for a drain waits that long."""

_MOST: Final = 100_000
"""About 20 MB; who was not heard of longest goes first."""


class _Last(NamedTuple):
    at: float
    replica: str


class Runs:
    """Bounded in number and in time."""

    def __init__(self, *, keep_s: float = _KEEP_S, most: int = _MOST) -> None:
        self._keep_s = keep_s
        self._most = most
        self._last: OrderedDict[str, _Last] = OrderedDict()  # the oldest first

    def __len__(self) -> int:
        return len(self._last)

    def went(self, run: str, replica: str, now: float) -> None:
        """A call of the run was sent there."""
        last = self._last
        last[run] = _Last(now, replica)
        last.move_to_end(run)
        while len(last) > self._most or now - next(iter(last.values())).at > self._keep_s:
            last.popitem(last=False)

    def home(self, run: str, now: float) -> str | None:
        """Where its last call went; None if that is too long ago."""
        found = self._last.get(run)
        return None if found is None or now - found.at > self._keep_s else found.replica

    def forget(self, replica: str) -> None:
        """Nothing of any run is there any more."""
        for run in [run for run, (_, name) in self._last.items() if name == replica]:
            del self._last[run]

    def of(self, replica: str, now: float) -> int:
        """How many went there last, and lately."""
        since = now - self._keep_s
        return sum(at >= since and name == replica for at, name in self._last.values())
