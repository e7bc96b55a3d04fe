"""A timer that is not late by itself.

epoll's timeout has whole milliseconds, so a plain sleep ends up to one late: too coarse for saying
how late a request was sent, or how late the loop runs. Linux has timers as descriptors for that.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio

__all__ = ["Timer", "open_timer"]

_CLOEXEC_NONBLOCK: Final = 0o2000000 | 0o4000
_SHORTEST_S: Final = 20e-6


class _Spec(ctypes.Structure):
    """`struct itimerspec`: interval and value, each in seconds and nanoseconds."""

    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "after_s", "after_ns")]


class Timer:
    """Waits until a time of `trio.current_time`. One task at a time."""

    async def until(self, at: float) -> None:
        """Return at `at`; at once, but through the scheduler, if it has passed."""
        await trio.sleep_until(at)


class _DescriptorTimer(Timer):
    def __init__(self, library: ctypes.CDLL, descriptor: int) -> None:
        self._library = library
        self._descriptor = descriptor

    async def until(self, at: float) -> None:
        left = at - trio.current_time()
        if left < _SHORTEST_S:
            await trio.lowlevel.checkpoint()
            return
        spec = _Spec(0, 0, int(left), int(left % 1 * 1e9))
        if self._library.timerfd_settime(self._descriptor, 0, ctypes.byref(spec), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")
        await trio.lowlevel.wait_readable(self._descriptor)
        os.read(self._descriptor, 8)


@contextmanager
def open_timer() -> Iterator[Timer]:
    """The best timer there is here; a plain sleep in virtual time and off Linux."""
    library = _library() if _in_real_time() else None
    if library is None:
        yield Timer()
        return
    descriptor = library.timerfd_create(time.CLOCK_MONOTONIC, _CLOEXEC_NONBLOCK)
    if descriptor < 0:
        yield Timer()
        return
    try:
        yield _DescriptorTimer(library, descriptor)
    finally:
        trio.lowlevel.notify_closing(descriptor)
        os.close(descriptor)


def _in_real_time() -> bool:
    clock = trio.lowlevel.current_clock()
    return 0.9 < clock.deadline_to_sleep_time(clock.current_time() + 1.0) <= 1.0


def _library() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None, use_errno=True)
    return library if hasattr(library, "timerfd_create") else None
