"""The scheduler: who is in the next step.

vLLM's (V1): decoding sequences first, then running prefills, then whoever waits, first come first
served, within a budget of tokens for each step. When memory is full the newest sequence is
preempted: it starts again later, before all others that wait.
"""

from __future__ import annotations

from collections import deque

from bench.engine.books import Books
from bench.engine.decoding import Decoding
from bench.engine.kvcache import KVCache
from bench.engine.profile import Profile
from bench.engine.sequence import Sequence
from bench.engine.stretch import Stretch

__all__ = ["Batch"]

_Chunks = list[tuple[Sequence, int]]
"""Prompts of the next step, and how many tokens of each it computes."""


class Batch:
    """The sequences of one engine, and its memory. It knows no clock: the engine says when."""

    def __init__(self, profile: Profile, books: Books) -> None:
        self.waiting: deque[Sequence] = deque()
        self.slowness = 1.0
        """Every step takes so many times as long."""
        self.cache = KVCache(profile.kv_blocks, profile.block_tokens)
        self._profile = profile
        self._books = books
        # In the order of admission: the newest is preempted first.
        self._running: dict[Sequence, None] = {}
        self._prefills: dict[Sequence, None] = {}
        self._decoding = Decoding(profile.block_tokens)
        self._leaving: deque[Sequence] = deque()
        self._aborted: dict[Sequence, None] = {}  # and still running
        self._places = 0

    @property
    def running(self) -> int:
        """Sequences that hold memory."""
        return len(self._running)

    @property
    def step(self) -> int:
        """Number of the last step that is booked."""
        return self._decoding.step

    def alive(self) -> list[Sequence]:
        """Those that run and are wanted."""
        return [each for each in self._running if each not in self._aborted]

    def abort(self, sequence: Sequence) -> bool:
        """Have it dropped at the next plan; False if it does not run."""
        if sequence not in self._running:
            return False
        self._aborted[sequence] = None
        return True

    def is_wanted(self, sequence: Sequence) -> bool:
        """Whether nobody has aborted it."""
        return sequence.state != "aborted" and sequence not in self._aborted

    # --- what the engine's loop does

    def plan(self, now_s: float, start_s: float) -> Stretch | None:
        """The next stretch, to begin at `start_s`; None if there is nothing to compute."""
        self._drop_aborted()
        before = self._books.preemptions
        while self._decoding.next_blocks() > self.cache.available:
            self._preempt_newest()
        chunks = self._continue_prompts()
        # Nobody is admitted in a step that needs a preemption.
        if self._books.preemptions == before:
            self._admit(chunks, now_s)
        chunks = [chunk for chunk in chunks if chunk[0] in self._prefills]
        if chunks:
            return self._mixed_step(start_s, chunks)
        if not self._decoding.count:
            return None
        return self._decode_stretch(start_s, once=self._books.preemptions > before)

    def settle(self, steps: int) -> None:
        """Book `steps` steps of decoding: they will not be cut short any more."""
        self.cache.reserve(self._decoding.blocks_for(steps))
        self._leaving += self._decoding.take(steps)

    def finished(self, last: int) -> list[Sequence]:
        """Those whose last token came with step number `last`; they hold nothing any more."""
        done = []
        while self._leaving and self._leaving[0].ends_at <= last:
            sequence = self._leaving.popleft()
            if sequence not in self._running:
                continue  # aborted, and gone already
            self._leave(sequence, sequence.goal + sequence.ends_at - sequence.begun_at)
            if sequence in self._aborted:
                self._forget(sequence)
            else:
                done.append(sequence)
        return done

    def abandon(self) -> None:
        """The engine has crashed: nothing is held by anybody."""
        for sequence in self._running:
            sequence.held = None
        for sequence in self._aborted:
            sequence.state = "aborted"

    # --- prompts

    def _continue_prompts(self) -> _Chunks:
        chunks: _Chunks = []
        budget = self._profile.max_num_batched_tokens - self._decoding.count
        for sequence in tuple(self._prefills):
            tokens = min(sequence.goal - sequence.computed, budget)
            if tokens <= 0 or sequence not in self._prefills or not self._grow(sequence, tokens):
                continue
            chunks.append((sequence, tokens))
            budget -= tokens
        return chunks

    def _grow(self, sequence: Sequence, tokens: int) -> bool:
        """Blocks for so many more tokens of a prompt, at the cost of newer sequences if need be."""
        held = sequence.held
        assert held is not None
        needed = self.cache.needed(held, sequence.computed + tokens)
        while needed > self.cache.available - self._decoding.next_blocks():
            if self._preempt_newest() is sequence:
                return False
        self.cache.take(held, needed)
        self.cache.publish(held, sequence.computed + tokens)
        return True

    def _admit(self, chunks: _Chunks, now_s: float) -> None:
        """Let those who wait in, first come first served, while there is room for them."""
        profile = self._profile
        budget = profile.max_num_batched_tokens - self._decoding.count
        budget -= sum(tokens for _, tokens in chunks)
        while self.waiting and budget > 0 and len(self._running) < profile.max_num_seqs:
            sequence = self.waiting[0]
            tokens = self._try_admit(sequence, budget)
            if not tokens:
                return
            self.waiting.popleft()
            if sequence.scheduled_s is None:
                self._first_scheduled(sequence, now_s)
            chunks.append((sequence, tokens))
            budget -= tokens

    def _try_admit(self, sequence: Sequence, budget: int) -> int:
        """Start a prompt: how many of its tokens the step computes, 0 if memory is short."""
        cache, size = self.cache, self._profile.block_tokens
        # Blocks that the decoding sequences need in the same step come first: what has to go for
        # them is not found any more.
        spoken_for = self._decoding.next_blocks()
        cache.make_room(spoken_for)
        segments = (*sequence.prompt, *sequence.answer)
        cached = cache.match(segments, sequence.goal)
        tokens = min(sequence.goal - cached, budget)
        room_for = sequence.goal if self._profile.reserve_prompt else cached + tokens
        room = cache.available - spoken_for - cache.would_use(segments, cached)
        if -(-room_for // size) - cached // size > room:
            return 0
        held = sequence.held = cache.hold(segments, cached)
        cache.take(held, cache.needed(held, cached + tokens))
        cache.publish(held, cached + tokens)  # Those admitted to the same step find it already.
        sequence.computed = cached
        sequence.state = "prefill"
        self._places += 1
        sequence.place = self._places
        self._running[sequence] = None
        self._prefills[sequence] = None
        return tokens

    def _first_scheduled(self, sequence: Sequence, now_s: float) -> None:
        sequence.scheduled_s = now_s
        sequence.cached_tokens = sequence.computed
        self._books.prompt_tokens += sequence.prompt_tokens
        self._books.cached_tokens += sequence.computed

    # --- steps

    def _mixed_step(self, start_s: float, chunks: _Chunks) -> Stretch:
        """One step that computes prompts, and goes on with all that decode."""
        decoding, context, before = self._decoding.count, self._decoding.context(), self.step
        self.settle(1)
        computed, attended = 0, 0.0
        prefilled = []
        for sequence, tokens in chunks:
            computed += tokens
            attended += tokens * (sequence.computed + tokens / 2)
            sequence.computed += tokens
            if sequence.computed == sequence.goal:
                self._begin_to_decode(sequence)
                prefilled.append(sequence)
        step_s = self.slowness * self._profile.step_time_s(
            computed + decoding, decoding + len(chunks), context, attended
        )
        return Stretch(start_s, 1, step_s, 0.0, decoding, before, tuple(prefilled))

    def _begin_to_decode(self, sequence: Sequence) -> None:
        """Its prompt is complete with the step booked last, which makes its next token."""
        del self._prefills[sequence]
        sequence.state = "decode"
        sequence.begun_at = self.step
        sequence.ends_at = self.step + sequence.output_tokens - sequence.generated - 1
        if sequence.ends_at == self.step:
            self._leaving.append(sequence)
        else:
            self._decoding.add(sequence)

    def _decode_stretch(self, start_s: float, *, once: bool) -> Stretch:
        """Steps until the first sequence ends or memory is short; or just one."""
        decoding, profile = self._decoding, self._profile
        steps = 1
        if not once:
            steps = decoding.steps_with(self.cache.available, decoding.steps_to_end())
        n = decoding.count
        first_s = self.slowness * profile.step_time_s(n, n, decoding.context())
        growth_s = self.slowness * profile.context_s * n
        return Stretch(start_s, steps, first_s, growth_s, n, self.step, open=True)

    # --- leaving

    def _preempt_newest(self) -> Sequence:
        """Take the newest sequence out; those that have computed all of theirs leave anyway."""
        sequence = next(each for each in reversed(self._running) if each not in self._leaving)
        computed = sequence.computed
        if sequence.state == "decode":
            self._decoding.remove(sequence)
            made = self.step - sequence.begun_at
            computed = sequence.goal + made
            sequence.generated += made + 1
            sequence.made_at = self.step
        else:
            del self._prefills[sequence]
        self._leave(sequence, computed)
        sequence.goal = sequence.prompt_tokens + sequence.generated
        sequence.preemptions += 1
        sequence.state = "waiting"
        self.waiting.appendleft(sequence)
        self._books.preemptions += 1
        return sequence

    def _drop_aborted(self) -> None:
        for sequence in tuple(self._aborted):
            computed = sequence.computed
            if sequence in self._prefills:
                del self._prefills[sequence]
            else:
                if sequence.ends_at > self.step:
                    self._decoding.remove(sequence)
                computed = sequence.goal + min(self.step, sequence.ends_at) - sequence.begun_at
            self._leave(sequence, computed)
            self._forget(sequence)

    def _forget(self, sequence: Sequence) -> None:
        del self._aborted[sequence]
        sequence.state = "aborted"

    def _leave(self, sequence: Sequence, computed: int) -> None:
        """Give back its blocks, those of `computed` tokens; they may be found again."""
        held = sequence.held
        assert held is not None
        self.cache.assign(held, self.cache.needed(held, computed))
        self.cache.publish(held, computed)
        self.cache.release(held)
        sequence.held = None
        del self._running[sequence]
