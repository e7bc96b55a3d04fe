"""One benchmark from start to end: replicas, proxies, workloads in turn, then memory, profiles."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.relay import drive, load, procstat, profiling, targets, workloads
from bench.relay.children import Child, ChildFailed
from bench.relay.figures import HeldRun, Run, percentile
from bench.relay.targets import DIRECT, Proxy, Running
from bench.relay.workloads import Workload

_WARM_UP_SHARE = 0.05
_SETTLE_S = 1.0
_PAUSE_TOKENS = 2
_LIMIT_S = 120.0


@dataclass(frozen=True)
class Plan:
    """What to measure and where its files go."""

    repeat: int
    quick: bool
    prompt_bytes: int
    directory: Path
    profile: Path | None
    workloads: frozenset[str] = frozenset(workloads.NAMES)
    """Names of those to run; memory is measured only with `held` among them."""

    def measured(self) -> tuple[Workload, ...]:
        """The wanted workloads among those that are repeated."""
        every = workloads.measured(quick=self.quick)
        return tuple(workload for workload in every if workload.name in self.workloads)


@dataclass
class Results:
    """What a session measured."""

    runs: list[Run] = field(default_factory=list)
    held: list[HeldRun] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    profiles: dict[str, list[tuple[float, str]]] = field(default_factory=dict)
    """By workload: share of samples, function."""


@dataclass(frozen=True)
class Cores:
    """Which cores the proxy under measurement, the client and the fake replicas run on."""

    proxy: frozenset[int]
    client: frozenset[int]
    fake: frozenset[int]

    @classmethod
    def share_out(cls, available: Sequence[int]) -> Cores:
        """The last core for the proxy alone, as far as there are enough."""
        ordered = sorted(available)
        fake = ordered[1] if len(ordered) > 2 else ordered[0]
        return cls(frozenset(ordered[-1:]), frozenset(ordered[:1]), frozenset((fake,)))


class Session:
    """Measures proxies side by side in front of the same fake replicas."""

    def __init__(
        self, plan: Plan, cores: Cores, fakes: Sequence[Running], say: Callable[[str], None]
    ) -> None:
        self._plan = plan
        self._cores = cores
        self._fakes = fakes
        self._say = say
        self.results = Results()

    def run(self, proxies: Sequence[Proxy]) -> Results:
        """Measure every proxy; one that does not start is left out, with a note."""
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self._cores.client)
        try:
            started = self._measure_speed(proxies)
            if workloads.HELD in self._plan.workloads:
                self._measure_memory(started)
        finally:
            os.sched_setaffinity(0, before)
        return self.results

    def _measure_speed(self, proxies: Sequence[Proxy]) -> list[Proxy]:
        with ExitStack() as stack:
            running = [self._fakes[0]]
            started = []
            for proxy in proxies:
                one = self._start(proxy, stack)
                if one is not None:
                    running.append(one)
                    started.append(proxy)
            for repetition in range(self._plan.repeat):
                for workload in self._plan.measured():
                    turn = repetition % len(running)
                    for target in running[turn:] + running[:turn]:
                        self._say(
                            f"{repetition + 1}/{self._plan.repeat} {workload.name} {target.name}"
                        )
                        self._run_once(target, workload, repetition)
            self._profile(running)
        return started

    def _start(self, proxy: Proxy, stack: ExitStack) -> Running | None:
        try:
            running = targets.start(
                proxy, directory=self._plan.directory, cores=set(self._cores.proxy)
            )
        except ChildFailed as error:
            self._note(str(error))
            return None
        if running.child is not None:
            stack.enter_context(running.child)
        return running

    def _run_once(self, target: Running, workload: Workload, repetition: int) -> None:
        child = None if target.name == DIRECT else target.child
        try:
            outcome = self._drive(target, workload)
            if child is not None:
                child.check()
        except (ChildFailed, ProcessLookupError) as error:
            self._note(f"{workload.name} at {target.name}: {error}")
            return
        self.results.runs.append(_as_run(target.name, workload, repetition, outcome))

    def _drive(self, target: Running, workload: Workload) -> drive.Outcome[_Probed]:
        goal = self._load_target(target, workload)
        probe = self._probe(None if target.name == DIRECT else target.child)
        if workload.requests:
            return drive.drive_requests(
                goal,
                lanes=workload.lanes,
                warm_up=max(workload.lanes * 4, int(workload.requests * _WARM_UP_SHARE)),
                requests=workload.requests,
                limit_s=_LIMIT_S,
                probe=probe,
            )
        return drive.drive_window(
            goal,
            lanes=workload.lanes,
            stream_s=workload.stream_s,
            pause_s=workload.pace_ms * _PAUSE_TOKENS / 1000,
            window_s=workload.window_s,
            probe=probe,
        )

    def _load_target(self, target: Running, workload: Workload) -> load.Target:
        request = workloads.request_bytes(
            workload, port=target.port, prompt_bytes=self._plan.prompt_bytes
        )
        return load.Target(target.port, request, workload.events)

    def _probe(self, child: Child | None) -> Callable[[], _Probed]:
        fakes = [fake.child.pid for fake in self._fakes if fake.child is not None]

        def probe() -> _Probed:
            return _Probed(
                None if child is None else procstat.read_cpu(child.pid),
                [procstat.read_cpu(pid) for pid in fakes],
                None if child is None else procstat.rss_bytes(child.pid),
            )

        return probe

    def _measure_memory(self, proxies: Sequence[Proxy]) -> None:
        """Hold streams open at each target in turn, each a fresh process."""
        workload = workloads.held(quick=self._plan.quick)
        self._hold(self._fakes[0], workload)
        for proxy in proxies:
            with ExitStack() as stack:
                running = self._start(proxy, stack)
                if running is not None:
                    self._hold(running, workload)

    def _hold(self, target: Running, workload: Workload) -> None:
        self._say(f"{workload.lanes} slow streams held at {target.name}")
        child = None if target.name == DIRECT else target.child
        time.sleep(_SETTLE_S)
        try:
            idle = None if child is None else procstat.rss_bytes(child.pid)
            outcome = drive.drive_held(
                self._load_target(target, workload),
                lanes=workload.lanes,
                ramp_s=workload.ramp_s,
                held_s=workload.window_s,
                limit_s=workload.stream_s * 2 + 10,
                probe=self._probe(child),
            )
        except ProcessLookupError as error:
            self._note(f"{workload.name} at {target.name}: {error}")
            return
        errors = dict(outcome.tally.errors)
        held = HeldRun(target.name, workload.lanes, idle, outcome.after.rss_bytes, errors)
        self.results.held.append(held)

    def _profile(self, running: Sequence[Running]) -> None:
        triolet = next((one for one in running if one.name == targets.TRIOLET), None)
        if self._plan.profile is None or triolet is None:
            return
        py_spy = profiling.find_py_spy()
        if py_spy is None:
            self._note("no profile: py-spy is not installed")
            return
        self._plan.profile.mkdir(parents=True, exist_ok=True)
        for workload in replace(self._plan, quick=False).measured():
            if workload.name in workloads.PROFILED:
                self._record(py_spy, triolet, workload, self._plan.profile)

    def _record(self, py_spy: str, target: Running, workload: Workload, directory: Path) -> None:
        """Load the target while py-spy records it; twice, as it writes one format at a time."""
        assert target.child is not None
        self._say(f"profile of {workload.name}")
        cores = set(self._cores.fake)
        for form, suffix in (("flamegraph", ".svg"), ("raw", ".txt")):
            output = directory / f"{workload.name}{suffix}"
            with profiling.start_recording(
                py_spy, target.child.pid, output, form, cores
            ) as recorder:
                while not recorder.wait(0):
                    self._drive(target, replace(workload, window_s=2.0))
                if not output.exists():
                    self._note(f"no profile of {workload.name}: {recorder.tail()}")
                    return
        stacks = (directory / f"{workload.name}.txt").read_text().splitlines()
        self.results.profiles[workload.name] = profiling.self_time(stacks)

    def _note(self, text: str) -> None:
        self._say(text)
        self.results.notes.append(text)


@dataclass(frozen=True)
class _Probed:
    """What is read before and after a measured part."""

    proxy_cpu: procstat.CpuReading | None
    fake_cpu: list[procstat.CpuReading]
    rss_bytes: int | None


def _as_run(
    target: str, workload: Workload, repetition: int, outcome: drive.Outcome[_Probed]
) -> Run:
    tally, before, after = outcome.tally, outcome.before, outcome.after
    cpu = None
    if before.proxy_cpu is not None and after.proxy_cpu is not None:
        cpu = procstat.cpu_between(before.proxy_cpu, after.proxy_cpu)
    fakes = map(procstat.cpu_between, before.fake_cpu, after.fake_cpu)
    windowed = workload.requests == 0
    return Run(
        target=target,
        workload=workload.name,
        repetition=repetition,
        requests=(tally.started + tally.finished) / 2 if windowed else tally.finished,
        events=tally.events,
        reads=tally.reads,
        errors=dict(tally.errors),
        wall_s=outcome.wall_s,
        cpu_s=None if cpu is None else cpu.seconds,
        cpu_stat_s=None if cpu is None else cpu.stat_seconds,
        cpu_source="" if cpu is None else cpu.source,
        client_cpu_s=outcome.client_cpu_s,
        fake_cpu_s=sum(use.seconds for use in fakes),
        ttft_p50_s=percentile(tally.ttft_s, 0.5),
        ttft_p90_s=percentile(tally.ttft_s, 0.9),
    )
