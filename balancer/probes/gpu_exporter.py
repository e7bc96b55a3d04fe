"""GPUs of other machines: what DCGM's exporter, nvidia_gpu_exporter and Triolet's agent publish.

    DCGM exporter        https://github.com/NVIDIA/dcgm-exporter (etc/default-counters.csv): memory
                         in MiB, utilisation in percent; labels `gpu` (index), `UUID` (or `uuid`),
                         with MIG `GPU_I_ID`. It collects every 30 s unless told otherwise (`-c`).
    nvidia_gpu_exporter  https://github.com/utkuozdemir/nvidia_gpu_exporter (docs/METRICS.md):
                         `nvidia_smi_*`, bytes, ratios 0 to 1; label `uuid`, without `GPU-`.
    triolet gpu-agent    `triolet_gpu_*`, bytes, ratios; labels `uuid`, `gpu` (index).

Pure: text in, `GpuSample`s out. A page is not trusted; what it does not say is None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from balancer.probes.exposition import Sample, has_prefix, read_samples
from balancer.probes.gpu_sample import (
    CLOCK_REASONS,
    FaultMemory,
    GpuProcess,
    GpuSample,
    clock_reasons,
)

__all__ = ["ExporterPage", "read_gpus"]

_GPUS_MAX: Final = 256
"""On one page: 16 GPUs of 7 MIG devices are 112."""
_PROCESSES_MAX: Final = 1024
"""On one page."""
_MIB: Final = 1_048_576
_REAL_MAX: Final = 1e14
"""DCGM writes what it does not know ("blank") as 2**47 or about 2**63; nothing real comes near."""

Fields = dict[str, Any]
Gpus = dict[str, Fields]


def read_gpus(page: bytes) -> list[GpuSample]:
    """The GPUs on a page of any of the three; empty if it is none of theirs.

    Raises `ExpositionInvalid` for a page that no exporter writes.
    """
    if has_prefix(page, b"triolet_gpu_"):
        gpus = _read_agent(page)
    elif has_prefix(page, b"nvidia_smi_"):
        gpus = _read_nvidia_smi(page)
    else:
        gpus = _read_dcgm(page)
    return [GpuSample(**fields) for fields in gpus.values()]


class ExporterPage:
    """Reads one exporter's pages, one after the other, and sees when an XID error is new.

    DCGM goes on reporting the last one until it is restarted, so the first that is seen has an
    unknown age, and is no fault.
    """

    def __init__(self) -> None:
        self._xids: dict[str, int | None] = {}
        self._faults = FaultMemory()

    def read(self, page: bytes, now: float) -> list[GpuSample]:
        """As `read_gpus`, with the faults that errors since the last page mean."""
        samples = read_gpus(page)
        return [self._with_fault(sample, now) for sample in samples]

    def _with_fault(self, sample: GpuSample, now: float) -> GpuSample:
        before = self._xids.get(sample.uuid, sample.xid)
        if sample.uuid in self._xids or len(self._xids) < _GPUS_MAX:
            self._xids[sample.uuid] = sample.xid
        if sample.xid and sample.xid != before:
            self._faults.saw(sample.uuid, sample.xid, now)
        fault = sample.fault or self._faults.fault(sample.uuid, now)
        return msgspec.structs.replace(sample, fault=fault)


# -- a GPU by GPU view of a page


def _fields(gpus: Gpus, key: str, **identity: Any) -> Fields | None:
    """Where to note what is said of one GPU; None if the page has too many."""
    if key not in gpus and len(gpus) < _GPUS_MAX:
        gpus[key] = {"uuid": key, **identity}
    return gpus.get(key)


def _real(sample: Sample) -> float | None:
    return sample.value if 0 <= sample.value < _REAL_MAX else None


Place = Callable[[Gpus, Mapping[str, str]], Fields | None]


def _note(page: bytes, gpus: Gpus, place: Place, names: Mapping[bytes, tuple[str, float]]) -> None:
    """Note every sample of these metrics: name -> (field, factor to our unit)."""
    for name, (field, factor) in names.items():
        for sample in read_samples(page, name):
            fields, value = place(gpus, sample.labels), _real(sample)
            if fields is not None and value is not None:
                fields[field] = _in_our_unit(field, value * factor)


def _in_our_unit(field: str, value: float) -> float:
    if field == "utilisation":
        return min(value, 1.0)
    whole = field.endswith("_bytes") or field in ("xid", "index")
    return round(value) if whole else value


def _index(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() and len(text) < 6 else None


# -- DCGM exporter

_DCGM: Final = {
    b"DCGM_FI_DEV_GPU_UTIL": ("utilisation", 0.01),
    b"DCGM_FI_DEV_FB_USED": ("memory_used_bytes", _MIB),
    b"DCGM_FI_DEV_FB_FREE": ("memory_free_bytes", _MIB),
    b"DCGM_FI_DEV_POWER_USAGE": ("power_w", 1),
    b"DCGM_FI_DEV_GPU_TEMP": ("temperature_c", 1),
    b"DCGM_FI_DEV_XID_ERRORS": ("xid", 1),
}
_DCGM_REASONS: Final = (b"DCGM_FI_DEV_CLOCKS_EVENT_REASONS", b"DCGM_FI_DEV_CLOCK_THROTTLE_REASONS")


def _read_dcgm(page: bytes) -> Gpus:
    gpus: Gpus = {}
    _note(page, gpus, _dcgm_place, _DCGM)
    for name in _DCGM_REASONS:
        for sample in read_samples(page, name):
            fields, bits = _dcgm_place(gpus, sample.labels), _real(sample)
            if fields is not None and bits is not None:
                fields["throttled"] = clock_reasons(int(bits))
    return gpus


def _dcgm_place(gpus: Gpus, labels: Mapping[str, str]) -> Fields | None:
    uuid = labels.get("UUID") or labels.get("uuid")
    if not uuid:
        return None
    instance = labels.get("GPU_I_ID")
    if not instance:
        return _fields(gpus, uuid, index=_index(labels.get("gpu")))
    # DCGM does not tell the UUID of a MIG device, only that of its GPU and the GPU instance's id.
    return _fields(gpus, f"{uuid}/{instance}", index=_index(labels.get("gpu")), parent=uuid)


# -- nvidia_gpu_exporter

_NVIDIA_SMI: Final = {
    b"nvidia_smi_index": ("index", 1),
    b"nvidia_smi_utilization_gpu_ratio": ("utilisation", 1),
    b"nvidia_smi_memory_used_bytes": ("memory_used_bytes", 1),
    b"nvidia_smi_memory_free_bytes": ("memory_free_bytes", 1),
    b"nvidia_smi_power_draw_watts": ("power_w", 1),
    b"nvidia_smi_temperature_gpu": ("temperature_c", 1),
}
_NVIDIA_SMI_FLAGS: Final = {
    "power_cap": "sw_power_cap",
    "hw_slowdown": "hw_slowdown",
    "sw_thermal": "sw_thermal_slowdown",
    "hw_thermal": "hw_thermal_slowdown",
    "power_brake": "hw_power_brake_slowdown",
}
_RECOVERY_NEEDED: Final = frozenset({1, 2, 4})
"""GPU reset, reboot, drain and reset; as in `nvml_gpus.py`."""


def _read_nvidia_smi(page: bytes) -> Gpus:
    gpus: Gpus = {}
    _note(page, gpus, _uuid_place, _NVIDIA_SMI)
    for reason, flag in _NVIDIA_SMI_FLAGS.items():
        for prefix in ("clocks_event_reasons", "clocks_throttle_reasons"):  # the older name
            for fields, sample in _by_uuid(page, gpus, f"nvidia_smi_{prefix}_{flag}".encode()):
                if sample.value == 1:
                    fields["throttled"] = (*fields.get("throttled", ()), reason)
    for fields, sample in _by_uuid(page, gpus, b"nvidia_smi_gpu_recovery_action"):
        if sample.value in _RECOVERY_NEEDED:
            fields["fault"] = "the driver asks for a reset or reboot"
    latest = sorted(
        read_samples(page, b"nvidia_smi_xid_last_timestamp_seconds"), key=lambda s: s.value
    )
    for sample in latest:
        known = _uuid_place(gpus, sample.labels)
        if known is not None:
            known["xid"] = _index(sample.labels.get("xid"))
    _note_processes(page, gpus, b"nvidia_smi_compute_app_used_memory_bytes")
    return gpus


def _uuid_place(gpus: Gpus, labels: Mapping[str, str]) -> Fields | None:
    uuid = labels.get("uuid")
    return _fields(gpus, uuid) if uuid else None


def _by_uuid(page: bytes, gpus: Gpus, name: bytes) -> Iterator[tuple[Fields, Sample]]:
    for sample in read_samples(page, name):
        fields = _uuid_place(gpus, sample.labels)
        if fields is not None:
            yield fields, sample


def _note_processes(page: bytes, gpus: Gpus, name: bytes) -> None:
    """Processes with their memory; a page without any does not say that there are none."""
    for fields, sample in list(_by_uuid(page, gpus, name))[:_PROCESSES_MAX]:
        pid = sample.labels.get("pid", "")
        if pid.isdecimal() and len(pid) < 12:
            memory = None if (value := _real(sample)) is None else int(value)
            process = GpuProcess(int(pid), memory, _ports(sample.labels.get("ports", "")))
            fields["processes"] = (*(fields.get("processes") or ()), process)


def _ports(text: str) -> tuple[int, ...]:
    return tuple(int(port) for port in text.split(",") if port.isdecimal() and len(port) < 6)


# -- triolet gpu-agent

_AGENT: Final = {
    b"triolet_gpu_utilisation_ratio": ("utilisation", 1),
    b"triolet_gpu_memory_used_bytes": ("memory_used_bytes", 1),
    b"triolet_gpu_memory_free_bytes": ("memory_free_bytes", 1),
    b"triolet_gpu_power_watts": ("power_w", 1),
    b"triolet_gpu_temperature_celsius": ("temperature_c", 1),
    b"triolet_gpu_last_xid": ("xid", 1),
}


def _read_agent(page: bytes) -> Gpus:
    gpus: Gpus = {}
    for sample in read_samples(page, b"triolet_gpu_info"):
        fields = _uuid_place(gpus, sample.labels)
        if fields is not None:
            fields["index"] = _index(sample.labels.get("gpu"))
            fields["parent"] = sample.labels.get("parent") or None
            fields["processes"] = () if sample.labels.get("processes") == "known" else None
    _note(page, gpus, _uuid_place, _AGENT)
    for fields, sample in _by_uuid(page, gpus, b"triolet_gpu_throttled"):
        if sample.value == 1 and sample.labels.get("reason") in CLOCK_REASONS.values():
            fields["throttled"] = (*fields.get("throttled", ()), sample.labels["reason"])
    for fields, sample in _by_uuid(page, gpus, b"triolet_gpu_fault"):
        if sample.value == 1:
            fields["fault"] = sample.labels.get("fault", "faulty")[:200]
    _note_processes(page, gpus, b"triolet_gpu_process_memory_bytes")
    return gpus
