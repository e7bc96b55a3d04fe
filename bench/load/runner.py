"""A whole run: idle probes, warm-up, the measured phase with probes beside it, the result."""

from __future__ import annotations

import gc
import secrets
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Final, TypeVar

import msgspec
import trio

from balancer.wire.connect import Dialer, TcpDialer, tls_context
from balancer.wire.poller import open_poller
from bench.load.chunks import Count
from bench.load.client import LoadClient
from bench.load.conversation import Render
from bench.load.phase import Phase
from bench.load.plan import Closed, Limits, Loop, Plan, Scheduled
from bench.load.probe import Prober
from bench.load.progress import Shown, Tally
from bench.load.record import Phase as PhaseName
from bench.load.record import Probe, Record
from bench.load.result import RunResult
from bench.load.scrape import scrape
from bench.load.selfcheck import LagWatch, PassWatch, client_warnings, facts_of, watched_passes
from bench.load.supply import Supply
from bench.load.timer import open_timer
from bench.workload.model import Workload
from bench.workload.text import count_tokens
from bench.workload.text import render as words

__all__ = ["calm_collector", "run", "run_alone", "stop_on_interrupt"]

T = TypeVar("T")

_WARMUP_SALT: Final = 0x5BD1E995A3C59AC3 >> 1
_WARMUP_CONCURRENCY: Final = 4


async def run(
    plan: Plan,
    workload: Workload,
    *,
    dialer: Dialer | None = None,
    render: Render = words,
    stop: trio.Event | None = None,
    shown: Shown | None = None,
    count: Count = count_tokens,
) -> RunResult:
    """Drive the load of `plan` with the sessions of `workload`.

    `stop` ends it early: what was measured until then is returned, `was_cancelled` set, what was
    in flight unfinished. `count` counts the tokens of an answer. Raises ValueError for a workload
    that does not fit the plan.
    """
    async with _network(plan, dialer) as network:
        stop = trio.Event() if stop is None else stop
        return await _Run(plan, workload, network, render, shown, count).run(stop)


