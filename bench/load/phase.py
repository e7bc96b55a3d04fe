"""One phase of a run: sessions begin, turns are sent, until a limit is reached.

Closed loop: so many sessions at once. Open loop: arrivals or due times say when, whatever the
target does, and a request that could not leave in time keeps its scheduled time. Each session is
played by one task; a limit only stops the sending, what is in flight has the grace period.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import count
from math import inf
from random import Random
from typing import Final

import trio

from bench.load.arrivals import arrival_times
from bench.load.client import Ask, LoadClient
from bench.load.conversation import Render
from bench.load.plan import Closed, Limits, Loop, Plan, Rated, Scheduled
from bench.load.record import Phase as PhaseName
from bench.load.record import Record
from bench.load.supply import Numbered, Supply
from bench.load.talk import Talk
from bench.load.timer import Timer
from bench.workload.model import Turn, prompt_tokens

__all__ = ["Phase"]

_AFTER_REFUSAL_S: Final = 0.1
"""A closed loop waits so long when nothing listens, or it would do nothing but dial."""


class _Waiting:
    """A turn that is ready and waits for an arrival."""

    __slots__ = ("at", "called", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.at: float | None = None
        self.called = trio.Event()


class Phase:
    """Sends what `limits` allow. `run` once; `stop` at any time.

    `settled` is called with each record when its request is over, however it ended.
    """

    def __init__(
        self,
        name: PhaseName,
        plan: Plan,
        *,
        loop: Loop,
        limits: Limits,
        supply: Supply,
        client: LoadClient,
        render: Render,
        origin: float,
        run_id: str,
        settled: Callable[[Record], None],
    ) -> None:
        self.name = name
        self._plan = plan
        self._loop = loop
        self._limits = limits
        self._supply = supply
        self._client = client
        self._render = render
        self._origin = origin
        self._run_id = run_id
        self._settled = settled
        self._numbers = count()
        self._random = Random(f"cancellations/{plan.seed}/{name}")
        self._room = trio.Semaphore(plan.max_in_flight)
        self._pauses: set[trio.CancelScope] = set()
        self._ready: deque[_Waiting] = deque()
        self._stirred = trio.Event()
        self._talks = 0
        self.records: list[Record] = []
        self.stopped = False
        self.in_flight = 0
        self._held = 0
        self._due = inf
        """When the arrival was due that an open loop is about to send."""
        self.capped = 0
        self.behind_s = 0.0
        """How long the first request that was not sent any more had been due (open loop)."""
        self.turns_not_sent = 0
        self.started_at = 0.0

    async def run(self, timer: Timer) -> None:
        """Send until a limit is reached or the sessions are at an end, then await the answers."""
        self.started_at = trio.current_time()
        async with trio.open_nursery() as outer:
            if self._limits.duration_s is not None:
                outer.start_soon(self._end_in_time, self._limits.duration_s, outer.cancel_scope)
            async with trio.open_nursery() as sessions:
                if isinstance(self._loop, Closed):
                    self._keep_up(self._loop, sessions)
                elif isinstance(self._loop, Rated):
                    await self._arrive(self._loop, sessions, timer)
                else:
                    await self._follow(self._loop, sessions, timer)
            outer.cancel_scope.cancel("every session is over")

    def stop(self) -> None:
        """Send nothing more; what is in flight goes on."""
        self.stopped = True
        for scope in self._pauses:
            scope.cancel("sending has stopped")

    async def _end_in_time(self, duration_s: float, scope: trio.CancelScope) -> None:
        await trio.sleep_until(self.started_at + duration_s)
        if not self.stopped:
            self.behind_s = max(0.0, trio.current_time() - self._due)
        self.stop()
        scope.deadline = self.started_at + duration_s + self._plan.grace_s

    # Closed loop

    def _keep_up(self, loop: Closed, sessions: trio.Nursery) -> None:
        for slot in range(loop.concurrency):
            begin = self.started_at + loop.ramp_s * slot / loop.concurrency
            sessions.start_soon(self._slot, begin)

    async def _slot(self, begin: float) -> None:
        if begin > self.started_at and not await self._pause_until(begin):
            return
        while not self._is_over() and (batch := self._supply.next()) is not None:
            if len(batch) == 1:
                await self._play(self._talk(batch[0]))
                continue
            async with trio.open_nursery() as branches:
                for numbered in batch:
                    branches.start_soon(self._play, self._talk(numbered))

    # Open loop at a rate

    async def _arrive(self, loop: Rated, sessions: trio.Nursery, timer: Timer) -> None:
        upcoming = self._next_talks()
        for offset in arrival_times(loop, self._plan.seed):
            at = self.started_at + offset
            if not await self._may_send(at, timer):
                return
            if not self._ready and not upcoming and not await self._turn_is_ready():
                return
            if self._ready:
                waiting = self._ready.popleft()
                waiting.at = max(at, waiting.since)
                waiting.called.set()
                # One arrival, one request: the turn leaves before the next arrival looks.
                continue
            for talk in upcoming:
                sessions.start_soon(self._play, talk, at)
            upcoming = self._next_talks()

    async def _turn_is_ready(self) -> bool:
        """Wait, when no session is left to begin, until one of those under way has a turn."""
        while not self._ready and self._talks and not self.stopped:
            self._stirred = trio.Event()
            with self._pausable():
                await self._stirred.wait()
        return bool(self._ready)

    async def _called(self) -> float | None:
        """Join those who wait for an arrival: its time, or None if sending has stopped."""
        waiting = _Waiting(trio.current_time())
        self._ready.append(waiting)
        self._stirred.set()
        with self._pausable():
            await waiting.called.wait()
        return None if self.stopped else waiting.at

    # Open loop by due times

    async def _follow(self, loop: Scheduled, sessions: trio.Nursery, timer: Timer) -> None:
        while talks := self._next_talks():
            due_s = talks[0].session.turns[0].due_s
            if due_s is None:
                raise ValueError(
                    f"session {talks[0].session.id} has no due time for its first turn: a fixed "
                    "schedule needs recorded times"
                )
            due = self.started_at + due_s / loop.speedup
            if not await self._may_send(due, timer):
                return
            for talk in talks:
                sessions.start_soon(self._play, talk, due)

    # Both

    async def _may_send(self, at: float, timer: Timer) -> bool:
        """Wait until `at`, and then for those that wait for room: a target that does not keep up
        must not fill the client's memory. False if sending has stopped."""
        self._due = at
        if not self._is_over() and await self._pause_until(at, timer):
            while self._held and not self.stopped:
                self._stirred = trio.Event()
                with self._pausable():
                    await self._stirred.wait()
        if self._is_over():
            return False
        self._due = inf
        return True

    # A session

    def _next_talks(self) -> list[Talk]:
        return [self._talk(numbered) for numbered in self._supply.next() or ()]

    def _talk(self, numbered: Numbered) -> Talk:
        id = f"{self._run_id}-{self.name[0]}{numbered.number}"
        talk = Talk(numbered, id, numbered.number % self._client.targets, self._render)
        talk.next_turn(chat=self._chat)
        return talk

    @property
    def _chat(self) -> bool:
        return self._plan.endpoint_type == "chat"

    async def _play(self, talk: Talk, first_at: float | None = None) -> None:
        """Send the session's turns, the first at `first_at` in an open loop."""
        self._talks += 1
        try:
            for index, turn in enumerate(talk.session.turns):
                at = first_at if index == 0 else None
                ready, scheduled = await self._until_due(turn, at)
                if not ready or not await self._send(talk, turn, scheduled):
                    break
                talk.next_turn(chat=self._chat)
        finally:
            self._talks -= 1
            self._stirred.set()
            self.turns_not_sent += len(talk.session.turns) - talk.sent

    async def _until_due(self, turn: Turn, first_at: float | None) -> tuple[bool, float | None]:
        """Wait for the turn's time: whether to send it, and when it was scheduled."""
        think_s = turn.delay_s * self._plan.delay_ratio
        if isinstance(self._loop, Scheduled) and turn.due_s is not None:
            due = self.started_at + turn.due_s / self._loop.speedup
            return await self._pause_until(due), due
        if first_at is not None:  # the arrival is the moment; it must not pass without a request
            return not self.stopped, first_at
        due = trio.current_time() + think_s
        if think_s and not await self._pause_until(due):
            return False, None
        if isinstance(self._loop, Closed):
            return not self.stopped, None
        if isinstance(self._loop, Scheduled):
            return not self.stopped, due
        called_at = await self._called()
        return called_at is not None, called_at

    # A request

    async def _send(self, talk: Talk, turn: Turn, scheduled: float | None) -> bool:
        """Whether it was sent and answered, so that the session can go on."""
        limited = not isinstance(self._loop, Closed)
        if limited:
            await self._take_room()
        try:
            if not self._claim():
                return False
            record = self._record(talk, turn, scheduled)
            answer = await self._ask(talk, turn, record)
        finally:
            if limited:
                self._room.release()
        if answer is None:
            if record.error == "connect" and not limited:
                await self._pause_until(trio.current_time() + _AFTER_REFUSAL_S)
            return False
        talk.conversation.heard(talk.turn, answer)
        return True

    async def _take_room(self) -> None:
        try:
            self._room.acquire_nowait()
        except trio.WouldBlock:
            self.capped += 1
            self._held += 1
            try:
                await self._room.acquire()
            finally:
                self._held -= 1
                self._stirred.set()

    async def _ask(self, talk: Talk, turn: Turn, record: Record) -> str | None:
        self.records.append(record)
        talk.sent += 1
        self.in_flight += 1
        try:
            return await self._client.ask(self._words(talk, turn), record)
        finally:
            self.in_flight -= 1
            self._settled(record)

    def _words(self, talk: Talk, turn: Turn) -> Ask:
        plan, target = self._plan, talk.target
        if plan.url_strategy == "round_robin":
            target = (len(self.records) - 1) % self._client.targets
        cancelled = plan.cancellation_rate and self._random.random() < plan.cancellation_rate
        after_s = plan.cancellation_delay_s if cancelled and self.name == "profiling" else None
        return Ask(talk.prompt, turn.output_tokens, talk.id, target, after_s)

    def _record(self, talk: Talk, turn: Turn, scheduled: float | None) -> Record:
        return Record(
            phase=self.name,
            session=talk.number,
            turn=talk.turn,
            request_id=f"{self._run_id}-{self.name[0]}{talk.number}-{talk.turn}",
            streamed=self._plan.streaming,
            scheduled_s=None if scheduled is None else scheduled - self._origin,
            sent_s=trio.current_time() - self._origin,
            asked_input_tokens=prompt_tokens(turn.prompt),
            asked_output_tokens=turn.output_tokens,
        )

    # Limits

    def _is_over(self) -> bool:
        return self.stopped or len(self.records) == self._limits.requests

    def _claim(self) -> bool:
        """Whether one more request may be sent; the last one stops the sending."""
        if self.stopped:
            return False
        if len(self.records) + 1 == self._limits.requests:
            self.stop()
        return True

    async def _pause_until(self, at: float, timer: Timer | None = None) -> bool:
        """Wait until `at`: False if sending has stopped by then."""
        if self.stopped:
            return False
        with self._pausable():
            if timer is None:
                await trio.sleep_until(at)
            else:
                await timer.until(at)
        return not self.stopped

    def _pausable(self) -> _Pause:
        return _Pause(self._pauses, stopped=self.stopped)


class _Pause:
    """A wait that `stop` ends."""

    __slots__ = ("_pauses", "_scope")

    def __init__(self, pauses: set[trio.CancelScope], *, stopped: bool) -> None:
        self._pauses = pauses
        self._scope = trio.CancelScope()
        if stopped:
            self._scope.cancel("sending has stopped")

    def __enter__(self) -> None:
        self._pauses.add(self._scope)
        self._scope.__enter__()

    def __exit__(self, *exc_info: object) -> bool | None:
        self._pauses.discard(self._scope)
        return self._scope.__exit__(*exc_info)  # type: ignore[arg-type]
