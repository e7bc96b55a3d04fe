"""A consistent-hash ring: a key's replica stays the same while others come and go."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Final

from balancer.policies.loaded import Loaded

__all__ = ["Ring", "walk"]

_WORD: Final = 2**64 - 1


class Ring:
    """`points` for each replica, where the hash of its name puts them."""

    def __init__(self, points: int) -> None:
        self._points_each = points
        self._names: set[str] = set()
        self._points: list[int] = []
        self._owners: list[str] = []

    def cover(self, names: Collection[str]) -> None:
        """All of them have their points from now on. Those away for the moment keep theirs, unless
        they are more than half when somebody new comes."""
        if self._names.issuperset(names):
            return
        if len(self._names) > 2 * len(names):
            self._names.clear()
        self._names.update(names)
        placed = sorted(
            (_hash(f"{name}#{number}".encode()), name)
            for name in self._names
            for number in range(self._points_each)
        )
        self._points = [point for point, _ in placed]
        self._owners = [name for _, name in placed]

    def names_from(self, key: int) -> Iterator[str]:
        """Every name once, in the order in which `key` meets them."""
        count = len(self._owners)
        first = bisect_left(self._points, _hash((key & _WORD).to_bytes(8, "big")))
        met: set[str] = set()
        for step in range(count):
            name = self._owners[(first + step) % count]
            if name not in met:
                met.add(name)
                yield name


def walk(ring: Ring, key: int, candidates: Sequence[Loaded]) -> Iterator[int]:
    """The places of all candidates, in the order in which `key` meets them on the ring."""
    places: Mapping[str, int] = {
        candidate.name: place for place, candidate in enumerate(candidates)
    }
    ring.cover(places.keys())
    return (places[name] for name in ring.names_from(key) if name in places)


def _hash(text: bytes) -> int:
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")
