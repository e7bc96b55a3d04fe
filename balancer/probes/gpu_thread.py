"""The one thread that calls into the GPU driver, and what becomes of a call that hangs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, TypeVar

import trio

from balancer.probes.nvml import NvmlUnavailable

__all__ = ["DriverThread"]

log = logging.getLogger("triolet.gpu")

T = TypeVar("T")

_HANG_S: Final = 5.0
"""How long the driver may take for one look at all GPUs; 8 of them take tens of milliseconds."""


class DriverThread:
    """Runs blocking calls, one at a time, and waits for none longer than 5 s.

    A call that hangs keeps the thread, and so keeps further calls out, until it returns; it holds
    up neither the loop nor the end of the process, whose worker threads are daemons.
    """

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(1)
        self._last_error = ""

    async def run(self, call: Callable[[], T]) -> T:
        """What `call` returns. Raises `NvmlUnavailable`, also for a hang or any error in it."""
        try:
            with trio.move_on_after(_HANG_S):
                return await trio.to_thread.run_sync(
                    call, limiter=self._limiter, abandon_on_cancel=True
                )
        except NvmlUnavailable:
            raise
        except Exception as exc:  # what a broken driver makes of our calls must not end the process
            if str(exc) != self._last_error:
                log.exception("reading the GPUs of this machine failed")
            self._last_error = str(exc)
            raise NvmlUnavailable(f"reading them failed: {exc}") from exc
        raise NvmlUnavailable(f"the driver did not answer within {_HANG_S:g} s")
