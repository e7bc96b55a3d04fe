"""The simulated engine as the replica's core: each token when its step ends, in real time.

One task for each busy replica sleeps from step to step and wakes whoever waits for what that step
made; so a step costs one timer, however many sequences are in it.
"""

from __future__ import annotations

import trio

from bench.engine import Engine, Profile, Sequence
from bench.replica.core import CoreLoad, EngineDiedError, Job
from bench.replica.faults import Faults, Slowness
from bench.replica.stats import EngineStats, FinishReason, Times

__all__ = ["SimulatedCore", "SimulatedRun"]


class SimulatedCore:
    """One engine, driven on Trio's clock by a system task of its own while it has work."""

    def __init__(self, profile: Profile, faults: Faults, seed: int) -> None:
        self.profile = profile
        self.faults = faults
        self.stats = EngineStats()
        self._slowness = Slowness(seed)
        self._slowed = 1.0
        self._started_s: float | None = None
        self._down_until_s = 0.0
        self._stalled_until_s = 0.0
        self._driven = False
        self._nap = trio.CancelScope()
        self._start()

    def _start(self) -> None:
        self.stats = EngineStats()
        self._engine = Engine(self.profile, on_first=self._first_token, on_end=self._end)
        self._slowed = 1.0
        self._runs: set[SimulatedRun] = set()
        # Those that have their first token: others have nothing new after a step.
        self._answering: set[SimulatedRun] = set()

    # --- what the replica does

    def begin(self, job: Job) -> SimulatedRun:
        """Submit a job to the engine."""
        now_s = trio.current_time()
        if self.down_s > 0:
            raise EngineDiedError("the engine is down")
        run = SimulatedRun(self, job)
        self._slow_down(now_s)
        self._engine.submit(run.sequence, now_s)
        self._runs.add(run)
        self._changed(now_s)
        return run

    def load(self) -> CoreLoad:
        """The engine at this moment."""
        self._engine.advance(trio.current_time())
        running, waiting, kv_usage = self._engine.snapshot()
        books = self._engine.books
        return CoreLoad(
            running=running,
            waiting=waiting,
            kv_usage=kv_usage,
            kv_blocks=self.profile.kv_blocks,
            cache_queries=books.prompt_tokens,
            cache_hits=books.cached_tokens,
            preemptions=books.preemptions,
        )

    def reset_cache(self) -> None:
        """Forget all prefixes that no running sequence holds."""
        self._engine.reset_cache(trio.current_time())

    # --- faults

    @property
    def down_s(self) -> float:
        """Seconds until it is up again after a crash; 0 if it is up."""
        return max(0.0, self._down_until_s - trio.current_time())

    @property
    def stalled_s(self) -> float:
        """Seconds until a step may begin again; 0 if nothing is held back."""
        return max(0.0, self._stalled_until_s - trio.current_time())

    def set_faults(self, faults: Faults) -> None:
        """From the next step on."""
        now_s = trio.current_time()
        self.faults = faults
        self._slow_down(now_s)
        self._changed(now_s)

    def stall(self, seconds: float) -> None:
        """No step begins for so long; the one that runs is finished."""
        now_s = trio.current_time()
        self._stalled_until_s = now_s + seconds
        self._engine.stall(self._stalled_until_s, now_s)
        self._changed(now_s)

    def crash(self, restart_s: float) -> None:
        """Lose everything, books and cache included, and be down for `restart_s` seconds."""
        lost = self._runs
        self._start()
        self._started_s = self._down_until_s = trio.current_time() + restart_s
        self._stalled_until_s = 0.0
        for run in lost:
            run.lose()

    def _slow_down(self, now_s: float) -> None:
        if self._started_s is None:
            self._started_s = now_s
        factor = self._slowness.factor(self.faults, now_s - self._started_s)
        if factor != self._slowed:
            self._slowed = factor
            self._engine.slow_down(factor, now_s)

    # --- what runs do

    def leave(self, run: SimulatedRun) -> None:
        """Abort a run that is not over."""
        now_s = trio.current_time()
        if run not in self._runs:
            return
        self._engine.abort(run.sequence, now_s)
        if run in self._runs:  # and did not end right now
            self._forget(run, FinishReason.ABORT, now_s)
            self._changed(now_s)

    def _forget(self, run: SimulatedRun, reason: FinishReason, now_s: float) -> None:
        self._runs.discard(run)
        self._answering.discard(run)
        sequence, profile = run.sequence, self.profile
        arrived_s = sequence.arrived_s
        queued_s = arrived_s + profile.request_s + profile.request_token_s * sequence.prompt_tokens
        times = Times(
            arrived_s, queued_s, sequence.scheduled_s, sequence.first_token_s, ended_s=now_s
        )
        self.stats.ended(reason, times, run.made)

    # --- time passes

    def _changed(self, now_s: float) -> None:
        if not self._driven:
            self._driven = True
            trio.lowlevel.spawn_system_task(self._drive, name="simulated engine")
            return
        self._engine.advance(now_s)
        due_s = self._due_s(now_s)
        if due_s < self._nap.deadline:
            self._nap.deadline = due_s

    async def _drive(self) -> None:
        try:
            while self._runs:
                with trio.CancelScope(deadline=self._due_s(trio.current_time())) as self._nap:
                    await trio.sleep_forever()
                self._step_ended(trio.current_time())
        finally:
            self._driven = False

    def _due_s(self, now_s: float) -> float:
        """When the next step ends, or something else happens."""
        engine = self._engine
        soonest = engine.next_s()
        for run in self._answering:
            # All that decode are in the same step: any one of them tells.
            if run.sequence.state == "decode":
                made = engine.tokens_made(run.sequence, now_s)
                return min(soonest, engine.due_s(run.sequence, made, now_s))
        return soonest

    def _step_ended(self, now_s: float) -> None:
        engine = self._engine
        engine.advance(now_s)
        runs = [*self._answering]
        each_made = engine.tokens_made_each((run.sequence for run in runs), now_s)
        for run, made in zip(runs, each_made, strict=True):
            if made > run.made:
                self._count(run, made, now_s)
                run.wake()
        self._slow_down(now_s)

    def _count(self, run: SimulatedRun, made: int, now_s: float) -> None:
        tokens = made - run.made
        self.stats.generation_tokens += tokens
        self.stats.itl_s.observe((now_s - run.last_s) / tokens, tokens)
        run.made, run.last_s = made, now_s

    def _first_token(self, sequence: Sequence) -> None:
        run: SimulatedRun = sequence.owner
        now_s = sequence.first_token_s
        assert now_s is not None
        run.made, run.last_s = 1, now_s
        self.stats.first_token(run.job.prompt_tokens, now_s - sequence.arrived_s)
        self.stats.generation_tokens += run.job.generates
        self._answering.add(run)
        run.wake()

    def _end(self, sequence: Sequence) -> None:
        run: SimulatedRun = sequence.owner
        now_s = sequence.finished_s
        assert now_s is not None
        if run.made < run.job.tokens:
            self._count(run, run.job.tokens, now_s)
        self._forget(run, run.job.reason, now_s)
        run.wake()


