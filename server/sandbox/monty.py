"""Simple Python code in Monty: an interpreter of its own, in locked-down processes of its own.

Monty's client blocks, so each call holds a thread. A call that is cancelled kills its process,
which ends the thread's wait; nothing goes on unseen.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import math
import os
import shlex
import signal
import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import trio

from server.sandbox.children import python_command
from server.sandbox.options import CallLimits

__all__ = ["MontyFailed", "MontyPool", "MontyUnsure", "is_allowed", "is_installed"]

logger = logging.getLogger("triolet.sandbox")

_GRACE_S: Final = 1.0
_PRINTED_BYTES: Final = 1 << 20
_REST_S: Final = 60.0
_OVERHEAD_BYTES: Final = 512 << 20
"""Address space that Monty has beside the code's values: its program, the allocator's reserve."""
_CALL: Final = """\
import json as __json
__result = main(**__arguments)
if type(__result) is not dict:
    raise TypeError("main must return a dict")
__json.dumps(__result)[:__most]
"""
"""JSON is made inside, cut to size there: what comes over is one text of a known length."""


class MontyFailed(Exception):
    """The code broke a limit."""


class MontyUnsure(Exception):
    """The code failed, and Monty may be why: CPython is to say."""


def is_installed() -> bool:
    """Whether the package is there; it is imported at the first call."""
    return importlib.util.find_spec("pydantic_monty") is not None


def is_allowed(*, strict: bool) -> bool:
    """On Linux, where the kernel has all the locks: without Landlock Monty's program could not
    load its libraries and be kept from other files. Elsewhere, unless `strict`."""
    if sys.platform != "linux":
        return not strict
    from server.sandbox import lockdown

    return lockdown.available()


class _Starter:
    """Starts processes. On Linux they are locked down first, by `launch`."""

    def __init__(self, memory_bytes: int) -> None:
        # A process is killed with the thread that started it, so one thread starts all.
        self._thread = ThreadPoolExecutor(1, "monty")
        self._memory_bytes = memory_bytes
        self._script: int | None = None
        self.failed_at = -math.inf
        """When it last could not start one, of the monotonic clock."""

    def open(self) -> Any:
        """Blocks. A pool of one process. Raises `MontyUnsure`."""
        try:
            return self._thread.submit(self._open).result()
        except Exception as error:
            self.note_failure(error)
            raise MontyUnsure(str(error)) from error

    def note_failure(self, error: Exception) -> None:
        """A process could not be started, or ended before it had said anything."""
        self.failed_at = time.monotonic()
        logger.warning("Monty cannot be started, so code runs in slower processes: %s", error)

    def _open(self) -> Any:
        import pydantic_monty

        pool = pydantic_monty.Monty(
            min_processes=1,
            max_processes=1,
            feed_duration_limit_grace=_GRACE_S,
            binary_path=self._launcher() if sys.platform == "linux" else None,
        )
        return pool.__enter__()

    def _launcher(self) -> str:
        """A script that takes the place of Monty's program, in memory: there is no folder that is
        sure to be one where we may write and run."""
        if self._script is None:
            from pydantic_monty._binary import find_monty_binary

            settings = {
                "path": find_monty_binary(None),
                "parent": os.getpid(),
                "readable": [],
                "memory_bytes": self._memory_bytes + _OVERHEAD_BYTES,
            }
            command = shlex.join(python_command("server.sandbox.launch", settings))
            self._script = os.memfd_create("monty")
            os.write(self._script, f'#!/bin/sh\nexec {command} "$@"\n'.encode())
        return f"/proc/{os.getpid()}/fd/{self._script}"

    def close(self) -> None:
        """Processes that live still are killed."""
        self._thread.shutdown(wait=False)
        script, self._script = self._script, None
        if script is not None:
            os.close(script)


class _Slot:
    """One process of Monty's, started when it is first used."""

    def __init__(self, starter: _Starter) -> None:
        self._starter = starter
        self.pid: int | None = None
        self.killed = False
        self._pool: Any = None
        self._lock = threading.Lock()

    def call(self, source: str, arguments: dict[str, Any], limits: CallLimits) -> str:
        """Blocks. Raises what Monty raises, and `MontyUnsure`."""
        import pydantic_monty

        begun = False
        try:
            with self._opened().checkout(
                limits={
                    "max_feed_duration_secs": limits.time_s,
                    "max_memory": limits.memory_bytes,
                    "max_total_sleep_secs": limits.time_s,
                },
                os_policy={"sleep_system_max": math.inf},
                assert_message_annotations=False,
            ) as session:
                begun = True
                self._hold(session.worker_pid)
                return self._feed(session, source, arguments, limits)
        except pydantic_monty.MontyCrashedError as error:
            if not begun and not self.killed:
                self._starter.note_failure(error)
            self.killed = True  # the next process is to come from the starter, too
            raise
        finally:
            with self._lock:
                self.pid = None

    def _hold(self, pid: int) -> None:
        with self._lock:
            self.pid = pid
            if self.killed:
                raise MontyUnsure("cancelled")

    def _feed(
        self, session: Any, source: str, arguments: dict[str, Any], limits: CallLimits
    ) -> str:
        import pydantic_monty

        printed = pydantic_monty.CollectString(_PRINTED_BYTES)
        session.feed_run(source, print_callback=printed)
        inputs = {"__arguments": arguments, "__most": limits.output_bytes + 1}
        return str(session.feed_run(_CALL, inputs=inputs, print_callback=printed))

    def _opened(self) -> Any:
        if self._pool is None:
            self._pool = self._starter.open()
        return self._pool

    def kill(self) -> None:
        """End the call in flight, from another thread. The slot is of no use afterwards."""
        with self._lock:
            self.killed = True
            if self.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Blocks until the process is gone."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.__exit__(None, None, None)


