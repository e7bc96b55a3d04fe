"""What the GPUs of this machine mean for the replicas on it. Blocks: for one thread, `gpu.py`'s."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from balancer.probes.gpu_processes import Endpoint, find_gpu_pids
from balancer.probes.gpu_sample import GpuSample, chosen, reading
from balancer.probes.nvml_gpus import NvmlGpus
from balancer.readings import GpuReading

__all__ = ["LocalGpus", "LocalReplica"]

_FIND_S: Final = 10.0
"""How often processes are looked for although those on the GPUs are the same: an engine takes its
GPU long before it listens."""


class LocalReplica(NamedTuple):
    """A replica on this machine."""

    name: str
    endpoints: tuple[Endpoint, ...]
    """Where it may listen: its port at each address of its name. Empty if it is not known to be on
    this machine, and only its GPUs are."""
    gpus: tuple[int | str, ...] = ()
    """The GPUs that the configuration gives it, by index or UUID; these it has, and no others."""


class LocalGpus:
    """Reads all GPUs, finds whose they are, and remembers it."""

    def __init__(self, gpus: NvmlGpus | None = None, root: Path = Path("/proc")) -> None:
        self._gpus = gpus or NvmlGpus()
        self._root = root
        self._pids: dict[Endpoint, frozenset[int]] = {}
        self._found_for: tuple[frozenset[int], frozenset[Endpoint]] | None = None
        self._found_at = 0.0
        self._members: dict[str, frozenset[str]] = {}

    def look(self, replicas: Sequence[LocalReplica], now: float) -> dict[str, GpuReading | None]:
        """A reading for each replica, by name; None if its GPUs are not known.

        Raises `NvmlUnavailable`.
        """
        samples = self._gpus.sample(now)
        self._find(replicas, samples, now)
        return {replica.name: self._read(replica, samples, now) for replica in replicas}

    def close(self) -> None:
        """Let go of the driver."""
        self._gpus.close()

    def _find(
        self, replicas: Sequence[LocalReplica], samples: Sequence[GpuSample], now: float
    ) -> None:
        gpu_pids = frozenset(p.pid for sample in samples for p in sample.processes or ())
        endpoints = frozenset(endpoint for replica in replicas for endpoint in replica.endpoints)
        wanted = (gpu_pids, endpoints)
        if wanted != self._found_for or now - self._found_at >= _FIND_S:
            self._pids = find_gpu_pids(endpoints, gpu_pids, self._root)
            self._found_for, self._found_at = wanted, now

    def _read(
        self, replica: LocalReplica, samples: Sequence[GpuSample], now: float
    ) -> GpuReading | None:
        pids = frozenset().union(*(self._pids.get(endpoint, ()) for endpoint in replica.endpoints))
        if replica.gpus:
            own = chosen(samples, replica.gpus)
        else:
            own = self._own(replica.name, samples, pids)
        return reading(own, pids, now)

    def _own(
        self, name: str, samples: Sequence[GpuSample], pids: Collection[int]
    ) -> list[GpuSample]:
        """The GPUs with its processes, and those that it had when last they could be read.

        A GPU that is lost lists no processes, and it is then that its fault matters; nor is there
        anything to be found while the engine is down.
        """
        known = self._members.get(name, frozenset())
        found = frozenset(sample.uuid for sample in samples if _runs(sample, pids))
        mute = frozenset(sample.uuid for sample in samples if sample.processes is None)
        members = found | (known & mute) if found else known
        if members:
            self._members[name] = members
        return [sample for sample in samples if sample.uuid in members]


def _runs(sample: GpuSample, pids: Collection[int]) -> bool:
    return any(process.pid in pids for process in sample.processes or ())
