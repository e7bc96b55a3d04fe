"""One comparison: every target in turn before fresh replicas, in an order of its own each time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.load.plan import Closed, Limits, Plan
from bench.peers.cores import Cores
from bench.peers.drive import Drive, Interrupted, drive
from bench.peers.figures import CellResult, Costs, errors_of, figures_of
from bench.peers.gateway import Gateway, Place
from bench.peers.ready import await_answer
from bench.peers.replicas import Replica, books_between, has_path, read_books, start_replicas
from bench.peers.target import Target, in_random_order
from bench.peers.usage import load_side_share, load_side_warnings, read_usage
from bench.peers.workload import workload_of
from bench.relay import procstat
from bench.relay.children import Child, ChildFailed, free_port
from bench.workload.model import Workload

__all__ = ["Results", "Session", "Settings"]

_PHASE_LIMIT_S: Final = 600.0
"""What is not answered by then counts as unfinished, so that nobody holds up all after it."""


@dataclass(frozen=True)
class Settings:
    """What all targets have in common."""

    directory: Path
    workload: str
    concurrency: int
    requests: int
    warmup: int
    replicas: int
    repeat: int
    seed: int
    profile: str | None = None
    model: str = "demo"


@dataclass
class Results:
    """What was measured so far."""

    cells: list[CellResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False


@dataclass(frozen=True)
class _Started:
    """A target that answers."""

    child: Child | None
    ready_s: float
    urls: tuple[str, ...]
    headers: tuple[tuple[str, str], ...] = ()
    session_header: str | None = None
    replica_path: str | None = None


class Session:
    """Measures targets one after the other."""

    def __init__(
        self,
        settings: Settings,
        cores: Cores,
        homes: Mapping[str, Path],
        say: Callable[[str], None],
        drive: Drive = drive,
    ) -> None:
        self._settings = settings
        self._cores = cores
        self._homes = homes
        self._say = say
        self._drive = drive
        self._given_up: set[Target] = set()
        self.results = Results(notes=cores.notes())

    def run(self, targets: Sequence[Target]) -> Results:
        """Measure every target; Ctrl-C ends it with what was measured until then."""
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self._cores.client)
        try:
            self._repeat(targets)
        except (KeyboardInterrupt, Interrupted):
            self.results.interrupted = True
            self._note("stopped by hand: what was not measured until then is missing")
        finally:
            os.sched_setaffinity(0, before)
        return self.results

    def _repeat(self, targets: Sequence[Target]) -> None:
        settings, done = self._settings, 0
        for repetition in range(settings.repeat):
            for target in in_random_order(targets, repetition=repetition, seed=settings.seed):
                done += 1
                if target in self._given_up:
                    continue
                self._say(f"{done}/{settings.repeat * len(targets)} {target}")
                cell = self._cell(target, repetition)
                self.results.cells.append(cell)
                self._say(f"    {_outcome(cell)}")

    def _cell(self, target: Target, repetition: int) -> CellResult:
        directory = self._settings.directory / f"{repetition}-{target.name}-{target.policy}"
        directory.mkdir()
        try:
            with ExitStack() as stack:
                replicas = self._start_replicas(directory, stack)
                started = self._start(target, replicas, directory, stack)
                return self._measure(target, repetition, replicas, started)
        except (ChildFailed, ProcessLookupError, OSError) as error:
            self._given_up.add(target)
            return CellResult(
                target=target.name, policy=target.policy, repetition=repetition, failure=str(error)
            )

    def _start_replicas(self, directory: Path, stack: ExitStack) -> list[Replica]:
        settings = self._settings
        return start_replicas(
            settings.replicas,
            model=settings.model,
            profile=settings.profile,
            directory=directory,
            cores=[set(cores) for cores in self._cores.replicas],
            stack=stack,
        )

    def _start(
        self, target: Target, replicas: Sequence[Replica], directory: Path, stack: ExitStack
    ) -> _Started:
        urls = tuple(replica.url for replica in replicas)
        if target.gateway is None:
            return _Started(None, 0.0, urls)
        return self._start_gateway(target.gateway, target.policy, urls, directory, stack)

    def _start_gateway(
        self,
        gateway: Gateway,
        policy: str,
        replicas: tuple[str, ...],
        directory: Path,
        stack: ExitStack,
    ) -> _Started:
        place = Place(
            home=self._homes[gateway.name],
            directory=directory,
            port=free_port(),
            metrics_port=free_port(),
            replicas=replicas,
            model=self._settings.model,
        )
        setup = gateway.setup(place, policy)
        for file, content in setup.files.items():
            file.write_text(content, encoding="utf-8")
        began = time.perf_counter()
        child = Child(
            gateway.name,
            setup.command,
            log=directory / "gateway.log",
            cores=set(self._cores.gateway),
            environment=setup.environment,
        )
        stack.enter_context(child)
        await_answer(child, place.port, place.model, headers=setup.headers)
        ready_s = time.perf_counter() - began
        url = f"http://127.0.0.1:{place.port}"
        return _Started(
            child, ready_s, (url,), setup.headers, setup.session_header, setup.replica_path
        )

    def _measure(
        self, target: Target, repetition: int, replicas: Sequence[Replica], started: _Started
    ) -> CellResult:
        settings = self._settings
        seed = settings.seed + repetition
        workload = workload_of(
            settings.workload,
            requests=settings.requests,
            concurrency=settings.concurrency,
            replicas=settings.replicas,
            seed=seed,
        )
        if settings.warmup:
            self._warm_up(self._plan(target, started, settings.warmup, seed), workload)
        books, before = read_books(replicas), read_usage(started.child, replicas)
        result = self._drive(
            self._plan(target, started, settings.requests, seed), workload, warmup=False
        )
        used = read_usage(started.child, replicas).since(before)
        served = books_between(books, read_books(replicas))
        for child in (started.child, *(replica.child for replica in replicas)):
            if child is not None:
                child.check()
        costs = None
        if started.child is not None and used.gateway_s is not None:
            peak = procstat.peak_rss_bytes(started.child.pid)
            costs = Costs(cpu_s=used.gateway_s, peak_bytes=peak, ready_s=started.ready_s)
        share = load_side_share(result.client, used, self._cores)
        return CellResult(
            target=target.name,
            policy=target.policy,
            repetition=repetition,
            figures=figures_of(result, served, costs),
            sent=len(result.measured),
            completed=sum(record.outcome == "ok" for record in result.measured),
            errors=errors_of(result),
            requests_by_replica=[round(one.requests) for one in served],
            chunks=result.client.chunks,
            wall_s=result.client.wall_s,
            gateway_cpu_s=used.gateway_s,
            load_side_share=share,
            warnings=[
                *_path_warnings(started, replicas),
                *result.warnings,
                *load_side_warnings(share),
            ],
        )

    def _warm_up(self, plan: Plan, workload: Workload) -> None:
        """Raises ChildFailed if nothing comes back: every request after it would only time out."""
        warm = self._drive(plan, workload, warmup=True)
        if not any(record.outcome == "ok" for record in warm.measured):
            raise ChildFailed(f"no request of the warm-up succeeded: {errors_of(warm)}")

    def _plan(self, target: Target, started: _Started, requests: int, seed: int) -> Plan:
        settings = self._settings
        return Plan(
            urls=started.urls,
            model=settings.model,
            loop=Closed(concurrency=settings.concurrency),
            url_strategy="session" if target.policy == "session" else "round_robin",
            headers=started.headers,
            session_header=started.session_header,
            limits=Limits(requests=requests, duration_s=_PHASE_LIMIT_S),
            request_timeout_s=120.0,
            seed=seed,
        )

    def _note(self, text: str) -> None:
        self._say(text)
        self.results.notes.append(text)


def _path_warnings(started: _Started, replicas: Sequence[Replica]) -> list[str]:
    path = started.replica_path
    if path is None or all(has_path(replica, path) for replica in replicas):
        return []
    return [f"the replicas have no {path}, which this policy asks: it balances without it"]


def _outcome(cell: CellResult) -> str:
    """A line for whoever waits."""
    if cell.failure is not None:
        return f"failed: {cell.failure}"
    figures = cell.figures
    ttft, rate = figures.ttft_p50_ms, figures.requests_per_s
    if ttft is None or rate is None:
        return f"no request succeeded: {cell.errors}"
    failed = f", errors: {cell.errors}" if cell.errors else ""
    return f"TTFT p50 {ttft:.0f} ms, {rate:.1f} requests/s{failed}"
