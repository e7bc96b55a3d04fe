"""Counts of the last few seconds, in bounded memory."""

from __future__ import annotations

from typing import Final

__all__ = ["Window"]

_BUCKETS: Final = 10


class Window:
    """Two counts over the last `window_s` seconds, `True` and `False` being their names.

    Time is cut into ten buckets, and a bucket is forgotten as a whole, so what is counted is the
    last nine tenths of `window_s` at least and all of it at most. Time that goes back counts as
    standing still.
    """

    __slots__ = ("_bucket_s", "_counts", "_newest", "_totals")

    def __init__(self, window_s: float) -> None:
        self._bucket_s = window_s / _BUCKETS
        self._newest = 0
        self._totals = [0, 0]
        self._counts = [[0] * _BUCKETS, [0] * _BUCKETS]

    def add(self, now: float, kind: bool) -> None:
        """Count one."""
        self._forget(now)
        self._counts[kind][self._newest % _BUCKETS] += 1
        self._totals[kind] += 1

    def count(self, now: float, kind: bool) -> int:
        """How many of that kind the window holds."""
        self._forget(now)
        return self._totals[kind]

    def share(self, now: float) -> tuple[int, int]:
        """How many are `True`, and how many there are in all."""
        self._forget(now)
        return self._totals[True], self._totals[True] + self._totals[False]

    def clear(self) -> None:
        """Forget all."""
        self._totals = [0, 0]
        self._counts = [[0] * _BUCKETS, [0] * _BUCKETS]

    def _forget(self, now: float) -> None:
        bucket = int(now // self._bucket_s)
        if bucket <= self._newest:
            return
        if bucket - self._newest >= _BUCKETS:
            self.clear()
        else:
            for old in range(self._newest + 1, bucket + 1):
                for kind in (False, True):
                    self._totals[kind] -= self._counts[kind][old % _BUCKETS]
                    self._counts[kind][old % _BUCKETS] = 0
        self._newest = bucket
