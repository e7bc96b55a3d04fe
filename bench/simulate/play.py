"""A workload played on simulated replicas behind the balancer's own pool, in virtual time.

No sockets: a leased request goes to its replica's engine directly. All else is as in production:
the pool picks, books, hands out and queues, and the policy is told what happens when it happens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

import msgspec
import trio

from balancer.admission import TIERS, Standing
from balancer.errors import PoolBusy
from balancer.lease import Lease, ReclaimReason
from balancer.policies import BLOCK_TOKENS, Outcome, Policy
from balancer.pool import Pool, PoolStatistics
from balancer.prefix import ENGINE_TOKENS, PrefixIndex
from balancer.replica import Replica
from balancer.speed import Speed
from balancer.wire.connect import Dialer
from bench.engine import Clockwork, Engine, JumpClock, Profile
from bench.engine import Sequence as Running
from bench.simulate.ask import TurnAsk
from bench.simulate.calls import Calls
from bench.simulate.conditions import Conditions
from bench.simulate.counts import EstimatedCounts
from bench.simulate.disturbing import disturb
from bench.simulate.probing import Machine, probe
from bench.workload.model import Prompt, Session, Turn, Workload, prompt_tokens

__all__ = ["Fleet", "Played", "longest_served", "play", "replica_name", "sized_index"]

Fleet = Sequence[Profile]
"""The engines behind the replicas `http://sim-0`, `http://sim-1`, ..."""


class Played(NamedTuple):
    """What happened."""

    calls: Calls
    engines: Sequence[Engine]
    """As they are at the end."""
    pool: PoolStatistics
    """At the end, when nothing should be left in it."""


def longest_served(fleet: Fleet) -> int:
    """Tokens, prompt and answer together, that every replica of `fleet` can serve.

    A mixed fleet behind one model name has one context length: that of the smallest.
    """
    return min(Engine(profile).longest for profile in set(fleet))


def replica_name(number: int) -> str:
    """What policies know a replica by."""
    return f"http://sim-{number}"


def play(
    workload: Workload,
    fleet: Fleet,
    policy: Callable[[], Policy],
    *,
    conditions: Conditions = Conditions(),  # noqa: B008 - immutable
    seed: int = 0,
    max_in_flight: int | None = None,
    queue: int = 1_000_000,
    queue_s: float = 1e9,
) -> Played:
    """Play all of `workload`. `policy` is called inside the run, where `trio.current_time` tells
    virtual seconds. The pool's bounds are as in the configuration, by default out of the way.
    `seed` is that of the conditions.
    """

    def stage() -> _Stage:
        return _Stage(fleet, policy(), conditions, seed, max_in_flight, queue, queue_s)

    return trio.run(_play, workload, stage, clock=JumpClock())


async def _play(workload: Workload, make: Callable[[], _Stage]) -> Played:
    stage = make()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.clockwork.run)
        nursery.start_soon(stage.wake_in_turn)
        nursery.start_soon(probe, stage.machines)
        nursery.start_soon(disturb, stage.conditions.foreign, stage.machines, stage.clockwork)
        if workload.concurrency is None:
            await _open_loop(workload, stage)
        else:
            await _closed_loop(workload, stage, workload.concurrency)
        nursery.cancel_scope.cancel("all is played")
    return Played(stage.calls, stage.engines, stage.pool.statistics())


async def _open_loop(workload: Workload, stage: _Stage) -> None:
    """Every session begins when its first turn is due."""
    async with trio.open_nursery() as nursery:
        for session in workload.sessions:
            if session.turns and session.turns[0].due_s is not None:
                await _sleep_until(session.turns[0].due_s)
            nursery.start_soon(stage.play_session, session)
            # Trio starts the tasks of one moment in any order, unless each has a pass of its own.
            await trio.lowlevel.checkpoint()


async def _sleep_until(due_s: float) -> None:
    if due_s > trio.current_time():
        await trio.sleep_until(due_s)


async def _closed_loop(workload: Workload, stage: _Stage, concurrency: int) -> None:
    """So many sessions at once; the next begins when one has ended."""
    sessions = iter(workload.sessions)

    async def one_after_the_other() -> None:
        for session in sessions:
            await stage.play_session(session)

    async with trio.open_nursery() as nursery:
        for _ in range(concurrency):
            nursery.start_soon(one_after_the_other)


class _Call:
    """One request on its way: what an engine's sequence leads back to."""

    __slots__ = ("done", "lease", "put_back", "stage")

    def __init__(self, lease: Lease, stage: _Stage) -> None:
        self.lease = lease
        self.stage = stage
        self.done = trio.Event()
        self.put_back = False
        """Whether another has its place now: it waits in line again."""


def _answered(running: Running) -> None:
    running.owner.lease.answered()


def _ended(running: Running) -> None:
    call: _Call = running.owner
    call.lease.outcome = _outcome(running, call.stage.reports_cached)
    call.lease.release()
    call.stage.wake(call)


def _outcome(running: Running, reports_cached: bool) -> Outcome:
    """As it is read off an answer: its times, and the usage that the engine reports."""
    first_s, ended_s, tokens = running.first_token_s, running.finished_s, running.output_tokens
    assert first_s is not None
    assert ended_s is not None
    return Outcome(
        answered=True,
        ttft_s=first_s - running.arrived_s,
        itl_s=(ended_s - first_s) / (tokens - 1) if tokens > 1 else None,
        prompt_tokens=running.prompt_tokens,
        cached_tokens=running.cached_tokens if reports_cached else None,
        output_tokens=tokens,
    )


