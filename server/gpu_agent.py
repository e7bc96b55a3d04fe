"""`triolet gpu-agent`: what NVML says of this machine's GPUs, for a Triolet on another machine.

`/metrics` is Prometheus' text form; `balancer/probes/gpu_exporter.py` is the other end. Its page
tells which TCP ports each process with a GPU serves, so a balancer finds by itself which GPUs are
whose.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec
import trio

from balancer.probes.gpu_processes import find_ports
from balancer.probes.gpu_sample import CLOCK_REASONS, GpuProcess, GpuSample
from balancer.probes.gpu_thread import DriverThread
from balancer.probes.nvml import NvmlUnavailable
from balancer.probes.nvml_gpus import NvmlGpus
from balancer.wire.poller import open_poller
from server.api.respond import respond, respond_error
from server.config import Address
from server.edge.accept import bind
from server.edge.app import App, Route
from server.edge.exchange import Receive, Scope, Send
from server.edge.http1 import Http1Server
from server.observe.record import Record

__all__ = ["GpuAgent", "render_page", "run_agent"]

_TEXT: Final = [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")]
_FIND_S: Final = 10.0
"""How often ports are looked up although the processes on the GPUs are the same."""
_PORTS_MAX: Final = 16
"""The lowest ports of a process; the others are its workers' own, from the ephemeral range."""


class GpuAgent:
    """Samples in a thread, and serves the last page. `run` in a nursery; `app` is the ASGI app."""

    def __init__(self, *, interval_s: float = 1.0, gpus: NvmlGpus | None = None) -> None:
        self._interval_s = interval_s
        self._gpus = gpus or NvmlGpus()
        self._thread = DriverThread()
        self._ports: dict[int, list[int]] = {}
        self._found_for: frozenset[int] | None = None
        self._found_at = 0.0
        self._page = b""
        self.trouble = "no sample yet"
        """Why there is no page; empty if there is one."""
        routes = {"/metrics": Route(GET=self._metrics), "/healthz": Route(GET=self._healthz)}
        self.app = App(routes, respond_error, lambda record: None)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Sample until cancelled. Started once there is a page, or a reason for none."""
        while True:
            now = trio.current_time()
            try:
                samples = await self._thread.run(lambda: self._sample(now))  # noqa: B023 - awaited
                self._page, self.trouble = render_page(samples).encode(), ""
            except NvmlUnavailable as exc:
                self.trouble = str(exc)
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            await trio.sleep(self._interval_s)

    def _sample(self, now: float) -> list[GpuSample]:
        """Blocks."""
        samples = self._gpus.sample(now)
        pids = frozenset(p.pid for sample in samples for p in sample.processes or ())
        if pids != self._found_for or now - self._found_at >= _FIND_S:
            self._ports = find_ports(pids)
            self._found_for, self._found_at = pids, now
        return [self._with_ports(sample) for sample in samples]

    def _with_ports(self, sample: GpuSample) -> GpuSample:
        if not sample.processes:
            return sample
        processes = tuple(
            GpuProcess(p.pid, p.memory_bytes, tuple(self._ports.get(p.pid, ())[:_PORTS_MAX]))
            for p in sample.processes
        )
        return msgspec.structs.replace(sample, processes=processes)

    async def _metrics(self, record: Record, scope: Scope, receive: Receive, send: Send) -> None:
        if self.trouble:
            await respond(send, record, 503, _TEXT, f"# {self.trouble}\n".encode())
        else:
            await respond(send, record, 200, _TEXT, self._page)

    async def _healthz(self, record: Record, scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, record, 200, _TEXT, b"ok\n")


def run_agent(listen: Address, interval_s: float) -> None:
    """Serve until SIGINT or SIGTERM. Raises OSError if it cannot listen there."""
    trio.run(_run, listen, interval_s, strict_exception_groups=True)


async def _run(listen: Address, interval_s: float) -> None:
    listener = bind(listen.host, listen.port)
    address = listen._replace(port=listener.getsockname()[1])
    agent, poller = GpuAgent(interval_s=interval_s), open_poller()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(poller.run)
            await nursery.start(Http1Server(agent.app, poller).serve, [listener])
            nursery.start_soon(agent.run)
            print(f"GPU agent serves {address.url}/metrics", flush=True)
            async for _ in signals:
                nursery.cancel_scope.cancel("told to stop")
                break


# -- the page


def render_page(samples: Sequence[GpuSample]) -> str:
    """The samples in Prometheus' text form. What is not known has no line."""
    lines = [line for family in _families(samples) for line in family]
    return "\n".join([*lines, ""])


def _families(samples: Sequence[GpuSample]) -> Iterator[list[str]]:
    yield _family("info", "What there is.", ((_info(sample), 1) for sample in samples))
    for name, field, text in (
        ("utilisation_ratio", "utilisation", "Share of time in which any kernel ran."),
        ("memory_used_bytes", "memory_used_bytes", "Memory in use."),
        ("memory_free_bytes", "memory_free_bytes", "Memory free."),
        ("power_watts", "power_w", "Power drawn."),
        ("temperature_celsius", "temperature_c", "Temperature."),
        ("last_xid", "xid", "The last XID error since the agent was started."),
    ):
        values = ((_gpu(sample), getattr(sample, field)) for sample in samples)
        yield _family(name, text, values)
    yield _family(
        "throttled",
        "Whether clocks are held down for this reason.",
        (
            (_gpu(sample) | {"reason": reason}, int(reason in sample.throttled))
            for sample in samples
            for reason in CLOCK_REASONS.values()
        ),
    )
    yield _family(
        "fault",
        "Why it cannot be used.",
        ((_gpu(sample) | {"fault": sample.fault}, 1) for sample in samples if sample.fault),
    )
    yield _family(
        "process_memory_bytes",
        "Memory of a process; -1 if not known. `ports` are those on which its engine listens.",
        (
            (_gpu(sample) | _process(p), -1 if p.memory_bytes is None else p.memory_bytes)
            for sample in samples
            for p in sample.processes or ()
        ),
    )


def _info(sample: GpuSample) -> dict[str, str]:
    known = "unknown" if sample.processes is None else "known"
    return _gpu(sample) | {"parent": sample.parent or "", "processes": known}


def _gpu(sample: GpuSample) -> dict[str, str]:
    return {"uuid": sample.uuid, "gpu": "" if sample.index is None else str(sample.index)}


def _process(process: GpuProcess) -> dict[str, str]:
    return {"pid": str(process.pid), "ports": ",".join(map(str, process.ports))}


def _family(
    name: str, text: str, values: Iterable[tuple[dict[str, str], float | None]]
) -> list[str]:
    full = f"triolet_gpu_{name}"
    lines = [
        f"{full}{{{_labels(labels)}}} {value}" for labels, value in values if value is not None
    ]
    return [f"# HELP {full} {text}", f"# TYPE {full} gauge", *lines] if lines else []


def _labels(labels: dict[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
