"""CPU time that the processes of one cell use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from bench.load.result import ClientFacts
from bench.peers.cores import Cores
from bench.peers.replicas import Replica
from bench.relay import procstat
from bench.relay.children import Child

__all__ = ["Usage", "Used", "load_side_share", "load_side_warnings", "read_usage"]

_BUSY: Final = 0.85
"""Above this share of their cores, the client and the replicas are measured as well."""


class Used(NamedTuple):
    """CPU seconds between two readings."""

    gateway_s: float | None
    """None: there is no gateway."""
    replicas_s: float


@dataclass(frozen=True)
class Usage:
    """What the processes have used so far."""

    gateway: procstat.CpuReading | None
    replicas: list[procstat.CpuReading]

    def since(self, before: Usage) -> Used:
        """What was used since an earlier reading of the same processes."""
        gateway_s = None
        if self.gateway is not None and before.gateway is not None:
            gateway_s = procstat.cpu_between(before.gateway, self.gateway).seconds
        replicas = map(procstat.cpu_between, before.replicas, self.replicas)
        return Used(gateway_s, sum(use.seconds for use in replicas))


def read_usage(gateway: Child | None, replicas: Sequence[Replica]) -> Usage:
    """Read them all. Raises ProcessLookupError if one has ended."""
    return Usage(
        None if gateway is None else procstat.read_cpu(gateway.pid),
        [procstat.read_cpu(replica.child.pid) for replica in replicas],
    )


def load_side_share(client: ClientFacts, used: Used, cores: Cores) -> float:
    """CPU time of client and replicas over that of their cores, 0 to 1; of the busier side if each
    has cores of its own."""
    wall_s = client.wall_s or 1.0
    behind = frozenset[int]().union(*cores.replicas)
    if behind & cores.client:
        return (client.cpu_s + used.replicas_s) / wall_s / len(behind | cores.client)
    return max(client.cpu_s, used.replicas_s / len(behind)) / wall_s


def load_side_warnings(share: float) -> list[str]:
    """What there is to say of that share."""
    if share <= _BUSY:
        return []
    return [
        f"client and replicas took {share:.0%} of their cores, so they slow the answers as well: "
        "use fewer requests at once, fewer replicas or more cores"
    ]
