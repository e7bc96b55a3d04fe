"""What probes would have found out about simulated engines and their GPUs, in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import trio

from balancer.foreign import ForeignGpu, ForeignLoad
from balancer.readings import Gauges, GpuReading
from balancer.replica import Replica
from bench.engine import Engine

__all__ = ["GAUGES_EVERY_S", "GPU_EVERY_S", "Machine", "probe"]

GAUGES_EVERY_S: Final = 2.0
GPU_EVERY_S: Final = 1.0

_AFTER_S: Final = 0.0078125 * 1.37
"""Later than whole seconds, so that a reading never falls together with a request: Trio runs the
tasks of one moment in any order."""

_ENGINE_MEMORY: Final = 0.92
"""What an engine takes at its start, whatever its load: vLLM's `gpu_memory_utilization` of 0.9
and a context."""
_FOREIGN_MEMORY: Final = 0.05
_MEMORY_BYTES: Final = 80_000_000_000


class Machine:
    """A replica, its engine, and what runs on its GPU beside it."""

    __slots__ = (
        *("_busy_s", "_foreign_gpu", "_foreign_load", "_read_s"),
        *("engine", "foreign", "replica", "slowness"),
    )

    def __init__(self, replica: Replica, engine: Engine) -> None:
        self.replica = replica
        self.engine = engine
        self.slowness = 1.0
        """Every step takes so many times as long, and nothing says why."""
        self.foreign = 0.0
        """Share of the GPU's time that somebody else takes now; see `read_gpu`."""
        self._busy_s = 0.0
        self._read_s = 0.0
        self._foreign_gpu = ForeignGpu()
        self._foreign_load = ForeignLoad()

    def set_pace(self, now_s: float) -> None:
        """Let the engine feel `slowness` and `foreign` from its next step on."""
        self.engine.slow_down(self.slowness / (1.0 - self.foreign), now_s)

    def read_gauges(self, now_s: float) -> None:
        """As vLLM's `/metrics` says it: its batch limit it does not say."""
        engine, (running, waiting, kv_share) = self.engine, self.engine.snapshot()
        gauges = self.replica.gauges = Gauges(
            at=now_s,
            running=running,
            waiting=waiting,
            kv_share=kv_share,
            kv_tokens=engine.profile.kv_tokens,
            cached_tokens=engine.books.cached_tokens,
            prompt_tokens=engine.books.prompt_tokens,
            started_at=0.0,
        )
        self._foreign_load.read(gauges, self.replica.in_flight)
        self.replica.foreign_requests = self._foreign_load.requests(now_s, GAUGES_EVERY_S)

    def read_gpu(self, now_s: float) -> None:
        """As NVML says it: utilisation is the share of time in which any kernel ran.

        Whoever shares a GPU takes turns with the engine: while the engine computes, its steps take
        longer and kernels of one or the other run all the time; while it does not, those of the
        other run for their share.
        """
        busy_s = self.engine.busy_s(now_s)
        passed_s = now_s - self._read_s
        own = min(1.0, (busy_s - self._busy_s) / passed_s) if passed_s > 0 else 0.0
        self._busy_s, self._read_s = busy_s, now_s
        utilisation = own + (1.0 - own) * self.foreign
        memory = _ENGINE_MEMORY + (_FOREIGN_MEMORY if self.foreign else 0.0)
        self.replica.gpu = GpuReading(
            at=now_s,
            utilisation=utilisation,
            memory_share=memory,
            memory_free_bytes=round(_MEMORY_BYTES * (1.0 - memory)),
            foreign_memory_bytes=round(_MEMORY_BYTES * _FOREIGN_MEMORY) if self.foreign else 0,
        )
        self._foreign_gpu.read(utilisation, self.replica.load.busy_s(now_s), now_s)
        self.replica.foreign_share = self._foreign_gpu.share(now_s, GPU_EVERY_S) or 0.0


async def probe(machines: Sequence[Machine]) -> None:
    """Read all of them, again and again, until cancelled."""
    start_s = trio.current_time() + _AFTER_S
    ticks = 0
    while True:
        ticks += 1
        await trio.sleep_until(start_s + ticks * GPU_EVERY_S)
        now_s = trio.current_time()
        for machine in machines:
            machine.read_gpu(now_s)
            if ticks % round(GAUGES_EVERY_S / GPU_EVERY_S) == 0:
                machine.read_gauges(now_s)
