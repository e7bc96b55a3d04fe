"""Which cores the gateway, the client and the replicas run on."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

__all__ = ["Cores", "parse_cores", "share_out"]


class Cores(NamedTuple):
    """Who runs where."""

    gateway: frozenset[int]
    client: frozenset[int]
    replicas: tuple[frozenset[int], ...]
    """Taken in turn."""

    def notes(self) -> list[str]:
        """What this sharing does to the figures."""
        if self.gateway & self.client:
            return ["the gateway shares its core with the client: latencies say little"]
        return []

    def __str__(self) -> str:
        behind = frozenset[int]().union(*self.replicas)
        return (
            f"gateway on {_listed(self.gateway)}, client on {_listed(self.client)}, "
            f"replicas on {_listed(behind)}"
        )


def share_out(available: Collection[int], gateway: Collection[int] = ()) -> Cores:
    """The gateway alone on the given cores (the last one by default), as far as there are enough;
    the client on a core of its own, the replicas on the others.

    Raises ValueError for a core that this process may not use.
    """
    missing = set(gateway) - set(available)
    if missing:
        raise ValueError(f"core {min(missing)} is not there; there are {_listed(available)}")
    ordered = sorted(available)
    own = frozenset(gateway or ordered[-1:])
    rest = [core for core in ordered if core not in own] or ordered
    behind = tuple(frozenset((core,)) for core in rest[1:]) or (frozenset(rest[:1]),)
    return Cores(own, frozenset(rest[:1]), behind)


def parse_cores(text: str) -> list[int]:
    """Core numbers out of `2,3`. Raises ValueError if it is anything else."""
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ValueError(f"{text!r} is not a list of cores such as 2,3") from None


def _listed(cores: Collection[int]) -> str:
    return ",".join(map(str, sorted(cores)))