def _as_it_is(prompt: Prompt) -> Prompt:
    return prompt


class _Stage:
    """The replicas, their pool, and what is noted."""

    def __init__(
        self,
        fleet: Fleet,
        policy: Policy,
        conditions: Conditions,
        seed: int,
        max_in_flight: int | None,
        queue: int,
        queue_s: float,
    ) -> None:
        self.calls = Calls()
        self.clockwork = Clockwork()
        self.conditions = conditions
        self.reports_cached = conditions.reports_cached
        self.engines = [Engine(profile, on_first=_answered, on_end=_ended) for profile in fleet]
        chance = Random(seed).random
        replicas = [
            Replica(replica_name(number), Dialer(), max_in_flight=max_in_flight, chance=chance)
            for number in range(len(fleet))
        ]
        self.machines = list(map(Machine, replicas, self.engines))
        for machine in self.machines:
            _prepare(machine, conditions.prior_error)
        for slow in conditions.slow:
            self.machines[slow.replica].slowness *= slow.amount
            self.machines[slow.replica].set_pace(trio.current_time())
        self._seen = EstimatedCounts(seed) if conditions.counts == "estimated" else _as_it_is
        self._longest = longest_served(fleet)
        self._numbers = {replica: number for number, replica in enumerate(replicas)}
        self.pool = Pool(
            "simulated",
            replicas,
            policy,
            prefixes=sized_index(replicas) if policy.reads_prompt else None,
            tiers=[
                msgspec.structs.replace(tier, queue=queue, queue_s=queue_s)
                for tier in (TIERS if conditions.tiers else TIERS[:1])
            ],
            chance=chance,
        )
        self._woken_s = -1.0
        self._to_wake: deque[_Call] = deque()
        self._several = trio.Event()

    def wake(self, call: _Call) -> None:
        """Its answer is there: its session goes on.

        Trio runs the tasks of one moment in any order. Of calls that end together each is woken
        after the one before it has gone on, so that the same seed gives the same run.
        """
        now_s = trio.current_time()
        if self._woken_s != now_s:
            self._woken_s = now_s
            call.done.set()
        else:
            self._to_wake.append(call)
            self._several.set()

    async def wake_in_turn(self) -> None:
        """Wakes the second and further calls of a moment, until cancelled."""
        while True:
            await self._several.wait()
            while self._to_wake:
                self._to_wake.popleft().done.set()
                await trio.lowlevel.checkpoint()
            self._several = trio.Event()

    async def play_session(self, session: Session) -> None:
        """All turns, one after the other; a refused one ends the session."""
        for place, turn in enumerate(session.turns):
            if turn.due_s is not None:
                await _sleep_until(turn.due_s)
            elif turn.delay_s:
                await trio.sleep(turn.delay_s)
            if not await self._play_turn(session, turn):
                self.calls.refuse(session, len(session.turns) - place - 1)
                return

    async def _play_turn(self, session: Session, turn: Turn) -> bool:
        """Whether it was answered."""
        asked_s = trio.current_time() if turn.due_s is None else turn.due_s
        if prompt_tokens(turn.prompt) + turn.output_tokens > self._longest:
            return False
        # No router knows how long an answer will be, and few clients set a limit that says so.
        ask = TurnAsk(self._seen(turn.prompt), None, str(session.id))
        standing = Standing(session.tier, trio.current_time())
        while True:
            try:
                call = _Call(await self.pool.lease((), ask, standing), self)
            except PoolBusy:
                return False
            running = Running(turn.prompt, turn.output_tokens, turn.answer, call)
            number = self._numbers[call.lease.replica]
            self._submit(running, call, self.engines[number])
            await call.done.wait()
            if not call.put_back:
                self.calls.note(session, asked_s, running, number)
                return True

    def _submit(self, running: Running, call: _Call, engine: Engine) -> None:
        def put_back(reason: ReclaimReason) -> None:
            call.put_back = True
            engine.abort(running, trio.current_time())
            self.clockwork.engine_changed(engine)
            self.calls.put_back += 1
            self.wake(call)

        call.lease.on_reclaim = put_back
        engine.submit(running, trio.current_time())
        self.clockwork.engine_changed(engine)


def _prepare(machine: Machine, prior_error: float) -> None:
    """What is known before the first request: a first reading, and first guesses of its speed."""
    now_s, replica = trio.current_time(), machine.replica
    machine.read_gauges(now_s)
    machine.read_gpu(now_s)
    if prior_error != 1.0:
        guessed = replica.speed
        replica.speed = Speed(
            prefill_tokens_per_s=prior_error * guessed.prefill_tokens_per_s(now_s),
            decode_s_per_stream=prior_error * guessed.decode_s_per_stream(now_s),
        )


def sized_index(replicas: Sequence[Replica]) -> PrefixIndex:
    """Sized as in production: by what each engine says that its cache holds."""
    said = {replica.name: replica.gauges for replica in replicas}

    def kv_tokens(name: str) -> int:
        gauges = said[name]
        return (gauges and gauges.kv_tokens) or ENGINE_TOKENS

    return PrefixIndex(BLOCK_TOKENS, kv_tokens)
