"""What holds for an engine whatever is asked of it."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.engine import Engine, Profile, Sequence
from bench.workload.model import Segment
from tests.bench.engine.naive import NaiveEngine, Request
from tests.bench.engine.workloads import Event, Talk, drive, profiles, talks

PROFILE = Profile(
    name="small",
    step_s=0.001,
    sequence_s=0.0001,
    weights_s=0.01,
    token_s=0.00002,
    attention_s=1e-8,
    context_s=1e-7,
    request_s=0.0,
    request_token_s=0.0,
    kv_tokens=1600,
    max_num_seqs=4,
    max_num_batched_tokens=256,
)
ENDS = ("finished", "aborted", "lost")

kinds = st.sampled_from(("abort", "abort", "slow_down", "stall", "crash"))
happenings = st.lists(st.builds(Event, st.floats(1e-4, 2), kinds, st.integers(0, 11)), max_size=8)


class Told(Engine):
    """An engine whose callbacks are counted, and passed on to the driver."""

    def __init__(self, profile: Profile) -> None:
        super().__init__(profile, on_first=self._first, on_end=self._end)
        self.firsts: list[Sequence] = []
        self.ends: list[Sequence] = []
        self.told_end: Any = lambda sequence: None

    def _first(self, sequence: Sequence) -> None:
        self.firsts.append(sequence)

    def _end(self, sequence: Sequence) -> None:
        self.ends.append(sequence)
        self.told_end(sequence)


def ask(tokens: int, output: int, key: int = 1) -> Sequence:
    return Sequence((Segment(key, tokens),), output, key + 1000)


@given(profiles(), talks(), happenings)
def test_everything_ends_once_and_gives_back_its_blocks(
    profile: Profile, sessions: list[Talk], events: list[Event]
) -> None:
    """Each sequence ends in one way, is told of as often as it happened, and leaves no block."""
    engine = Told(profile)
    sequences = drive(engine, Sequence, sessions, events)
    assert all(each.state in ENDS for each in sequences)
    finished = [each for each in sequences if each.state == "finished"]
    assert sorted(map(id, engine.ends)) == sorted(map(id, finished))
    assert len(set(engine.firsts)) == len(engine.firsts)
    assert {each for each in sequences if each.first_token_s is not None} == set(engine.firsts)
    assert engine.snapshot() == (0, 0, 0.0)
    assert engine.next_s() == math.inf
    assert all(each.generated == each.output_tokens for each in finished)


@given(profiles(), talks(), happenings, st.floats(0.0007, 0.05))
def test_many_small_steps_are_one_big_step(
    profile: Profile, sessions: list[Talk], events: list[Event], pace_s: float
) -> None:
    """Looking often changes nothing: not the times, not the books."""
    sessions = [talk._replace(turns=talk.turns[:1]) for talk in sessions]
    plain, watched = Told(profile), Told(profile)
    once = drive(plain, Sequence, sessions, events)
    again = drive(watched, Sequence, sessions, events, watch_s=pace_s)
    for one, other in zip(once, again, strict=True):
        assert (one.state, one.cached_tokens, one.preemptions) == (
            (other.state, other.cached_tokens, other.preemptions)
        )
        assert one.first_token_s == other.first_token_s
        assert one.finished_s == other.finished_s
    assert plain.books.steps == watched.books.steps
    assert plain.books.generated_tokens == watched.books.generated_tokens
    assert plain.books.busy_s == watched.books.busy_s


@given(profiles(), talks(), happenings)
def test_the_same_calls_give_the_same_results(
    profile: Profile, sessions: list[Talk], events: list[Event]
) -> None:
    """Nothing depends on chance or on where objects lie in memory."""
    keep = [object() for _ in range(100)]
    once = drive(Told(profile), Sequence, sessions, events)
    del keep
    again = drive(Told(profile), Sequence, sessions, events)
    assert [each.finished_s for each in once] == [each.finished_s for each in again]
    assert [each.cached_tokens for each in once] == [each.cached_tokens for each in again]


@given(profiles(), talks(), st.floats(0.01, 3))
def test_tokens_made_are_those_whose_time_has_come(
    profile: Profile, sessions: list[Talk], at_s: float
) -> None:
    """`tokens_made` counts the tokens that a step-by-step engine has made by then."""
    sessions = [talk._replace(turns=talk.turns[:1]) for talk in sessions]
    naive: Any = NaiveEngine(profile, on_end=lambda request: naive.told_end(request))
    requests = drive(naive, Request, sessions)
    engine = Told(profile)
    counted: list[int] = []

    def count(sequences: list[Any]) -> None:
        engine.advance(at_s)
        counted.extend(engine.tokens_made(each, at_s) for each in sequences)

    drive(engine, Sequence, sessions, look=(at_s, count))
    for request, made in zip(requests, counted, strict=True):
        assert bisect_right(request.token_times, at_s) == made


@settings(max_examples=50)
@given(profiles(), talks(), st.integers(0, 11))
def test_due_times_lead_to_every_token(
    profile: Profile, sessions: list[Talk], followed: int
) -> None:
    """Who sleeps until `due_s` again and again wakes as each token comes, and never in vain for
    ever."""
    sessions = [talk._replace(turns=talk.turns[:1]) for talk in sessions]
    naive: Any = NaiveEngine(profile, on_end=lambda request: naive.told_end(request))
    request = drive(naive, Request, sessions)[followed % len(sessions)]
    engine = Told(profile)
    seen: list[float] = []
    drive(engine, Sequence, sessions, follow=(followed % len(sessions), seen))
    assert seen == pytest.approx(request.token_times, rel=1e-9)


def test_callbacks_may_submit_and_abort() -> None:
    """A client that asks again, or makes another leave, from within a callback."""
    other, third = ask(40, 100, key=2), ask(10, 3, key=3)

    def first_is_there(sequence: Sequence) -> None:
        if sequence is not third:
            engine.abort(other, sequence.first_token_s or 0)
            engine.submit(third, sequence.first_token_s or 0)

    engine = Engine(PROFILE, on_first=first_is_there)
    one = ask(30, 20)
    engine.submit(one, 0.0)
    engine.submit(other, 0.001)
    engine.advance(10.0)
    assert (one.state, other.state, third.state) == ("finished", "aborted", "finished")
    assert engine.snapshot().kv_usage == 0.0


def test_what_can_never_fit_is_refused() -> None:
    """A sequence longer than memory or than the model's limit raises, and changes nothing."""
    engine = Engine(PROFILE)
    assert engine.fits(1600)
    assert not engine.fits(1601)
    with pytest.raises(ValueError, match="1601 tokens do not fit into engine small"):
        engine.submit(ask(1600, 1), 0.0)
    assert engine.next_s() == math.inf


