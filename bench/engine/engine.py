"""Continuous batching in time: when each step begins and ends, and who is told.

With `async_scheduling` a step is put together while the one before it runs.

A stretch of steps in which the same sequences decode and nothing else happens is taken in one go,
in closed form: a simulated hour costs what happens in it, not how many steps it has. The result is
the same as step by step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from bench.engine.batch import Batch
from bench.engine.books import Books
from bench.engine.profile import Profile
from bench.engine.sequence import Sequence
from bench.engine.stretch import Stretch

__all__ = ["Engine", "EngineSnapshot"]


class EngineSnapshot(NamedTuple):
    """A look at an engine at one moment."""

    running: int
    waiting: int
    kv_usage: float
    """Share of its memory that sequences use, 0 to 1."""


def _nobody(sequence: Sequence) -> None:
    """Told, and does nothing."""


def _made(sequence: Sequence, ended: int) -> int:
    """Tokens of its answer that are there when step number `ended` was the last to end."""
    if sequence.state == "decode":
        made = min(ended, sequence.ends_at) - sequence.begun_at + 1
        return sequence.generated + max(0, made)
    # It may have been preempted while the step ran that makes the last of these.
    return sequence.generated - (sequence.made_at > ended)


class Engine:
    """One engine. Calls say what time it is, in seconds on any clock; times never go back.

    `on_first` and `on_end` are called from within `advance`, for a sequence whose first token is
    there, and for one that has finished by itself. They may call `submit` and `abort`.
    """

    def __init__(
        self,
        profile: Profile,
        *,
        on_first: Callable[[Sequence], None] = _nobody,
        on_end: Callable[[Sequence], None] = _nobody,
    ) -> None:
        self.profile = profile
        self.books = Books()
        self._on_first = on_first
        self._on_end = on_end
        self._slowness = 1.0
        self._stalled_until_s = -math.inf
        self._arrivals = 0
        self._advancing = False
        self._start_anew()

    def _start_anew(self) -> None:
        self._batch = Batch(self.profile, self.books)
        self._batch.slowness = self._slowness
        # On their way through the engine's front end: (ready at, number, sequence).
        self._incoming: list[tuple[float, int, Sequence]] = []
        self._current: Stretch | None = None
        self._next: Stretch | None = None
        self._plan_at_s = math.inf

    # --- what callers do

    @property
    def longest(self) -> int:
        """The most tokens, prompt and answer together, that one sequence can have."""
        profile = self.profile
        return min(profile.max_model_len, profile.kv_blocks * profile.block_tokens)

    def fits(self, tokens: int) -> bool:
        """Whether a sequence of so many tokens, prompt and answer, can ever be served."""
        return tokens <= self.longest

    def submit(self, sequence: Sequence, now_s: float) -> None:
        """A request has come. Raises ValueError if it never `fits`."""
        total = sequence.prompt_tokens + sequence.output_tokens
        if not self.fits(total):
            raise ValueError(f"{total} tokens do not fit into engine {self.profile.name}")
        self.advance(now_s)
        sequence.state = "waiting"
        sequence.arrived_s = now_s
        profile = self.profile
        ready_s = now_s + profile.request_s + profile.request_token_s * sequence.prompt_tokens
        self._arrivals += 1
        heappush(self._incoming, (ready_s, self._arrivals, sequence))

    def abort(self, sequence: Sequence, now_s: float) -> None:
        """Its client has left: it ends with the step that runs. Nothing happens if it has ended."""
        self.advance(now_s)
        if self._batch.abort(sequence):
            self._cut_short(now_s)
        elif sequence.state == "waiting":
            sequence.state = "aborted"
            self._withdraw(sequence)
            self._cut_short(now_s)  # It may have stood in the way of others.

    def slow_down(self, factor: float, now_s: float) -> None:
        """From the next step on each takes `factor` (above 0) times as long as it should."""
        self.advance(now_s)
        self._slowness = self._batch.slowness = factor
        self._cut_short(now_s)

    def stall(self, until_s: float, now_s: float) -> None:
        """No step begins before `until_s`, whatever was said before; one that runs is finished."""
        self.advance(now_s)
        self._stalled_until_s = until_s
        self._cut_short(now_s)
        self._hold_back(now_s)

    def crash(self, restart_s: float, now_s: float) -> list[Sequence]:
        """Everything in it is lost, the cache too; it takes `restart_s` until it computes again.

        Returns those that were lost, in state "lost".
        """
        self.advance(now_s)
        queued = [*self._batch.waiting, *(entry[2] for entry in self._incoming)]
        lost = [*self._batch.alive(), *(each for each in queued if each.state != "aborted")]
        if self._current is not None and (done := self._current.done(now_s)):
            self._count(self._current._replace(steps=done), self._current.end_s(done))
        for sequence in lost:
            sequence.generated = self.tokens_made(sequence, now_s)
            sequence.state = "lost"
        self._batch.abandon()
        self._start_anew()
        self._stalled_until_s = now_s + restart_s
        return lost

    def reset_cache(self, now_s: float) -> None:
        """Forget all that no sequence uses, so that nothing of it is found again."""
        self.advance(now_s)
        self._batch.cache.forget_idle()

    def next_s(self) -> float:
        """When something happens next by itself; inf if nothing will."""
        soonest = self._plan_at_s
        if self._incoming and self._incoming[0][0] < soonest:
            soonest = self._incoming[0][0]
        if self._current is not None:
            return min(soonest, self._current.end_s(self._current.steps))
        return soonest

    def advance(self, now_s: float) -> None:
        """Let everything happen that is due at `now_s`; inf: everything there is."""
        if self._advancing:
            return  # called by somebody who was told of something
        self._advancing = True
        try:
            self._advance(now_s)
        finally:
            self._advancing = False

    def snapshot(self) -> EngineSnapshot:
        """Its load, as of the last `advance`."""
        waiting = len(self._incoming) + len(self._batch.waiting)
        return EngineSnapshot(self._batch.running, waiting, self._batch.cache.usage)

    def busy_s(self, now_s: float) -> float:
        """Time spent in steps up to `now_s`, the time of the last `advance` or later."""
        current = self._current
        return self.books.busy_s + (max(0.0, now_s - current.start_s) if current else 0.0)

    def tokens_made(self, sequence: Sequence, now_s: float) -> int:
        """How many tokens of its answer are there at `now_s`, the time of the last `advance`."""
        return _made(sequence, self._ended(now_s))

    def tokens_made_each(self, sequences: Iterable[Sequence], now_s: float) -> list[int]:
        """`tokens_made` of several at the price of one."""
        ended = self._ended(now_s)
        return [_made(sequence, ended) for sequence in sequences]

    def due_s(self, sequence: Sequence, token: int, now_s: float) -> float:
        """When token number `token` (the first is 0) is due, or may be asked for again."""
        if token < self.tokens_made(sequence, now_s):
            return now_s
        current = self._current
        if sequence.state != "decode" or current is None:
            return self.next_s()
        step = sequence.begun_at + token - sequence.generated - current.before
        return current.end_s(max(1, min(step, current.steps)))

    def _ended(self, now_s: float) -> int:
        """Number of the last step that has ended."""
        current = self._current
        return self._batch.step if current is None else current.before + current.done(now_s)

    # --- what happens at its time

    def _advance(self, now_s: float) -> None:
        while (at_s := self.next_s()) <= now_s and at_s != math.inf:
            current = self._current
            # In this order if they fall together, as in the engine's loop.
            if current is not None and current.end_s(current.steps) <= at_s:
                self._end_stretch(current, at_s)
            elif self._incoming and self._incoming[0][0] <= at_s:
                self._arrive(heappop(self._incoming)[2], at_s)
            else:
                self._plan_next(at_s)

    def _arrive(self, sequence: Sequence, now_s: float) -> None:
        waiting = self._batch.waiting
        waiting.append(sequence)
        if len(waiting) > 1 and self._current is not None:
            return  # Those before it could not be admitted: nor can it before something ends.
        self._cut_short(now_s)

    def _cut_short(self, now_s: float) -> None:
        """Something changed: plan again as soon as the engine's loop comes to it."""
        current, ahead = self._current, self.profile.async_scheduling
        if current is None:
            self._plan_at_s = now_s
        elif self._next is not None:
            if self._next.open:
                self._next = self._next._replace(steps=1)
        elif not current.open:
            if ahead:
                self._plan_at_s = min(self._plan_at_s, max(now_s, current.start_s))
        else:
            # What happens as a step begins still comes before the next one is put together.
            steps = min(current.steps, current.begun_before(now_s) + ahead)
            self._begin(current._replace(steps=max(1, steps)))

    def _withdraw(self, sequence: Sequence) -> None:
        """It has not begun: nothing of it stays, however long the others wait."""
        if sequence in self._batch.waiting:
            self._batch.waiting.remove(sequence)
            return
        self._incoming = [entry for entry in self._incoming if entry[2] is not sequence]
        heapify(self._incoming)

    def _hold_back(self, now_s: float) -> None:
        """What is put together already, and has not begun, begins when the stall is over."""
        current, until_s = self._current, self._stalled_until_s
        if current is None:
            return
        if current.start_s > now_s:
            self._begin(current._replace(start_s=max(now_s, until_s)))
            return
        begun = max(1, current.begun_before(now_s))
        if current.open and begun < current.steps:
            self._batch.settle(begun)
            self._current, self._next = current.divided(begun)
            self._plan_at_s = math.inf
            current = self._current
        if self._next is not None:
            self._next = self._next._replace(start_s=max(current.end_s(current.steps), until_s))

    def _begin(self, stretch: Stretch) -> None:
        self._current = stretch
        # With async scheduling what follows is planned as soon as its last step has begun.
        last_s = stretch.end_s(stretch.steps - 1)
        self._plan_at_s = last_s if self.profile.async_scheduling else math.inf

    def _plan_next(self, now_s: float) -> None:
        self._plan_at_s = math.inf
        current = self._current
        if current is None:
            planned = self._plan(now_s, now_s)
            if planned is not None:
                self._begin(planned)
            return
        if current.open:
            self._batch.settle(current.steps)
            self._current = current = current._replace(open=False)
        self._next = self._plan(now_s, current.end_s(current.steps))

    def _plan(self, now_s: float, start_s: float) -> Stretch | None:
        return self._batch.plan(now_s, max(start_s, self._stalled_until_s))

    def _end_stretch(self, stretch: Stretch, now_s: float) -> None:
        if stretch.open:
            self._batch.settle(stretch.steps)
        self._count(stretch, now_s)
        if self._next is not None:
            following, self._next = self._next, None
            self._begin(following)
        else:
            self._current = None
            self._plan_at_s = now_s
        for sequence in stretch.prefilled:
            if sequence.first_token_s is None and self._batch.is_wanted(sequence):
                sequence.first_token_s = now_s
                self._on_first(sequence)
        for sequence in self._batch.finished(stretch.before + stretch.steps):
            sequence.state = "finished"
            sequence.generated = sequence.output_tokens
            sequence.finished_s = now_s
            self._on_end(sequence)
        if self._batch.waiting:
            self._cut_short(now_s)  # There may be room for them now.

    def _count(self, stretch: Stretch, now_s: float) -> None:
        books = self.books
        books.steps += stretch.steps
        books.busy_s += now_s - stretch.start_s
        books.generated_tokens += stretch.decoding * stretch.steps + len(stretch.prefilled)
        if stretch.decoding:
            mean_s = (now_s - stretch.start_s) / stretch.steps
            books.gaps.add(mean_s, stretch.decoding * stretch.steps)
