"""NVIDIA's management library: opening it, losing it, and what its errors mean. Knows pynvml.

Everything here blocks, a sick driver for seconds or for ever: call it from a thread, one call at a
time. pynvml is imported once the library is found, so a machine without an NVIDIA driver pays for
one failed look-up.

While NVML is open the driver's devices are in use: the kernel module cannot be unloaded and a GPU
cannot be reset. `close` lets go of them.
"""

from __future__ import annotations

import _ctypes
from collections.abc import Callable
from typing import Any, Final

__all__ = ["GpuFault", "Nvml", "NvmlAbsent", "NvmlUnavailable", "UNKNOWN"]

_LIBRARY: Final = "libnvidia-ml.so.1"

# nvmlReturn_t: https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceEnumvs.html
_UNINITIALIZED: Final = 1
_NO_PERMISSION: Final = 4
_DRIVER_NOT_LOADED: Final = 9
_FUNCTION_NOT_FOUND: Final = 13
_GPU_IS_LOST: Final = 15
_RESET_REQUIRED: Final = 16
_VERSION_MISMATCH: Final = 18
UNKNOWN: Final = 999

_ENDS_SESSION: Final = frozenset({_UNINITIALIZED, _DRIVER_NOT_LOADED, _VERSION_MISMATCH})
_ENDS_GPU: Final = {_GPU_IS_LOST: "lost", _RESET_REQUIRED: "needs a reset"}

_REMEDY: Final = {
    _DRIVER_NOT_LOADED: "the NVIDIA kernel module is not loaded (try `nvidia-smi`)",
    _VERSION_MISMATCH: "the driver was changed: its library and kernel module differ until the "
    "module is loaded anew or the machine rebooted",
    _NO_PERMISSION: "no permission to use the NVIDIA devices (check /dev/nvidia*)",
    UNKNOWN: "NVML: Unknown Error (in a container: it may have lost /dev/nvidia*; restart it)",
}


class NvmlUnavailable(Exception):
    """NVML cannot be used now, and why. It may be tried again."""


class NvmlAbsent(NvmlUnavailable):
    """This machine has no NVIDIA driver: nothing is wrong."""


class GpuFault(Exception):
    """This GPU cannot be used, and why."""


class Nvml:
    """A session of NVML, and its functions called so that one failure is not taken for another."""

    def __init__(self) -> None:
        self.api: Any = None
        """The module pynvml, once it was needed."""
        self.is_open = False

    def open(self) -> None:
        """Raises `NvmlUnavailable`."""
        if self.api is None:
            self.api = _import_pynvml()
        try:
            self.api.nvmlInit()
        except self.api.NVMLError as error:
            if error.value == _VERSION_MISMATCH:
                self._unload()
            raise _unavailable(error) from error
        self.is_open = True

    def close(self) -> None:
        """Let go of the driver."""
        if self.is_open:
            self.is_open = False
            self.quiet(self.api.nvmlShutdown)

    def _unload(self) -> None:
        """Have the next `nvmlInit` load the library that is on disk by then.

        After a new driver was installed, the library in memory is the old one, and would be wrong
        for as long as this process lives. pynvml has no function for this.
        """
        library, self.api.nvmlLib = self.api.nvmlLib, None
        self.api._nvmlGetFunctionPointer_cache.clear()
        if library is not None:
            _ctypes.dlclose(library._handle)

    def ask(self, call: Callable[..., Any], *args: Any) -> Any:
        """The call's answer, None if there is none here: unsupported, not permitted, unknown.

        Raises `NvmlUnavailable` or `GpuFault` if nothing else will be answered either.
        """
        try:
            return call(*args)
        except self.api.NVMLError as error:
            self._judge(error)
        return None

    def ask_newest(self, names: tuple[str, ...], *args: Any) -> Any:
        """As `ask`, by the newest of these functions that pynvml and the driver both have."""
        for call in (getattr(self.api, name, None) for name in names):
            if call is None:
                continue
            try:
                return call(*args)
            except self.api.NVMLError as error:
                self._judge(error)
                if error.value != _FUNCTION_NOT_FOUND:
                    break
        return None

    def _judge(self, error: Any) -> None:
        """Raises what the error means beyond the one call that it ended, if it does."""
        if error.value in _ENDS_SESSION:
            raise _unavailable(error) from error
        if error.value in _ENDS_GPU:
            raise GpuFault(_ENDS_GPU[error.value]) from error

    def quiet(self, call: Callable[..., Any], *args: Any) -> Any:
        """As `ask`, but nothing is concluded from any error."""
        try:
            return call(*args)
        except self.api.NVMLError:
            return None


def _unavailable(error: Any) -> NvmlUnavailable:
    return NvmlUnavailable(_REMEDY.get(error.value, f"NVML: {error}"))


def _import_pynvml() -> Any:
    """pynvml, if NVML's library is on this machine: importing it takes 20 ms and 1 MB."""
    try:
        # Not ctypes.CDLL, which never lets go of a library: see `Nvml._unload`.
        _ctypes.dlclose(_ctypes.dlopen(_LIBRARY, 0))
    except (OSError, AttributeError) as exc:  # AttributeError: a system without dlopen
        raise NvmlAbsent(f"no NVIDIA driver on this machine ({_LIBRARY} not found)") from exc
    try:
        import pynvml  # type: ignore[import-untyped]
    except ImportError as exc:
        raise NvmlUnavailable("the Python package nvidia-ml-py is not installed") from exc
    return pynvml