def test_a_first_token_waits_for_the_prompt_alone() -> None:
    """Alone, a prompt of two chunks takes two steps, and each further token one more."""
    engine = Engine(PROFILE)
    sequence = ask(300, 3)
    engine.submit(sequence, 1.0)
    engine.advance(9.0)
    prefill_s = PROFILE.step_time_s(256, 1, attended=256**2 / 2)
    prefill_s += PROFILE.step_time_s(44, 1, attended=44 * (256 + 22))
    assert sequence.ttft_s == pytest.approx(prefill_s)
    decode_s = PROFILE.step_time_s(1, 1, 301) + PROFILE.step_time_s(1, 1, 302)
    assert sequence.itl_s == pytest.approx(decode_s / 2)
    assert engine.books.steps == 4
    assert engine.books.generated_tokens == 3


def test_those_admitted_together_share_a_beginning() -> None:
    """Two equal beginnings in one step: the second finds the blocks of the first, as in vLLM."""
    engine = Engine(PROFILE)
    engine.stall(1.0, 0.0)
    first, second = (Sequence((Segment(1, 64), Segment(2 + i, 10)), 5, 100 + i) for i in range(2))
    blocker = ask(1, 1, key=50)
    engine.submit(blocker, 0.0)
    for each in (first, second):
        engine.submit(each, 0.0)
    engine.advance(5.0)
    assert first.first_token_s == second.first_token_s
    assert (first.cached_tokens, second.cached_tokens) == (0, 64)


