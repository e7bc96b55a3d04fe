"""Continuous batching: who is in which step, and when it ends.

The scheduler is vLLM's (V1): decoding sequences first, then running prefills, then whoever waits,
first come first served, within a budget of tokens for each step; when memory is full the newest
sequence is preempted and starts again later. With `async_scheduling` a step is put together while
the one before it runs.

A stretch of steps in which the same sequences decode and nothing else happens is taken in one go,
in closed form: a simulated hour costs what happens in it, not how many steps it has. The result is
the same as step by step.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import NamedTuple

from bench.engine.books import Books
from bench.engine.kvcache import KVCache
from bench.engine.profile import Profile
from bench.engine.sequence import Sequence
from bench.workload.model import Segment

__all__ = ["Engine", "EngineSnapshot"]


class EngineSnapshot(NamedTuple):
    """A look at an engine at one moment."""

    running: int
    waiting: int
    kv_usage: float
    """Share of its memory that sequences use, 0 to 1."""


class _Stretch(NamedTuple):
    """`steps` steps of one kind in a row; more than one only if nothing but decoding happens.

    Step number i (the first is 0) takes `first_s + i * growth_s`.
    """

    start_s: float
    steps: int
    first_s: float
    growth_s: float
    decoding: int
    before: int
    """Number of the step before its first one."""
    prefilled: tuple[Sequence, ...] = ()
    """Whose prompts are complete with it: they have their next token at its end."""
    open: bool = False
    """Whether it may still be cut short; what it takes is then not yet in the engine's state."""

    def end_s(self, steps: int) -> float:
        """When the first `steps` of its steps are done."""
        return self.start_s + steps * self.first_s + self.growth_s * (steps * (steps - 1) / 2)

    def begun(self, now_s: float) -> int:
        """How many of its steps have begun at `now_s`; 1 if none has."""
        low, high = 1, self.steps
        while low < high:
            middle = (low + high + 1) // 2
            if self.end_s(middle - 1) <= now_s:
                low = middle
            else:
                high = middle - 1
        return low

    def done(self, now_s: float) -> int:
        """How many of its steps have ended at `now_s`."""
        if self.end_s(self.steps) <= now_s:
            return self.steps
        return self.begun(now_s) - 1