@asynccontextmanager
async def stop_on_interrupt() -> AsyncIterator[trio.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; a second one is a KeyboardInterrupt."""
    stop = trio.Event()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                async for _ in signals:
                    if stop.is_set():
                        raise KeyboardInterrupt
                    stop.set()

            nursery.start_soon(listen)
            yield stop
            nursery.cancel_scope.cancel("the run is over")


@asynccontextmanager
async def _network(plan: Plan, dialer: Dialer | None) -> AsyncIterator[Dialer]:
    if dialer is not None:
        yield dialer
        return
    if any(url.startswith("https:") for url in plan.urls):
        tls_context()  # 20 ms that are better spent before the clock runs
    async with trio.open_nursery() as nursery:
        poller = open_poller()
        await nursery.start(poller.run)
        yield TcpDialer(poller)
        nursery.cancel_scope.cancel("the run is over")


class _Run:
    def __init__(
        self,
        plan: Plan,
        workload: Workload,
        dialer: Dialer,
        render: Render,
        shown: Shown | None,
        count: Count,
    ) -> None:
        self._plan = plan
        self._workload = workload
        self._dialer = dialer
        self._render = render
        self._shown = shown
        self._id = f"bench-{secrets.token_hex(4)}"
        self._origin = trio.current_time()
        self._client = LoadClient(plan, dialer, self._now, count)
        self._prober = Prober(plan, dialer, self._now)
        self._tally = Tally("starting", self._now)
        self._lag = LagWatch()
        self._cpu_from_s = self._wall_from_s = 0.0
        self._cpu_s = self._wall_s = 0.0
        self._before: dict[str, float] = {}
        self._after: dict[str, float] = {}
        self._notes: list[str] = []
        self._phases: list[Phase] = []
        self._supplies: list[Supply] = []
        self._probes: list[Probe] = []
        self._idle_probes: list[Probe] = []
        self._started_at = time.time()

    def _now(self) -> float:
        return trio.current_time() - self._origin

    async def run(self, stop: trio.Event) -> RunResult:
        with ExitStack() as stack:
            stack.callback(self._client.close)
            stack.callback(self._prober.close)
            passes = stack.enter_context(watched_passes())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when, stop, nursery.cancel_scope)
                nursery.start_soon(self._watch_lag)
                if self._shown is not None:
                    nursery.start_soon(self._shown.run, lambda: self._tally.line())
                await self._phases_in_turn(passes)
                nursery.cancel_scope.cancel("all phases are over")
            return self._result(passes, was_cancelled=stop.is_set())

    async def _watch_lag(self) -> None:
        with open_timer() as timer:
            await self._lag.run(timer)

    async def _phases_in_turn(self, passes: PassWatch) -> None:
        plan = self._plan
        if plan.probe_rate is not None:
            idle = trio.CancelScope(deadline=trio.current_time() + plan.probe_idle_s)
            await self._probe(self._idle_probes, idle)
        if plan.warmup.any:
            await self._phase("warmup", self._warmup_loop(), plan.warmup, self._warmup_render)
        await self._scrape(self._before)
        self._lag.forget()
        passes.forget()
        self._cpu_from_s, self._wall_from_s = time.process_time(), time.perf_counter()
        async with trio.open_nursery() as nursery:
            sending = trio.CancelScope()
            if plan.probe_rate is not None:
                nursery.start_soon(self._probe, self._probes, sending)
            await self._phase("profiling", plan.loop, plan.limits, self._render)
            sending.cancel("the measured phase is over")
        self._cpu_s = time.process_time() - self._cpu_from_s
        self._wall_s = time.perf_counter() - self._wall_from_s
        await self._scrape(self._after)

    async def _scrape(self, samples: dict[str, float]) -> None:
        for url in self._plan.metrics_urls:
            found = await scrape(self._dialer, url)
            if isinstance(found, str):
                self._notes.append(f"server metrics: {found}")
                continue
            for name, value in found.items():
                samples[name] = samples.get(name, 0.0) + value

    async def _probe(self, probes: list[Probe], sending: trio.CancelScope) -> None:
        with open_timer() as timer:
            await self._prober.run(probes, timer, sending)

    async def _phase(self, name: PhaseName, loop: Loop, limits: Limits, render: Render) -> None:
        repeat = limits.any and not isinstance(loop, Scheduled)
        supply = Supply(self._workload, repeat=repeat, sessions=limits.sessions)
        self._tally = tally = Tally(name, self._now)
        phase = Phase(
            name,
            self._plan,
            loop=loop,
            limits=limits,
            supply=supply,
            client=self._client,
            render=render,
            origin=self._origin,
            run_id=self._id,
            settled=tally.settle,
        )
        tally.sent, tally.in_flight = lambda: len(phase.records), lambda: phase.in_flight
        self._phases.append(phase)
        self._supplies.append(supply)
        with open_timer() as timer:
            await phase.run(timer)

    def _warmup_loop(self) -> Loop:
        plan = self._plan
        if plan.warmup_concurrency is not None:
            return Closed(concurrency=plan.warmup_concurrency)
        if isinstance(plan.loop, Scheduled):
            return Closed(concurrency=_WARMUP_CONCURRENCY)
        return plan.loop

    def _warmup_render(self, key: int, tokens: int) -> str:
        """Other words of the same number: a warm-up must not fill the prefix cache with what is
        measured afterwards."""
        return self._render(key ^ _WARMUP_SALT, tokens)

    def _result(self, passes: PassWatch, *, was_cancelled: bool) -> RunResult:
        records = [record for phase in self._phases for record in phase.records]
        measured = [record for record in records if record.phase == "profiling"]
        facts = facts_of(
            measured,
            self._lag,
            passes,
            wall_s=self._wall_s or time.perf_counter() - self._wall_from_s,
            cpu_s=self._cpu_s or time.process_time() - self._cpu_from_s,
        )
        driven = [phase for phase in self._phases if phase.name == "profiling"]
        facts = msgspec.structs.replace(
            facts,
            capped=sum(phase.capped for phase in driven),
            behind_s=sum(phase.behind_s for phase in driven),
        )
        warnings, spoiled = client_warnings(self._plan, measured, facts)
        return RunResult(
            plan=self._plan.shown(),
            workload=self._workload.name,
            workload_about=self._workload.about,
            records=records,
            probes=self._probes,
            idle_probes=self._idle_probes,
            started_at=self._started_at,
            duration_s=_duration_s(measured),
            sessions_started=len({record.session for record in measured}),
            turns_not_sent=sum(phase.turns_not_sent for phase in driven),
            metrics_before=self._before,
            metrics_after=self._after,
            was_cancelled=was_cancelled,
            warnings=[
                *self._client.notes,
                *dict.fromkeys(self._notes),
                *self._own_warnings(),
                *warnings,
            ],
            client=msgspec.structs.replace(facts, spoiled=spoiled),
        )

    def _own_warnings(self) -> Iterator[str]:
        rounds = self._rounds_sent()
        if rounds > 1:
            yield (
                f"the workload's sessions were sent {rounds} times over: prompts that were sent "
                "before can be in the target's prefix cache (more sessions avoid this)"
            )
        first = next(iter(self._workload.sessions), None)
        if self._plan.warmup.any and first is not None and first.texts:
            yield (
                "the warm-up sent recorded prompts that were then measured: they can have been in "
                "the target's prefix cache"
            )
        if self._client.replaced:
            yield (
                f"{self._client.replaced} kept connections had been closed by the target when a "
                "request was sent on them: replaced at once, and measured from then"
            )
        if self._prober.skipped:
            yield f"{self._prober.skipped} probes were not sent: 256 were still without an answer"

    def _rounds_sent(self) -> int:
        """How often the sessions were sent. Of a round begun last, maybe nothing was any more."""
        if not self._supplies:
            return 0
        supply = self._supplies[-1]
        last = max((record.session for record in self._phases[-1].records), default=0)
        return supply.rounds - (last < supply.round_from)


def _duration_s(measured: list[Record]) -> float:
    ends = [record.ended_s for record in measured if record.ended_s is not None]
    return max(ends) - min(record.sent_s for record in measured) if ends else 0.0


def run_alone(body: Callable[[], Awaitable[T]]) -> T:
    """`trio.run` for a command: KeyboardInterrupt and ValueError come out by themselves, not in the
    groups of the nurseries they passed."""
    try:
        with calm_collector():
            return trio.run(body)
    except BaseExceptionGroup as group:
        for kind in (KeyboardInterrupt, ValueError):
            found = group.subgroup(kind)
            if found is not None:
                raise _leaf(found) from group
        raise


def _leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _leaf(first) if isinstance(first, BaseExceptionGroup) else first


async def _cancel_when(stop: trio.Event, scope: trio.CancelScope) -> None:
    await stop.wait()
    scope.cancel("stopped by hand")


@contextmanager
def calm_collector() -> Iterator[None]:
    """For a process that does nothing but measure. Records are many, long-lived and without
    cycles: looking through them again and again would stop the loop for milliseconds."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 1_000)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
