"""A workload played on simulated replicas behind the balancer's own pool, in virtual time.

No sockets: a leased request goes to its replica's engine directly. All else is as in production:
the pool picks, books, hands out and queues, and the policy is told what happens when it happens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import trio

from balancer.errors import PoolBusy
from balancer.policies import Outcome, Policy
from balancer.pool import Pool, PoolStatistics
from balancer.replica import Lease, Replica
from balancer.wire.connect import Dialer
from bench.engine import Clockwork, Engine, JumpClock, Profile
from bench.engine import Sequence as Running
from bench.simulate.ask import TurnAsk
from bench.simulate.calls import Calls
from bench.workload.model import Session, Turn, Workload

__all__ = ["Fleet", "Played", "longest_served", "play", "replica_name"]

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
    max_in_flight: int | None = None,
    queue: int = 1_000_000,
    queue_s: float = 1e9,
) -> Played:
    """Play all of `workload`. `policy` is called inside the run, where `trio.current_time` tells
    virtual seconds. The pool's bounds are as in the configuration, by default out of the way.
    """
    return trio.run(
        _play, workload, fleet, policy, max_in_flight, queue, queue_s, clock=JumpClock()
    )


async def _play(
    workload: Workload,
    fleet: Fleet,
    policy: Callable[[], Policy],
    max_in_flight: int | None,
    queue: int,
    queue_s: float,
) -> Played:
    stage = _Stage(fleet, policy(), max_in_flight, queue, queue_s)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.clockwork.run)
        nursery.start_soon(stage.wake_in_turn)
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

    __slots__ = ("done", "lease", "stage")

    def __init__(self, lease: Lease, stage: _Stage) -> None:
        self.lease = lease
        self.stage = stage
        self.done = trio.Event()


def _answered(running: Running) -> None:
    running.owner.lease.answered()


def _ended(running: Running) -> None:
    call: _Call = running.owner
    call.lease.outcome = Outcome(True, cached_tokens=running.cached_tokens)
    call.lease.release()
    call.stage.wake(call)


class _Stage:
    """The replicas, their pool, and what is noted."""

    def __init__(
        self,
        fleet: Fleet,
        policy: Policy,
        max_in_flight: int | None,
        queue: int,
        queue_s: float,
    ) -> None:
        self.calls = Calls()
        self.clockwork = Clockwork()
        self.engines = [Engine(profile, on_first=_answered, on_end=_ended) for profile in fleet]
        replicas = [
            Replica(replica_name(number), Dialer(), max_in_flight=max_in_flight)
            for number in range(len(fleet))
        ]
        self._longest = longest_served(fleet)
        self._numbers = {replica: number for number, replica in enumerate(replicas)}
        self.pool = Pool("simulated", replicas, policy, queue=queue, queue_s=queue_s)
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
        # No router knows how long an answer will be, and few clients set a limit that says so.
        ask = TurnAsk(turn.prompt, None, str(session.id))
        if ask.prompt_tokens + turn.output_tokens > self._longest:
            return False
        try:
            lease = await self.pool.lease((), ask)
        except PoolBusy:
            return False
        number = self._numbers[lease.replica]
        call = _Call(lease, self)
        running = Running(turn.prompt, turn.output_tokens, turn.answer, call)
        engine = self.engines[number]
        engine.submit(running, trio.current_time())
        self.clockwork.engine_changed(engine)
        await call.done.wait()
        self.calls.note(session, asked_s, running, number)
        return True