def test_one_that_waits_is_admitted_as_soon_as_another_has_left() -> None:
    """A place that becomes free is taken in the very next step, in the middle of a long stretch."""
    delays_s = []
    for async_scheduling in (False, True):
        engine = Engine(
            msgspec.structs.replace(PROFILE, max_num_seqs=2, async_scheduling=async_scheduling)
        )
        long, short, waits = ask(16, 1000), ask(16, 20, key=2), ask(16, 5, key=3)
        for each in (long, short, waits):
            engine.submit(each, 0.0)
        engine.advance(60.0)
        assert waits.first_token_s is not None
        assert short.finished_s is not None
        delays_s.append(waits.first_token_s - short.finished_s)
    step_s = PROFILE.step_time_s(17, 2, context=40)
    assert delays_s == pytest.approx([step_s, 2 * step_s], rel=0.05)


def test_aborting_the_head_of_the_queue_lets_the_next_one_in() -> None:
    """One that fits enters at once when the one before it, which does not, has left."""
    engine = Engine(PROFILE)
    running, large, small = ask(800, 700), ask(1000, 10, key=2), ask(30, 5, key=3)
    engine.submit(running, 0.0)
    engine.submit(large, 0.05)
    engine.submit(small, 0.06)
    engine.advance(1.0)
    assert small.first_token_s is None
    engine.abort(large, 1.0)
    engine.advance(2.0)
    assert large.state == "aborted"
    assert small.state == "finished"


@pytest.mark.parametrize("steps_before_the_end", range(4))
def test_aborting_just_before_the_end_gives_back_every_block(steps_before_the_end: int) -> None:
    """Also the block that the last token took, when the sequence had only to be told of its end."""
    engine = Engine(PROFILE)
    sequence, other = ask(15, 18), ask(15, 400, key=2)
    engine.submit(sequence, 0.0)
    engine.submit(other, 0.0)
    engine.advance(0.1)
    last_s = engine.due_s(sequence, 17, 0.1)
    step_s = PROFILE.step_time_s(2, 2, context=66)
    at_s = last_s - (steps_before_the_end + 0.5) * step_s
    engine.advance(at_s)
    engine.abort(sequence, at_s)
    engine.advance(math.inf)
    assert sequence.state == "aborted"
    assert engine.snapshot().kv_usage == 0.0


def test_a_crash_loses_all_and_the_cache() -> None:
    """Nothing survives, be it running, waiting or cached; then it serves again."""
    engine = Engine(PROFILE)
    done = ask(160, 2)
    engine.submit(done, 0.0)
    engine.advance(1.0)
    runs, leaves = ask(160, 500), ask(20, 500, key=4)
    engine.submit(runs, 1.0)
    engine.submit(leaves, 1.0)
    engine.advance(2.0)
    assert runs.cached_tokens == 144
    engine.abort(leaves, 2.0)
    queued = ask(100, 5, key=5)
    engine.submit(queued, 2.0)
    assert engine.crash(30.0, 2.001) == [runs, queued]
    assert (runs.state, leaves.state, queued.state) == ("lost", "aborted", "lost")
    again = ask(160, 2)
    engine.submit(again, 3.0)
    engine.advance(100.0)
    assert again.cached_tokens == 0
    assert again.first_token_s is not None
    assert again.first_token_s > 32.0


def test_slow_factor_and_stall() -> None:
    """A slow engine takes as many times as long; a stalled one begins nothing until then."""
    engine = Engine(PROFILE)
    engine.slow_down(3.0, 0.0)
    slow = ask(100, 2)
    engine.submit(slow, 0.0)
    engine.advance(1.0)
    assert slow.ttft_s == pytest.approx(3 * PROFILE.step_time_s(100, 1, attended=5000))
    engine.stall(7.0, 1.0)
    engine.slow_down(1.0, 1.0)
    late = ask(100, 2, key=2)
    engine.submit(late, 2.0)
    engine.advance(20.0)
    assert late.first_token_s == pytest.approx(7 + PROFILE.step_time_s(100, 1, attended=5000))


def test_a_reset_cache_finds_nothing() -> None:
    """After `reset_cache` a prompt that was cached is computed anew."""
    engine = Engine(PROFILE)
    for at_s in (0.0, 1.0):
        engine.submit(ask(160, 2), at_s)
    engine.advance(2.0)
    engine.reset_cache(2.0)
    third = ask(160, 2)
    engine.submit(third, 2.0)
    engine.advance(3.0)
    assert third.cached_tokens == 0
    assert engine.books.cached_tokens == 144
