"""The GPUs of this machine, sampled through NVML. Blocks: see `nvml.py`."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any, Final

from balancer.probes.gpu_sample import FaultMemory, GpuProcess, GpuSample, clock_reasons
from balancer.probes.nvml import UNKNOWN, GpuFault, Nvml, NvmlUnavailable

__all__ = ["NvmlGpus"]

_LIST_S: Final = 60.0
"""How often GPUs and MIG devices are listed anew."""
_EVENTS_MAX: Final = 64
"""XID events taken in one sample; the rest wait for the next."""

_RECOVERY_FIELD: Final = 230
"""NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, which pynvml names since 12.570."""
_RECOVERY: Final = {
    1: "the driver asks for a GPU reset",
    2: "the driver asks for a reboot",
    4: "the driver asks to drain and reset the GPU",
    6: "the driver asks for a bus reset",
    7: "the driver asks for a reboot",
}
"""nvmlDeviceGpuRecoveryAction_t. Left out: 3 and 5, which are about links between GPUs."""


class _Device:
    """A GPU or a MIG device as NVML listed it; without a handle if it was lost before."""

    __slots__ = ("handle", "index", "mig", "recovery_known", "uuid", "xid")

    def __init__(self, handle: Any, index: int, uuid: str) -> None:
        self.handle = handle
        self.index = index
        self.uuid = uuid
        self.mig: list[_Device] = []
        self.xid: int | None = None
        self.recovery_known = True


class NvmlGpus:
    """Samples all GPUs. Opens NVML when first asked, and again after it was lost."""

    def __init__(self) -> None:
        self._nvml = Nvml()
        self._devices: list[_Device] = []
        self._events: Any = None
        self._by_address: dict[int | None, _Device] = {}
        self._listed_at = 0.0
        self._faults = FaultMemory()

    def sample(self, now: float) -> list[GpuSample]:
        """One sample for each GPU; for one in MIG mode one for each MIG device instead.

        `now` is any clock in seconds. Raises `NvmlUnavailable`; what belongs to one GPU is told in
        its sample. May be called again at any time: NVML is then opened anew.
        """
        try:
            if not self._nvml.is_open:
                self._nvml.open()
                self._list(now)
            elif now - self._listed_at >= _LIST_S:
                self._take_events(now)
                self._list(now)
            self._take_events(now)
            return [sample for gpu in self._devices for sample in self._sample_gpu(gpu, now)]
        except NvmlUnavailable:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the driver."""
        self._devices, self._by_address, self._events = [], {}, None
        self._nvml.close()

    def _list(self, now: float) -> None:
        """List GPUs and MIG devices, and register for their XID errors."""
        known = {device.index: device for device in self._devices}
        count = self._nvml.ask(self._nvml.api.nvmlDeviceGetCount)
        if count is None:
            raise NvmlUnavailable("NVML does not say how many GPUs there are")
        found = (self._find(index, known.get(index)) for index in range(count))
        self._devices = [device for device in found if device is not None]
        self._listed_at = now
        self._register()

    def _find(self, index: int, known: _Device | None) -> _Device | None:
        """The GPU with this index; None if it is not for us to see."""
        api = self._nvml.api
        try:
            handle = self._nvml.ask(api.nvmlDeviceGetHandleByIndex, index)
            uuid = None if handle is None else self._nvml.ask(api.nvmlDeviceGetUUID, handle)
        except GpuFault:
            return known or _Device(None, index, f"lost-{index}")
        if uuid is None:
            return None
        device = _Device(handle, index, uuid)
        if known is not None and known.uuid == uuid:
            device.xid = known.xid
        device.mig = list(self._find_mig(device))
        return device

    def _find_mig(self, gpu: _Device) -> Iterator[_Device]:
        api = self._nvml.api
        try:
            mode = self._nvml.ask(api.nvmlDeviceGetMigMode, gpu.handle)
            if mode is None or mode[0] != api.NVML_DEVICE_MIG_ENABLE:
                return
            for index in range(self._nvml.ask(api.nvmlDeviceGetMaxMigDeviceCount, gpu.handle) or 0):
                handle = self._nvml.ask(api.nvmlDeviceGetMigDeviceHandleByIndex, gpu.handle, index)
                uuid = None if handle is None else self._nvml.ask(api.nvmlDeviceGetUUID, handle)
                if uuid:
                    yield _Device(handle, gpu.index, uuid)
        except GpuFault:
            return

    def _register(self) -> None:
        api = self._nvml.api
        if self._events is not None:
            self._nvml.quiet(api.nvmlEventSetFree, self._events)
        self._events = self._nvml.ask(api.nvmlEventSetCreate)
        self._by_address = {}
        if self._events is None:
            return
        xid = api.nvmlEventTypeXidCriticalError
        for device in self._devices:
            if device.handle is None:
                continue
            self._by_address[_address(device.handle)] = device
            supported = self._nvml.quiet(api.nvmlDeviceGetSupportedEventTypes, device.handle)
            if supported and supported & xid:
                self._nvml.quiet(api.nvmlDeviceRegisterEvents, device.handle, xid, self._events)

    # -- sampling

    def _take_events(self, now: float) -> None:
        """Note the XID errors that came since the last time. Waits for none."""
        if self._events is None:
            return
        for _ in range(_EVENTS_MAX):
            event = self._nvml.quiet(self._nvml.api.nvmlEventSetWait_v2, self._events, 0)
            if event is None:
                return
            device = self._by_address.get(_address(event.device))
            if (
                device is not None
                and event.eventType == self._nvml.api.nvmlEventTypeXidCriticalError
            ):
                device.xid = int(event.eventData)
                self._faults.saw(device.uuid, device.xid, now)

    def _sample_gpu(self, gpu: _Device, now: float) -> Iterator[GpuSample]:
        fault = self._faults.fault(gpu.uuid, now)
        try:
            if gpu.handle is None:
                raise GpuFault("lost")
            whole = self._sample_whole(gpu, fault)
        except GpuFault as exc:
            whole = GpuSample(uuid=gpu.uuid, index=gpu.index, xid=gpu.xid, fault=fault or str(exc))
        if not gpu.mig:
            yield whole
        for device in gpu.mig:
            yield self._sample_mig(device, whole)

    def _sample_whole(self, gpu: _Device, fault: str | None) -> GpuSample:
        api, handle = self._nvml.api, gpu.handle
        utilisation = self._nvml.ask(api.nvmlDeviceGetUtilizationRates, handle)
        milliwatts = self._nvml.ask(api.nvmlDeviceGetPowerUsage, handle)
        reasons = self._nvml.ask_newest(
            ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"),
            handle,
        )
        temperature = self._nvml.ask_newest(
            ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature"),
            handle,
            api.NVML_TEMPERATURE_GPU,
        )
        used, free = (None, None) if gpu.mig else self._memory(handle)
        return GpuSample(
            uuid=gpu.uuid,
            index=gpu.index,
            utilisation=None if utilisation is None else utilisation.gpu / 100,
            memory_used_bytes=used,
            memory_free_bytes=free,
            power_w=None if milliwatts is None else milliwatts / 1000,
            temperature_c=temperature,
            throttled=clock_reasons(reasons or 0),
            xid=gpu.xid,
            fault=fault or self._recovery(gpu) or (self._mute(gpu) if free is None else None),
            processes=None if gpu.mig else self._processes(handle),
        )

    def _sample_mig(self, device: _Device, whole: GpuSample) -> GpuSample:
        """Memory and processes are its own; NVML has no utilisation of a MIG device."""
        used = free = processes = None
        fault = whole.fault
        if fault is None:
            try:
                used, free = self._memory(device.handle)
                processes = self._processes(device.handle)
            except GpuFault as exc:
                fault = str(exc)
        return GpuSample(
            uuid=device.uuid,
            index=device.index,
            parent=whole.uuid,
            memory_used_bytes=used,
            memory_free_bytes=free,
            power_w=whole.power_w,
            temperature_c=whole.temperature_c,
            throttled=whole.throttled,
            xid=whole.xid,
            fault=fault,
            processes=processes,
        )

    def _memory(self, handle: Any) -> tuple[int | None, int | None]:
        memory = self._nvml.ask(self._nvml.api.nvmlDeviceGetMemoryInfo, handle)
        return (None, None) if memory is None else (int(memory.used), int(memory.free))

    def _processes(self, handle: Any) -> tuple[GpuProcess, ...] | None:
        found = self._nvml.ask_newest(
            ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2"),
            handle,
        )
        if found is None:
            return None
        return tuple(GpuProcess(process.pid, process.usedGpuMemory) for process in found)

    def _recovery(self, gpu: _Device) -> str | None:
        """What the driver itself wants done with this GPU; since driver 570 or so."""
        if not gpu.recovery_known:
            return None
        field = [_RECOVERY_FIELD]
        values = self._nvml.ask(self._nvml.api.nvmlDeviceGetFieldValues, gpu.handle, field)
        gpu.recovery_known = values is not None and values[0].nvmlReturn == 0
        if not gpu.recovery_known or values is None:
            return None
        return _RECOVERY.get(values[0].value.uiVal)

    def _mute(self, gpu: _Device) -> str | None:
        """A GPU of which not even the memory can be read, for a reason that NVML does not know.

        What a GPU that is falling off the bus says before NVML calls it lost.
        """
        handle = gpu.handle
        for call in (self._nvml.api.nvmlDeviceGetMemoryInfo, self._nvml.api.nvmlDeviceGetUUID):
            try:
                call(handle)
            except self._nvml.api.NVMLError as error:
                if error.value == UNKNOWN:
                    continue
            return None
        return "NVML cannot read it (Unknown Error)"


def _address(handle: Any) -> int | None:
    """Of the same GPU, handles from a list and from an event differ as objects only."""
    return None if handle is None else ctypes.cast(handle, ctypes.c_void_p).value
