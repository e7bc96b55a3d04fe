"""What one GPU says of itself, whoever read it, and what several of them mean for a replica.

Pure. NVML (`nvml.py`), exporters (`gpu_exporter.py`) and Triolet's own agent all fill `GpuSample`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from balancer.readings import GpuReading

__all__ = [
    "CLOCK_REASONS",
    "XID_FAULTS",
    "FaultMemory",
    "GpuProcess",
    "GpuSample",
    "chosen",
    "clock_reasons",
    "plain_uuid",
    "reading",
]

CLOCK_REASONS: Final[Mapping[int, str]] = {
    0x04: "power_cap",
    0x08: "hw_slowdown",
    0x20: "sw_thermal",
    0x40: "hw_thermal",
    0x80: "power_brake",
}
"""Bits of NVML's clocks event reasons (DCGM: the same) that hold clocks down against the work.

Left out are idleness (0x01), clocks that somebody chose (0x02, 0x10) and displays (0x100):
https://docs.nvidia.com/deploy/nvml-api/group__nvmlClocksEventReasons.html
"""

_EXPECTED_UNDER_LOAD: Final = "power_cap"
"""A GPU that computes at its power limit is doing its best; it is not in trouble."""

XID_FAULTS: Final[Mapping[int, str]] = {
    46: "GPU stopped processing",
    48: "double bit ECC error",
    62: "internal micro-controller halt",
    74: "NVLink error",
    79: "GPU has fallen off the bus",
    95: "uncontained memory error",
    110: "security fault",
    119: "GSP RPC timeout",
    120: "GSP error",
    140: "unrecovered ECC error",
    143: "GPU initialization error",
    155: "NVLink error defined by software",
    158: "fatal timeout",
}
"""XIDs that end work on a GPU until it is reset or its machine rebooted.

NVIDIA's catalogue says so (immediate action RESET_GPU or RESTART_BM, or a workflow that may end in
one): https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html. Left out are those that
end one process only, 109 included, as in NVIDIA's Kubernetes plugin, and those that want a reset
some time while work goes on (64, 136, 156).
"""

_UNKNOWN: Final = 2.0
"""Stands for a share that is not known: emptier than any, so that a known one is preferred."""

_FAULT_HOLD_S: Final = 60.0
"""How long an XID counts as a fault: long enough for probes and breaker to see whether the engine
still answers. Nobody announces the end of an error, and an engine that goes on serving after one
must not be shut out for ever."""


class GpuProcess(msgspec.Struct, frozen=True):
    """A process that has a compute context on a GPU."""

    pid: int
    memory_bytes: int | None = None
    ports: tuple[int, ...] = ()
    """TCP ports that it, or the engine it belongs to, listens on; only from Triolet's agent."""


class GpuSample(msgspec.Struct, frozen=True, kw_only=True):
    """What one GPU, or one MIG device, said. What it did not say is None."""

    uuid: str
    """As NVML has it, `GPU-...` or `MIG-...`; exporters may leave out `GPU-`."""
    index: int | None = None
    """Its place in NVML's order (PCI bus order); that of the whole GPU for a MIG device."""
    parent: str | None = None
    """The UUID of the whole GPU, of a MIG device."""
    utilisation: float | None = None
    """Share of the last sampling period in which any kernel ran, 0 to 1."""
    memory_used_bytes: int | None = None
    memory_free_bytes: int | None = None
    power_w: float | None = None
    """Of the whole GPU."""
    temperature_c: float | None = None
    throttled: tuple[str, ...] = ()
    """Names of `CLOCK_REASONS`."""
    xid: int | None = None
    """The last XID error seen, grave or not."""
    fault: str | None = None
    """Why it cannot be used."""
    processes: tuple[GpuProcess, ...] | None = None
    """None if not known; containers see no pids of others."""


