"""A workload played on simulated replicas behind the balancer's own pool, in virtual time.

No sockets: a leased request goes to its replica's engine directly. All else is as in production:
the pool picks, books, hands out and queues, and the policy is told what happens when it happens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from balancer.errors import PoolBusy
from balancer.policies import Policy
from balancer.pool import Pool
from balancer.replica import Lease, Replica
from balancer.wire.connect import Dialer
from bench.engine import Clockwork, Engine, JumpClock, Profile
from bench.engine import Sequence as Running
from bench.simulate.ask import TurnAsk
from bench.simulate.calls import Calls
from bench.workload.model import Session, Turn, Workload

__all__ = ["Fleet", "Played", "play"]

Fleet = Sequence[Profile]
"""The engines behind the replicas `http://sim-0`, `http://sim-1`, ..."""


class Played:
    """What happened."""

    def __init__(self, calls: Calls, engines: Sequence[Engine]) -> None:
        self.calls = calls
        self.engines = engines


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
        if workload.concurrency is None:
            await _open_loop(workload, stage)
        else:
            await _closed_loop(workload, stage, workload.concurrency)
        nursery.cancel_scope.cancel("all is played")
    return Played(stage.calls, stage.engines)


async def _open_loop(workload: Workload, stage: _Stage) -> None:
    """Every session begins when its first turn is due."""
    async with trio.open_nursery() as nursery:
        for session in workload.sessions:
            if session.turns and session.turns[0].due_s is not None:
                await trio.sleep_until(session.turns[0].due_s)
            nursery.start_soon(stage.play_session, session)


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

    __slots__ = ("done", "lease")

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.done = trio.Event()


def _answered(running: Running) -> None:
    running.owner.lease.answered()


def _ended(running: Running) -> None:
    call: _Call = running.owner
    call.lease.cached_tokens = running.cached_tokens
    call.lease.release()
    call.done.set()


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
        # A mixed fleet behind one model name has one context length: that of the smallest.
        self._longest = min(engine.longest for engine in self.engines)
        self._numbers = {replica: number for number, replica in enumerate(replicas)}
        self._pool = Pool("simulated", replicas, policy, queue=queue, queue_s=queue_s)

    async def play_session(self, session: Session) -> None:
        """All turns, one after the other; a refused one ends the session."""
        for turn in session.turns:
            if turn.due_s is not None:
                await trio.sleep_until(turn.due_s)
            elif turn.delay_s:
                await trio.sleep(turn.delay_s)
            if not await self._play_turn(session, turn):
                return

    async def _play_turn(self, session: Session, turn: Turn) -> bool:
        asked_s = trio.current_time() if turn.due_s is None else turn.due_s
        # No router knows how long an answer will be, and few clients set a limit that says so.
        ask = TurnAsk(turn.prompt, None, str(session.id))
        if ask.prompt_tokens + turn.output_tokens > self._longest:
            self.calls.refuse(session.tier)
            return False
        try:
            lease = await self._pool.lease((), ask)
        except PoolBusy:
            self.calls.refuse(session.tier)
            return False
        number = self._numbers[lease.replica]
        call = _Call(lease)
        running = Running(turn.prompt, turn.output_tokens, turn.answer, call)
        engine = self.engines[number]
        engine.submit(running, trio.current_time())
        self.clockwork.engine_changed(engine)
        await call.done.wait()
        self.calls.note(session, asked_s, running, number)
        return True
