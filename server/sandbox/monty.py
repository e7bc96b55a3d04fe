"""Simple Python code in Monty: an interpreter of its own, in processes of its own.

Monty's client blocks, so each call holds a thread. A call that is cancelled kills its process,
which ends the thread's wait; nothing goes on unseen.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import signal
import threading
from collections import deque
from typing import Any, Final

import trio

from server.sandbox.options import CallLimits

__all__ = ["MontyFailed", "MontyPool", "MontyUnsure", "is_installed"]

_GRACE_S: Final = 1.0
_PRINTED_BYTES: Final = 1 << 20
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


class _Slot:
    """One process of Monty's, started when it is first used."""

    def __init__(self) -> None:
        self.pid: int | None = None
        self.killed = False
        self._pool: Any = None
        self._lock = threading.Lock()

    def call(self, source: str, arguments: dict[str, Any], limits: CallLimits) -> str:
        """Blocks. Raises what Monty raises."""
        with self._opened().checkout(
            limits={
                "max_feed_duration_secs": limits.time_s,
                "max_memory": limits.memory_bytes,
                "max_total_sleep_secs": limits.time_s,
            },
            os_policy={"sleep_system_max": math.inf},
            assert_message_annotations=False,
        ) as session:
            with self._lock:
                self.pid = session.worker_pid
                if self.killed:
                    raise MontyUnsure("cancelled")
            try:
                return self._feed(session, source, arguments, limits)
            finally:
                with self._lock:
                    self.pid = None

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
            import pydantic_monty

            pool = pydantic_monty.Monty(
                min_processes=1, max_processes=1, feed_duration_limit_grace=_GRACE_S
            )
            self._pool = pool.__enter__()
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
        self._slots = trio.CapacityLimiter(workers)
        self._threads = trio.CapacityLimiter(2 * workers)
        self._idle: deque[_Slot] = deque()
        self._busy: set[_Slot] = set()

    @property
    def busy(self) -> int:
        """Calls in flight."""
        return len(self._busy)

    @property
    def pids(self) -> list[int]:
        """Of the processes that are at work."""
        return [slot.pid for slot in self._busy if slot.pid is not None]

    async def call(self, source: str, arguments: dict[str, Any]) -> bytes:
        """The result as JSON. Raises `MontyFailed`, `MontyUnsure`."""
        async with self._slots:
            slot = self._idle.pop() if self._idle else _Slot()
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