class FaultMemory:
    """Remembers which GPUs lately had an XID error of the grave kind. Takes `now`."""

    def __init__(self) -> None:
        self._grave: dict[str, tuple[int, float]] = {}

    def saw(self, uuid: str, xid: int, now: float) -> None:
        """An error was reported just now; most are an application's own and leave no mark."""
        if xid in XID_FAULTS:
            self._grave[uuid] = (xid, now)

    def fault(self, uuid: str, now: float) -> str | None:
        """What to say of this GPU; None once the error is more than a minute old."""
        xid, at = self._grave.get(uuid, (0, 0.0))
        if not xid or now - at > _FAULT_HOLD_S:
            return None
        return f"XID {xid}: {XID_FAULTS[xid]}"


def clock_reasons(bits: int) -> tuple[str, ...]:
    """The names of the reasons that slow work."""
    return tuple(name for bit, name in CLOCK_REASONS.items() if bits & bit)


def plain_uuid(uuid: str) -> str:
    """For comparison: some exporters write `GPU-1A2B` as `1a2b`."""
    return uuid.lower().removeprefix("gpu-")


def chosen(samples: Iterable[GpuSample], gpus: Collection[int | str]) -> list[GpuSample]:
    """Those that a configuration names by index, by UUID, or by the UUID of the whole GPU."""
    wanted = {plain_uuid(gpu) if isinstance(gpu, str) else gpu for gpu in gpus}
    return [sample for sample in samples if not wanted.isdisjoint(_names(sample))]


def _names(sample: GpuSample) -> list[int | str | None]:
    parent = plain_uuid(sample.parent) if sample.parent else None
    return [sample.index, plain_uuid(sample.uuid) or None, parent]


def reading(
    samples: Sequence[GpuSample], own_pids: Collection[int] | None, at: float
) -> GpuReading | None:
    """What the GPUs of one replica mean for it; None without any.

    `own_pids` are its processes, None if not known: then nothing is said of foreign ones.
    """
    if not samples:
        return None
    fullest = min(samples, key=_free_share)
    share = _free_share(fullest)
    reasons = {name for sample in samples for name in sample.throttled}
    return GpuReading(
        at=at,
        utilisation=_max(sample.utilisation for sample in samples),
        memory_share=None if share == _UNKNOWN else 1.0 - share,
        memory_free_bytes=None if share == _UNKNOWN else fullest.memory_free_bytes,
        foreign_memory_bytes=_foreign_memory(samples, own_pids),
        power_w=_power(samples),
        temperature_c=_max(sample.temperature_c for sample in samples),
        throttled=tuple(sorted(reasons - {_EXPECTED_UNDER_LOAD})),
        fault=next((_named(sample) for sample in samples if sample.fault), None),
    )


def _free_share(sample: GpuSample) -> float:
    """How much of its memory is free, 0 to 1, or `_UNKNOWN`."""
    used, free = sample.memory_used_bytes, sample.memory_free_bytes
    if used is None or free is None or used + free <= 0:
        return _UNKNOWN
    return free / (used + free)


def _max(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _power(samples: Iterable[GpuSample]) -> float | None:
    """Each whole GPU once, however many of its MIG devices there are."""
    by_gpu = {sample.parent or sample.uuid: sample.power_w for sample in samples}
    known = [power for power in by_gpu.values() if power is not None]
    return sum(known) if known else None


def _foreign_memory(samples: Iterable[GpuSample], own_pids: Collection[int] | None) -> int | None:
    """Memory of processes that are not its own.

    Only where its own are among the processes seen: in a container NVML lists none, or pids of
    another namespace, and all that there is would look foreign.
    """
    seen = [process for sample in samples for process in sample.processes or ()]
    if not own_pids or not any(process.pid in own_pids for process in seen):
        return None
    foreign = [process.memory_bytes for process in seen if process.pid not in own_pids]
    if None in foreign:
        return None
    return sum(memory for memory in foreign if memory is not None)


def _named(sample: GpuSample) -> str:
    name = sample.uuid if sample.index is None else str(sample.index)
    return f"GPU {name}: {sample.fault}"