def _nobody(sequence: Sequence) -> None:
    """Told, and does nothing."""


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
        self._reset()

    def _reset(self) -> None:
        size = self.profile.block_tokens
        self._cache = KVCache(self.profile.kv_blocks, size)
        # On their way through the engine's front end: (ready at, number, sequence).
        self._incoming: list[tuple[float, int, Sequence]] = []
        self._waiting: deque[Sequence] = deque()
        # In the order of admission: the newest is preempted first.
        self._running: dict[Sequence, None] = {}
        self._prefills: dict[Sequence, None] = {}
        # Decoding sequences are kept as sums, so that a step costs the same for one and for 256:
        # a sequence has `born + step` tokens of context in the step of that number, and needs a new
        # block in every `size`th step.
        self._step = 0
        self._decoding = 0
        self._born = 0
        self._phases = [0] * size
        self._ends: list[tuple[int, int, Sequence]] = []
        self._leaving: deque[Sequence] = deque()
        self._aborted: dict[Sequence, None] = {}  # and still in the batch
        self._current: _Stretch | None = None
        self._next: _Stretch | None = None
        self._plan_at_s = math.inf

    # --- what callers do

    def fits(self, tokens: int) -> bool:
        """Whether a sequence of so many tokens, prompt and answer, can ever be served."""
        profile = self.profile
        return tokens <= min(profile.max_model_len, profile.kv_blocks * profile.block_tokens)

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
        if sequence in self._running:
            self._aborted[sequence] = None
            self._cut_short(now_s)
        elif sequence.state == "waiting":
            sequence.state = "aborted"

    def slow_down(self, factor: float, now_s: float) -> None:
        """From the next step on each takes `factor` (above 0) times as long as it should."""
        self.advance(now_s)
        self._slowness = factor
        self._cut_short(now_s)

    def stall(self, until_s: float, now_s: float) -> None:
        """No step begins before `until_s`."""
        self.advance(now_s)
        self._stalled_until_s = until_s
        self._cut_short(now_s)

    def crash(self, restart_s: float, now_s: float) -> list[Sequence]:
        """Everything in it is lost, the cache too; it takes `restart_s` until it computes again.

        Returns those that were lost, in state "lost".
        """
        self.advance(now_s)
        queued = [*self._waiting, *(entry[2] for entry in self._incoming)]
        alive = (each for each in self._running if each not in self._aborted)
        lost = [*alive, *(each for each in queued if each.state != "aborted")]
        for sequence in lost:
            sequence.state = "lost"
            sequence.held = None
        self._reset()
        self._stalled_until_s = now_s + restart_s
        return lost

    def next_s(self) -> float:
        """When something happens next by itself; inf if nothing will."""
        soonest = self._plan_at_s
        if self._incoming and self._incoming[0][0] < soonest:
            soonest = self._incoming[0][0]
        if self._current is not None:
            return min(soonest, self._current.end_s(self._current.steps))
        return soonest

    def advance(self, now_s: float) -> None:
        """Let everything happen that is due at `now_s`."""
        if self._advancing:
            return  # called by somebody who was told of something
        self._advancing = True
        try:
            self._advance(now_s)
        finally:
            self._advancing = False

    def _advance(self, now_s: float) -> None:
        while (at_s := self.next_s()) <= now_s:
            current = self._current
            # In this order if they fall together, as in the engine's loop.
            if current is not None and current.end_s(current.steps) <= at_s:
                self._end_stretch(current, at_s)
            elif self._incoming and self._incoming[0][0] <= at_s:
                self._arrive(heappop(self._incoming)[2], at_s)
            else:
                self._plan_next(at_s)

    def snapshot(self) -> EngineSnapshot:
        """Its load, as of the last `advance`."""
        waiting = len(self._incoming) + len(self._waiting)
        return EngineSnapshot(len(self._running), waiting, self._cache.usage)

    def tokens_made(self, sequence: Sequence, now_s: float) -> int:
        """How many tokens of its answer are there at `now_s`, the time of the last `advance`."""
        if sequence.state != "decode":
            return sequence.generated
        current = self._current
        ended = self._step if current is None else current.before + current.done(now_s)
        return max(0, min(ended, sequence.ends_at) - sequence.begun_at + 1) + sequence.generated

    def due_s(self, sequence: Sequence, token: int, now_s: float) -> float:
        """When token number `token` (the first is 0) is due, or may be asked for again."""
        if token < self.tokens_made(sequence, now_s):
            return now_s
        current = self._current
        if sequence.state != "decode" or current is None:
            return self.next_s()
        step = sequence.begun_at + token - sequence.generated - current.before
        return current.end_s(max(1, min(step, current.steps)))

    # --- what happens at its time

    def _arrive(self, sequence: Sequence, now_s: float) -> None:
        if sequence.state == "aborted":
            return
        blocked = bool(self._waiting)
        self._waiting.append(sequence)
        if blocked and self._current is not None:
            return  # Those before it could not be admitted: nor can it before something ends.
        self._cut_short(now_s)

    def _cut_short(self, now_s: float) -> None:
        """Something changed: plan again as soon as the engine's loop comes to it."""
        if self._current is None:
            self._plan_at_s = now_s
            return
        if self._next is not None:
            if self._next.open:
                self._next = self._next._replace(steps=1)
            return
        if not self._current.open:
            if self.profile.async_scheduling:
                self._plan_at_s = min(self._plan_at_s, now_s)
            return
        ahead = 1 if self.profile.async_scheduling else 0
        steps = min(self._current.steps, self._current.begun(now_s) + ahead)
        self._begin(self._current._replace(steps=steps))

    def _begin(self, stretch: _Stretch) -> None:
        self._current = stretch
        # With async scheduling what follows is planned as soon as its last step has begun.
        last_s = stretch.end_s(stretch.steps - 1)
        self._plan_at_s = last_s if self.profile.async_scheduling else math.inf

    def _end_stretch(self, stretch: _Stretch, now_s: float) -> None:
        if stretch.open:
            self._settle(stretch)
        self._count(stretch, now_s)
        if self._next is not None:
            following, self._next = self._next, None
            self._begin(following)
        else:
            self._current = None
            self._plan_at_s = now_s
        for sequence in stretch.prefilled:
            if sequence.first_token_s is None and sequence not in self._aborted:
                sequence.first_token_s = now_s
                self._on_first(sequence)
        last = stretch.before + stretch.steps
        while self._leaving and self._leaving[0].ends_at <= last:
            self._finish(self._leaving.popleft(), now_s)

    def _finish(self, sequence: Sequence, now_s: float) -> None:
        if sequence not in self._running:
            return  # aborted, and gone already
        self._free(sequence, sequence.goal + sequence.ends_at - sequence.begun_at)
        del self._running[sequence]
        if sequence in self._aborted:
            self._forget(sequence)
            return
        sequence.state = "finished"
        sequence.generated = sequence.output_tokens
        sequence.finished_s = now_s
        self._on_end(sequence)

    def _count(self, stretch: _Stretch, now_s: float) -> None:
        books = self.books
        books.steps += stretch.steps
        books.busy_s += now_s - stretch.start_s
        books.generated_tokens += stretch.decoding * stretch.steps + len(stretch.prefilled)
        if stretch.decoding:
            mean_s = (now_s - stretch.start_s) / stretch.steps
            books.gaps.add(mean_s, stretch.decoding * stretch.steps)

    def _plan_next(self, now_s: float) -> None:
        self._plan_at_s = math.inf
        current = self._current
        if current is None:
            planned = self._plan(now_s, now_s)
            if planned is not None:
                self._begin(planned)
            return
        if current.open:
            self._settle(current)
            self._current = current = current._replace(open=False)
        self._next = self._plan(now_s, current.end_s(current.steps))

    # --- the scheduler: what the next step computes

    def _plan(self, now_s: float, start_s: float) -> _Stretch | None:
        """The next stretch, to begin at `start_s`; None if there is nothing to compute."""
        self._drop_aborted()
        preempted = self._make_room_to_decode()
        chunks = self._plan_chunks(now_s, preempted)
        if not chunks and not self._decoding:
            return None
        start_s = max(start_s, self._stalled_until_s)
        if chunks:
            return self._mixed_step(start_s, chunks)
        return self._decode_stretch(start_s, once=preempted)

    def _make_room_to_decode(self) -> bool:
        """Preempt the newest until all that decode can go on; whether that was needed."""
        preempted = False
        size = self.profile.block_tokens
        while self._phases[(self._step + 1) % size] > self._cache.available:
            self._preempt_newest()
            preempted = True
        return preempted

    def _plan_chunks(self, now_s: float, preempted: bool) -> list[tuple[Sequence, int]]:
        """Which prompts are computed in the next step, and how many tokens of each."""
        chunks: list[tuple[Sequence, int]] = []
        budget = self.profile.max_num_batched_tokens - self._decoding
        # Blocks that the decoding sequences need in the same step come first.
        spoken_for = self._phases[(self._step + 1) % self.profile.block_tokens]
        for sequence in tuple(self._prefills):
            tokens = min(sequence.goal - sequence.computed, budget)
            if tokens <= 0 or sequence not in self._prefills:
                continue
            if not self._grow(sequence, tokens, spoken_for):
                preempted = True
                continue
            chunks.append((sequence, tokens))
            budget -= tokens
        if not preempted:
            self._admit(chunks, budget, spoken_for, now_s)
        return [(sequence, tokens) for sequence, tokens in chunks if sequence in self._prefills]

    def _grow(self, sequence: Sequence, tokens: int, spoken_for: int) -> bool:
        """Blocks for so many more tokens of a prompt, at the cost of newer sequences if need be."""
        held = sequence.held
        assert held is not None
        needed = self._cache.needed(held, sequence.computed + tokens)
        while needed > self._cache.available - spoken_for:
            if self._preempt_newest() is sequence:
                return False
        self._cache.take(held, needed)
        return True

    def _admit(
        self, chunks: list[tuple[Sequence, int]], budget: int, spoken_for: int, now_s: float
    ) -> None:
        """Let those who wait in, first come first served, while there is room for them."""
        while self._waiting and budget > 0 and len(self._running) < self.profile.max_num_seqs:
            sequence = self._waiting[0]
            if sequence.state == "aborted":
                self._waiting.popleft()
                continue
            tokens = self._try_admit(sequence, budget, spoken_for)
            if not tokens:
                return
            self._waiting.popleft()
            if sequence.scheduled_s is None:
                sequence.scheduled_s = now_s
                sequence.cached_tokens = sequence.computed
                self.books.prompt_tokens += sequence.prompt_tokens
                self.books.cached_tokens += sequence.computed
            chunks.append((sequence, tokens))
            budget -= tokens

    def _try_admit(self, sequence: Sequence, budget: int, spoken_for: int) -> int:
        """Start a prompt: how many of its tokens the step computes, 0 if memory is short."""
        cache, size = self._cache, self.profile.block_tokens
        segments = (*sequence.prompt, Segment(sequence.answer, sequence.output_tokens))
        cached = cache.match(segments, sequence.goal)
        tokens = min(sequence.goal - cached, budget)
        room_for = sequence.goal if self.profile.reserve_prompt else cached + tokens
        room = cache.available - spoken_for - cache.would_use(segments, cached)
        if -(-room_for // size) - cached // size > room:
            return 0
        held = sequence.held = cache.hold(segments, cached)
        cache.take(held, cache.needed(held, cached + tokens))
        sequence.computed = cached
        sequence.state = "prefill"
        self._running[sequence] = None
        self._prefills[sequence] = None
        return tokens

    def _mixed_step(self, start_s: float, chunks: list[tuple[Sequence, int]]) -> _Stretch:
        """One step that computes prompts, and goes on with all that decode."""
        decoding, context = self._decoding, self._context(self._step + 1)
        before = self._step
        self._settle_decoding(1)
        computed, attended = 0, 0.0
        prefilled = []
        for sequence, tokens in chunks:
            computed += tokens
            attended += tokens * (sequence.computed + tokens / 2)
            if self._compute(sequence, tokens):
                prefilled.append(sequence)
        step_s = self._slowness * self.profile.step_time_s(
            computed + decoding, decoding + len(chunks), context, attended
        )
        return _Stretch(start_s, 1, step_s, 0.0, decoding, before, tuple(prefilled))

    def _compute(self, sequence: Sequence, tokens: int) -> bool:
        """Book a chunk of a prompt as computed; whether the prompt is complete with it."""
        assert sequence.held is not None
        sequence.computed += tokens
        self._cache.publish(sequence.held, sequence.computed)
        if sequence.computed < sequence.goal:
            return False
        del self._prefills[sequence]
        sequence.state = "decode"
        sequence.begun_at = self._step
        sequence.ends_at = self._step + sequence.output_tokens - sequence.generated - 1
        if sequence.ends_at == self._step:
            self._leaving.append(sequence)
            return True
        sequence.born = sequence.goal - self._step
        self._add_decoding(sequence, 1)
        heappush(self._ends, (sequence.ends_at, id(sequence), sequence))
        return True

    def _decode_stretch(self, start_s: float, *, once: bool) -> _Stretch:
        """Steps until the first sequence ends or memory is short; or just one."""
        self._drop_stale_ends()
        steps = 1 if once else self._steps_with_room(self._ends[0][0] - self._step)
        n = self._decoding
        first_s = self.profile.step_time_s(n, n, self._context(self._step + 1))
        growth_s = self.profile.context_s * n
        slowness = self._slowness
        return _Stretch(
            start_s, steps, slowness * first_s, slowness * growth_s, n, self._step, open=True
        )

    def _steps_with_room(self, limit: int) -> int:
        """How many decode steps memory allows, at most `limit`; the first one is known to fit."""
        size, n = self.profile.block_tokens, self._decoding
        available = self._cache.available
        if (limit // size + 1) * n <= available:
            return limit
        rounds, room = divmod(available, n)
        steps = rounds * size
        for _ in range(size):
            room -= self._phases[(self._step + steps + 1) % size]
            if room < 0:
                break
            steps += 1
        return min(limit, steps)

    # --- sums over the decoding sequences

    def _context(self, step: int) -> int:
        """Tokens whose keys and values the decoding sequences read in the step of that number."""
        return self._born + self._decoding * step

    def _add_decoding(self, sequence: Sequence, sign: int) -> None:
        self._decoding += sign
        self._born += sign * sequence.born
        self._phases[(1 - sequence.born) % self.profile.block_tokens] += sign

    def _settle(self, stretch: _Stretch) -> None:
        """An open stretch will not be cut any more: book what it took."""
        self._settle_decoding(stretch.steps)

    def _settle_decoding(self, steps: int) -> None:
        size = self.profile.block_tokens
        rounds, rest = divmod(steps, size)
        blocks = rounds * self._decoding
        blocks += sum(self._phases[(self._step + i) % size] for i in range(1, rest + 1))
        self._cache.reserve(blocks)
        self._step += steps
        while self._ends and self._ends[0][0] <= self._step:
            ends_at, _, sequence = heappop(self._ends)
            if sequence.state == "decode" and sequence.ends_at == ends_at:
                self._add_decoding(sequence, -1)
                self._leaving.append(sequence)

    def _drop_stale_ends(self) -> None:
        while True:
            ends_at, _, sequence = self._ends[0]
            if sequence.state == "decode" and sequence.ends_at == ends_at:
                return
            heappop(self._ends)

    # --- leaving the batch

    def _preempt_newest(self) -> Sequence:
        """Take the newest sequence out; it starts again, before all others that wait."""
        sequence = self._newest_that_stays()
        del self._running[sequence]
        computed = sequence.computed
        if sequence.state == "decode":
            self._add_decoding(sequence, -1)
            made = self._step - sequence.begun_at
            computed = sequence.goal + made
            sequence.generated += made + 1
        else:
            del self._prefills[sequence]
        self._free(sequence, computed)
        sequence.goal = sequence.prompt_tokens + sequence.generated
        sequence.preemptions += 1
        sequence.state = "waiting"
        self._waiting.appendleft(sequence)
        self.books.preemptions += 1
        return sequence

    def _newest_that_stays(self) -> Sequence:
        """The newest that has not computed all of its answer: those leave by themselves."""
        staying = (each for each in reversed(self._running) if each not in self._leaving)
        return next(staying)

    def _drop_aborted(self) -> None:
        for sequence in tuple(self._aborted):
            del self._running[sequence]
            computed = sequence.computed
            if sequence in self._prefills:
                del self._prefills[sequence]
            elif sequence.ends_at > self._step:
                self._add_decoding(sequence, -1)
                computed = sequence.goal + self._step - sequence.begun_at
            self._free(sequence, computed)
            self._forget(sequence)

    def _forget(self, sequence: Sequence) -> None:
        del self._aborted[sequence]
        sequence.state = "aborted"

    def _free(self, sequence: Sequence, computed: int) -> None:
        """Give back its blocks, those of `computed` tokens; they may be found again."""
        held = sequence.held
        assert held is not None
        self._cache.assign(held, self._cache.needed(held, computed))
        self._cache.publish(held, computed)
        self._cache.release(held)
        sequence.held = None