class MontyPool:
    """Calls at the same time are bounded; others wait in line."""

    def __init__(self, limits: CallLimits, *, workers: int) -> None:
        self._limits = limits
        self._starter = _Starter(limits.memory_bytes)
        self._slots = trio.CapacityLimiter(workers)
        self._threads = trio.CapacityLimiter(2 * workers)
        self._idle: deque[_Slot] = deque()
        self._busy: set[_Slot] = set()

    @property
    def busy(self) -> int:
        """Calls in flight."""
        return len(self._busy)

    @property
    def rests(self) -> bool:
        """Whether it could not be started a short while ago."""
        return time.monotonic() - self._starter.failed_at < _REST_S

    @property
    def pids(self) -> list[int]:
        """Of the processes that are at work."""
        return [slot.pid for slot in self._busy if slot.pid is not None]

    async def call(self, source: str, arguments: dict[str, Any]) -> bytes:
        """The result as JSON. Raises `MontyFailed`, `MontyUnsure`."""
        async with self._slots:
            slot = self._idle.pop() if self._idle else _Slot(self._starter)
            self._busy.add(slot)
            try:
                with trio.move_on_after(self._limits.time_s):
                    return await self._in_thread(slot, source, arguments)
                raise MontyFailed(f"it ran for more than {self._limits.time_s:g} s and was stopped")
            finally:
                self._busy.discard(slot)

    async def _in_thread(self, slot: _Slot, source: str, arguments: dict[str, Any]) -> bytes:
        try:
            outcome = await trio.to_thread.run_sync(
                _guarded, slot, source, arguments, self._limits,
                limiter=self._threads, abandon_on_cancel=True,
            )  # fmt: skip
        except trio.Cancelled:
            slot.kill()
            raise
        if not slot.killed:
            self._idle.append(slot)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def close(self) -> None:
        """Kill all processes."""
        for slot in list(self._busy):
            slot.kill()
        while self._idle:
            slot = self._idle.pop()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                await trio.to_thread.run_sync(slot.close, abandon_on_cancel=True)
        self._starter.close()


def _guarded(
    slot: _Slot, source: str, arguments: dict[str, Any], limits: CallLimits
) -> bytes | Exception:
    """In the thread: the result, or what to raise. A slot that was killed is cleared away here."""
    try:
        text = slot.call(source, arguments, limits)
    except Exception as error:
        return _sorted(error, limits)
    finally:
        if slot.killed:
            slot.close()
    if len(text) > limits.output_bytes:
        return MontyFailed(f"the result is larger than {limits.output_bytes} bytes")
    return text.encode()


def _sorted(error: Exception, limits: CallLimits) -> Exception:
    """Only limits are final; for everything else CPython has the better words."""
    text = str(error)
    if text.startswith("TimeoutError: feed time limit"):
        return MontyFailed(f"it ran for more than {limits.time_s:g} s and was stopped")
    if text.startswith("MemoryError"):
        return MontyFailed("out of memory")
    return MontyUnsure(text)