class SimulatedRun:
    """One job in the engine."""

    __slots__ = ("_core", "_lost", "_task", "_wanted", "job", "last_s", "made", "sequence")

    def __init__(self, core: SimulatedCore, job: Job) -> None:
        self._core = core
        self._lost = False
        self._task: trio.lowlevel.Task | None = None
        self._wanted = 0
        self.job = job
        self.sequence = Sequence(
            job.prompt, job.tokens, job.answer, owner=self, tokens=job.prompt_tokens
        )
        self.made = 0
        self.last_s = 0.0
        """When the last of them was made."""

    @property
    def cached_tokens(self) -> int | None:
        """Of the prompt, found in the prefix cache when it was first scheduled."""
        return self.sequence.cached_tokens

    async def wait(self, tokens: int) -> int:
        """Until at least so many tokens are made. Raises EngineDiedError."""
        if self.made < tokens and not self._lost:
            self._wanted = tokens
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._stop_waiting)
        else:
            await trio.lowlevel.checkpoint()
        if self._lost:
            raise EngineDiedError("the engine died")
        return self.made

    def _stop_waiting(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def wake(self) -> None:
        """Some tokens are made: are they those that are waited for?"""
        if self._task is not None and self.made >= self._wanted:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

    def lose(self) -> None:
        """The engine crashed."""
        self._lost = True
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

    def leave(self) -> None:
        """Abort, unless it is over or lost."""
        self._core.leave(self)
