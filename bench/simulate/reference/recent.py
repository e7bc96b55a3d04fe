"""A replica's name for each key, forgotten some time after its last use."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["Recent"]

K = TypeVar("K", bound=Hashable)


class Recent(Generic[K]):
    """Keys not used for `keep_s` seconds are gone, and of more than `most` the oldest."""

    def __init__(self, keep_s: float, clock: Callable[[], float], most: int = 1_000_000) -> None:
        self._keep_s = keep_s
        self._clock = clock
        self._most = most
        self._entries: OrderedDict[K, tuple[float, str]] = OrderedDict()  # the oldest use first

    def get(self, key: K) -> str | None:
        """The name; None if there is none. Is no use."""
        entry = self._entries.get(key)
        return None if entry is None or self._is_old(entry[0]) else entry[1]

    def use(self, key: K, replica: str) -> None:
        """The name from now on."""
        self._entries[key] = self._clock(), replica
        self._entries.move_to_end(key)
        while len(self._entries) > self._most or self._is_old(self._oldest()):
            self._entries.popitem(last=False)

    def __len__(self) -> int:
        return len(self._entries)

    def _oldest(self) -> float:
        return next(iter(self._entries.values()))[0]

    def _is_old(self, used_s: float) -> bool:
        return self._clock() - used_s > self._keep_s
